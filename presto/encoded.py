"""Clips encoded beforehand: VAE moments and caption embeddings, one file per clip, and a manifest of them.

    ENCODED/encoded/*.parquet                    a row per clip: what it is, by which weights, or why it is not there
    ENCODED/latents/<2 digits>/<clip id>.safetensors
    ENCODED/null/<text encoder>.safetensors      the embedding of the empty caption, which dropout puts in

`moments` is float16 (8, T, h, w): mean and log variance, so that the posterior is still sampled at each step. `text` is
(tokens, D), the captions one after the other, the overall one first; `lengths` int32 (captions) says where each ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from manifests.shards import whole_file
from manifests.store import Manifest, StoreError
from presto.config import Bucket
from presto.dataset import Clip, Drop
from presto.errors import DROPS, ClipError, PrestoError

if TYPE_CHECKING:
    from torch import Tensor

SCHEMA = pa.schema(
    [
        pa.field("clip_id", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),  # ok | error
        pa.field("error_kind", pa.string()),  # a key of presto.errors.DROPS
        pa.field("error", pa.string()),
        pa.field("video_id", pa.string(), nullable=False),
        pa.field("content", pa.string()),  # hash of the clip's file and captions
        pa.field("bucket", pa.string()),  # 88x720x1280
        pa.field("vae", pa.string(), nullable=False),  # fingerprints of the weights
        pa.field("text_encoder", pa.string(), nullable=False),
        pa.field("segments", pa.int32()),
        pa.field("tier", pa.string()),
        pa.field("tokens", pa.list_(pa.int32())),
        pa.field("bytes", pa.int64()),
    ]
)


def manifest(folder: Path) -> Manifest:
    """The rows of an encoded folder."""
    return Manifest(str(folder), "encoded", "clip_id", SCHEMA)


def latents_path(folder: Path, clip_id: str) -> Path:
    """Where a clip's encoding lies."""
    return folder / "latents" / clip_id[:2] / f"{clip_id}.safetensors"


def is_encoded(folder: Path) -> bool:
    """Whether `folder` was written by `encode`."""
    return (folder / "encoded").is_dir()


@dataclass(frozen=True, slots=True)
class Encoding:
    """One clip: moments float16 (8, T, h, w); captions, the overall one first, each (tokens, D)."""

    moments: Tensor
    captions: list[Tensor]


def write_encoding(path: Path, found: Encoding, vae: str) -> int:
    """Write one clip's file, whole or not at all; its bytes. vae: fingerprint, kept inside."""
    import torch
    from safetensors.torch import save_file

    tensors = {
        "moments": found.moments.to(torch.float16).contiguous().cpu(),
        "text": torch.cat(found.captions).contiguous().cpu(),
        "lengths": torch.tensor([len(c) for c in found.captions], dtype=torch.int32),
    }
    with whole_file(path) as part:
        save_file(tensors, part, metadata={"vae": vae})
    return path.stat().st_size


def read_encoding(path: Path) -> Encoding:
    """Raises ClipError: missing, unreadable."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)  # mapped, not copied
        lengths = tensors["lengths"].tolist()
        return Encoding(tensors["moments"], list(torch.split(tensors["text"], lengths)))
    except FileNotFoundError as error:
        raise ClipError("missing", f"{path} is not there: encode again") from error
    except (SafetensorError, OSError, KeyError, RuntimeError, ValueError) as error:
        raise ClipError(
            "unreadable", f"{path} is damaged ({error}): delete it, its row too, and encode again"
        ) from error


def null_path(folder: Path, text_encoder: str) -> Path:
    """Where the embedding of the empty caption lies."""
    return folder / "null" / f"{text_encoder}.safetensors"


def write_null(folder: Path, text_encoder: str, embedding: Tensor) -> None:
    """embedding: (tokens, D)."""
    from safetensors.torch import save_file

    with whole_file(null_path(folder, text_encoder)) as part:
        save_file({"text": embedding.contiguous().cpu()}, part)


def read_null(folder: Path, text_encoder: str) -> Tensor:
    """(tokens, D). Raises PrestoError."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = null_path(folder, text_encoder)
    try:
        return load_file(path)["text"]
    except (OSError, SafetensorError, KeyError) as error:
        raise PrestoError(
            f"{path}, the embedding of the empty caption, cannot be read ({error}): encode again"
        ) from error


def read_encoded(
    folder: Path, buckets: tuple[Bucket, ...], segments: int | None, vae: str, text_encoder: str
) -> tuple[list[Clip], list[Drop], set[str]]:
    """Clips of an encoded folder that can be used, those that cannot, and the tiers they come from.

    segments: captions that each must have; None: only the overall one. Raises PrestoError if the folder is none, or if
    its clips were encoded by other weights than `vae` and `text_encoder`, which are fingerprints.
    """
    try:
        table = manifest(folder).read()
    except StoreError as error:
        raise PrestoError(str(error)) from error
    if not table.num_rows:
        raise PrestoError(f"{folder} holds no encoded clip: run longtake-presto encode first")
    made = table.filter(pc.equal(table["status"], "ok"))
    for field, wanted, what in (("vae", vae, "VAE"), ("text_encoder", text_encoder, "text encoder")):
        others = made.filter(pc.not_equal(made[field], wanted))
        if others.num_rows:
            raise PrestoError(
                f"{manifest(folder).path}: {others.num_rows} of {made.num_rows} clips were encoded by another {what} "
                f"(column {field!r}: {others[field][0]}, and the model's is {wanted}), {others['clip_id'][0]} for one. "
                "Encode them again with this model, or train the model that they were made for"
            )
    numbers = {bucket.name: i for i, bucket in enumerate(buckets)}
    clips, drops = [], []
    for row in table.to_pylist():
        path = str(latents_path(folder, row["clip_id"]))
        kind = row["error_kind"] if row["error_kind"] in DROPS else "unreadable"
        if row["status"] != "ok":
            drops.append(Drop(row["clip_id"], path, kind, row["error"] or ""))
        elif row["bucket"] not in numbers:
            drops.append(Drop(row["clip_id"], path, "bucket", f"it was encoded at {row['bucket']}"))
        elif segments is not None and row["segments"] != segments:
            drops.append(Drop(row["clip_id"], path, "captions", f"{row['segments']} captions, and not {segments}"))
        elif not Path(path).is_file():
            drops.append(Drop(row["clip_id"], path, "missing", f"{path} is not there"))
        else:
            clips.append(Clip(row["clip_id"], row["video_id"], path, numbers[row["bucket"]], content=row["content"]))
    tiers: set[Any] = set(table["tier"].to_pylist())
    return clips, drops, {tier for tier in tiers if tier}
