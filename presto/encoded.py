"""Clips encoded beforehand: VAE moments and caption embeddings, one file per clip, and a manifest of them.

    ENCODED/encoded/*.parquet                    a row per clip: what it is, by which weights, or why it is not there
    ENCODED/latents/<2 digits>/<clip id>.safetensors
    ENCODED/null/<text encoder>.safetensors      the embedding of the empty caption, which dropout puts in

`moments` is float16 (8, T, h, w): mean and log variance, so that the posterior is still sampled at each step. `text` is
(tokens, D), the captions one after the other, the overall one first; `lengths` int32 (captions) says where each ends.
"""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pyarrow as pa
import pyarrow.compute as pc

from longtake.manifests.dataset.splits import REST
from longtake.manifests.store import Manifest, StoreError
from longtake.presto.config import Bucket
from longtake.presto.dataset import Clip, Drop, require_names
from longtake.presto.errors import DROPS, ClipError, PrestoError
from longtake.presto.files import Place, is_remote, join, listing, read, sizes, write

if TYPE_CHECKING:
    from torch import Tensor

SCHEMA = pa.schema(
    [
        pa.field("clip_id", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),  # Values: ok, error.
        pa.field("error_kind", pa.string()),  # A key of longtake.presto.errors.DROPS.
        pa.field("error", pa.string()),
        pa.field("video_id", pa.string(), nullable=False),
        pa.field("content", pa.string()),  # Hash of the clip's file and captions.
        pa.field("bucket", pa.string()),  # Frames, height and width, such as 88x720x1280.
        pa.field("vae", pa.string(), nullable=False),  # Fingerprints of the weights.
        pa.field("text_encoder", pa.string(), nullable=False),
        pa.field("segments", pa.int32()),
        pa.field("tier", pa.string()),
        pa.field("tokens", pa.list_(pa.int32())),
        pa.field("bytes", pa.int64()),
        pa.field("split", pa.string()),  # The split that the dataset names. Null: train.
    ]
)


_LATENTS = "latents"
_MOST_HEAD = 1 << 20  # Bytes of a file's head. The head of a file that `encode` wrote is far smaller.
# Name of a tensor in a file → its number of dimensions, and the types that it may have.
_TENSORS = {"moments": (4, "F16"), "text": (2, "BF16", "F16", "F32"), "lengths": (1, "I32")}
_DTYPES = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "I32": "int32"}


def manifest(folder: Place) -> Manifest:
    """The rows of an encoded folder. Raises PrestoError: a URI that nobody here can open."""
    try:
        return Manifest(str(folder), "encoded", "clip_id", SCHEMA)
    except StoreError as error:
        raise PrestoError(str(error)) from error


def latents_path(folder: Place, clip_id: str) -> Place:
    """Where a clip's encoding lies."""
    return join(folder, f"{_LATENTS}/{_name(clip_id)}")


def latents_there(folder: Place, clip_ids: Iterable[str]) -> dict[str, int | None]:
    """Those clips whose encodings lie in a folder, and their bytes, where the filesystem tells."""
    names = {_name(clip_id): clip_id for clip_id in clip_ids}
    return {names[name]: size for name, size in sizes(join(folder, _LATENTS), names).items()}


def _name(clip_id: str) -> str:
    return f"{clip_id[:2]}/{clip_id}.safetensors"


def is_encoded(folder: Place) -> bool:
    """Whether `folder` was written by `encode`."""
    return bool(listing(join(folder, "encoded")))


@dataclass(frozen=True, slots=True)
class Encoding:
    """One clip: moments float16 (8, T, h, w); captions, the overall one first, each (tokens, D)."""

    moments: Tensor
    captions: list[Tensor]


def write_encoding(path: Place, encoding: Encoding, vae: str) -> int:
    """Write one clip's file, whole or not at all; its bytes. vae: fingerprint, kept inside."""
    import torch
    from safetensors.torch import save

    tensors = {
        "moments": encoding.moments.to(torch.float16).contiguous().cpu(),
        "text": torch.cat(encoding.captions).contiguous().cpu(),
        "lengths": torch.tensor([len(c) for c in encoding.captions], dtype=torch.int32),
    }
    data = save(tensors, metadata={"vae": vae})
    write(path, data)
    return len(data)


class EncodingFile:
    """One clip's file, open. Its head is read; its tensors are read straight to where they are wanted: a batch costs one
    copy out of the page cache, as reading the bytes does.

    moments: their shape, (8, T, h, w). lengths: tokens of each caption, the overall one first. text: dtype and width D of
    the embeddings. All that is called here raises ClipError: missing, unreadable.
    """

    def __init__(self, path: Place) -> None:
        self.path = path
        with self._told():
            self._file: Any = io.BytesIO(read(str(path))) if is_remote(path) else open(path, "rb", buffering=0)  # noqa: SIM115
        try:
            with self._told():
                self._read_head()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *fault: object) -> None:
        self._file.close()

    def read_moments(self, into: Tensor) -> None:
        """into: float16, contiguous, of the shape `moments`."""
        self._read(self._at["moments"], into)

    def read_caption(self, number: int, into: Tensor) -> None:
        """The embedding of one caption. into: contiguous (lengths[number], D), of the dtype in `text`."""
        row = self.text[0].itemsize * self.text[1]
        self._read(self._at["text"] + sum(self.lengths[:number]) * row, into)

    def _read_head(self) -> None:
        """https://github.com/huggingface/safetensors, "Format": the head's bytes in 8 bytes, the head in JSON, the data."""
        import torch

        size = int.from_bytes(self._file.read(8), "little")
        if size > _MOST_HEAD:
            raise ValueError(f"a head of {size} bytes")
        head, whole = json.loads(self._file.read(size)), self._file.seek(0, os.SEEK_END)
        self._at: dict[str, int] = {}
        shapes: dict[str, tuple[torch.dtype, list[int]]] = {}
        for name, (dimensions, *kinds) in _TENSORS.items():
            kind, shape, (first, end) = (head[name][key] for key in ("dtype", "shape", "data_offsets"))
            if kind not in kinds or len(shape) != dimensions:
                raise ValueError(f"{name} is {kind} {shape}")
            dtype: torch.dtype = getattr(torch, _DTYPES[kind])
            numbers = [first, end, *shape]
            if not all(type(number) is int and 0 <= number <= whole for number in numbers):
                raise ValueError(f"{name} has {kind} {shape} at {first}")
            if end - first != math.prod(shape) * dtype.itemsize or 8 + size + end > whole:
                raise ValueError(f"{name} does not fill its place")
            self._at[name], shapes[name] = 8 + size + first, (dtype, shape)
        self.moments = tuple(shapes["moments"][1])
        (rows, width), dtype = shapes["text"][1], shapes["text"][0]
        self.text = dtype, width
        lengths = torch.empty(shapes["lengths"][1], dtype=torch.int32)
        self._read(self._at["lengths"], lengths)
        self.lengths: list[int] = lengths.tolist()
        if min(self.lengths, default=0) < 0 or sum(self.lengths) != rows:
            raise ValueError(f"captions of {self.lengths} tokens in a text of {rows}")

    def _read(self, at: int, into: Tensor) -> None:
        import torch

        with self._told():
            self._file.seek(at)
            room = memoryview(into.reshape(-1).view(torch.uint8).numpy())
            while room:
                count = self._file.readinto(room)
                if not count:
                    raise ValueError("it ends too soon")
                room = room[count:]

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise ClipError("missing", f"{self.path} is not there: encode again") from error
        except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ClipError(
                "unreadable", f"{self.path} is damaged ({error}): delete it, its row too, and encode again"
            ) from error


def null_path(folder: Place, text_encoder: str) -> Place:
    """Where the embedding of the empty caption lies."""
    return join(folder, f"null/{text_encoder}.safetensors")


def write_null(folder: Place, text_encoder: str, embedding: Tensor) -> None:
    """embedding: (tokens, D)."""
    from safetensors.torch import save

    write(null_path(folder, text_encoder), save({"text": embedding.contiguous().cpu()}))


def read_null(folder: Place, text_encoder: str) -> Tensor:
    """(tokens, D). Raises PrestoError."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    path = null_path(folder, text_encoder)
    try:
        return load(read(str(path)) if is_remote(path) else Path(path).read_bytes())["text"]
    except (OSError, SafetensorError, KeyError) as error:
        raise PrestoError(
            f"{path}, the embedding of the empty caption, cannot be read ({error}): encode again"
        ) from error


def read_encoded(
    folder: Place, buckets: tuple[Bucket, ...], segments: int | None, vae: str, text_encoder: str
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
    require_names(table["clip_id"].to_pylist(), manifest(folder).path)
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
    there = latents_there(folder, table["clip_id"].to_pylist())
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
        elif row["clip_id"] not in there:
            drops.append(Drop(row["clip_id"], path, "missing", f"{path} is not there: encode again"))
        elif (size := there[row["clip_id"]]) is not None and size != row["bytes"]:
            drops.append(Drop(row["clip_id"], path, "unreadable", f"{path} has {size} bytes, not {row['bytes']}"))
        else:
            number, split = numbers[row["bucket"]], row["split"] or REST
            clips.append(Clip(row["clip_id"], row["video_id"], path, number, content=row["content"], split=split))
    tiers: set[Any] = set(table["tier"].to_pylist())
    return clips, drops, {tier for tier in tiers if tier}
