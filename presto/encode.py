"""encode: dataset → latents and caption embeddings, one row in, one row out (see longtake.presto.encoded).

What is left to do is the dataset's clips less those whose row is `ok` under the same weights, bucket, file and captions:
resume and growth are this one anti-join. A clip that cannot be encoded ends as a row with its reason, and is tried again
with `retry_errors`. Kill it at any moment; the same command goes on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from longtake.manifests.dataset.splits import REST
from longtake.presto import encoded
from longtake.presto.config import Bucket, Encoding
from longtake.presto.dataset import Clip, read_dataset, usable
from longtake.presto.errors import DROPS, ClipError, PrestoError
from longtake.presto.files import Place, exists
from longtake.presto.folder import require_model_folder, text_fingerprint, vae_fingerprint
from longtake.presto.frames import read_frames

BATCH = 4  # Clips per task, which is what a kill loses.


@dataclass(frozen=True, slots=True)
class EncodeSettings:
    """model: a folder; output: a folder or a URI. encoding: see config. vae, text_encoder: fingerprints. tier: of the
    dataset."""

    model: str
    output: Place
    buckets: tuple[Bucket, ...]
    encoding: Encoding
    vae: str
    text_encoder: str
    segments: int
    tier: str


@dataclass(frozen=True, slots=True)
class Todo:
    """What `encode` will do. batches: tables of clips, one row each. done, unusable: rows that need no encoding."""

    settings: EncodeSettings
    batches: list[pa.Table]
    total: int
    done: int
    unusable: int


def plan(
    data: Place,
    model: Path,
    output: Place,
    buckets: Sequence[Bucket],
    tolerance: float,
    encoding: Encoding,
    *,
    retry_errors: bool = False,
    note: bool = True,
) -> Todo:
    """The clips of a dataset that are not encoded yet. note: rows of clips that cannot be (too small, no caption, …), and
    of those that wait, are written here; else nothing is. Raises PrestoError before any work where the set-up is at fault."""
    require_model_folder(model)
    table = read_dataset(data)
    segments = table.schema.field("cap").type.num_fields
    clips, drops = usable(table, data, buckets, tolerance, segments)
    if not clips:
        reasons = sorted(Counter(drop.reason for drop in drops).items())
        told = "; ".join(f"{count} {reason}: {DROPS[reason]}" for reason, count in reasons)
        raise PrestoError(
            f"{data} has no clip that can be encoded ({told}), such as {drops[0].clip_id}: {drops[0].message}"
        )
    tiers = table["tier"].unique().to_pylist()
    settings = EncodeSettings(
        str(model.resolve()),
        output,
        tuple(buckets),
        encoding,
        vae_fingerprint(model, encoding),
        text_fingerprint(model, encoding),
        segments,
        tiers[0] if len(tiers) == 1 else "",
    )
    rows = encoded.manifest(output)
    rows_by_clip = {row["clip_id"]: row for row in rows.read().to_pylist()}
    there = encoded.latents_there(output, rows_by_clip)
    todo = [clip for clip in clips if not _settled(rows_by_clip.get(clip.clip_id), clip, settings, there, retry_errors)]
    if todo:
        from longtake.presto.model import load_tokenizer
        from longtake.presto.text import require_known

        words = [text for clip in todo for text in clip.captions]
        require_known(load_tokenizer(model), words, clean=encoding.clean_captions, where=f"the captions of {data}")
    videos = dict(zip(table["clip_id"].to_pylist(), table["video_id"].to_pylist(), strict=True))
    failed = [
        _row(drop.clip_id, videos[drop.clip_id], settings, error=ClipError(drop.reason, drop.message))
        for drop in drops
        if rows_by_clip.get(drop.clip_id, {}).get("error") != drop.message
    ]
    # A later run of training then counts the clips that a stopped `encode` did not reach.
    ahead = ClipError("not_encoded", "`encode` has not reached it: run it to its end")
    pending = [
        _row(clip.clip_id, clip.video_id, settings, error=ahead) for clip in todo if clip.clip_id not in rows_by_clip
    ]
    now = {clip.clip_id: clip.split for clip in clips}
    unchanged = rows_by_clip.keys() & now.keys() - {clip.clip_id for clip in todo}
    moved = [
        rows_by_clip[key] | {"split": now[key]}
        for key in sorted(unchanged)
        if (rows_by_clip[key]["split"] or REST) != now[key]
    ]
    if note:
        rows.append(pa.Table.from_pylist([*failed, *pending, *moved], schema=encoded.SCHEMA))
    todo.sort(key=lambda clip: clip.bucket)
    batches = [pa.Table.from_pylist([asdict(c) for c in todo[i : i + BATCH]]) for i in range(0, len(todo), BATCH)]
    return Todo(settings, batches, table.num_rows, len(clips) - len(todo), len(drops))


def _settled(
    row: dict[str, Any] | None,
    clip: Clip,
    settings: EncodeSettings,
    there: Mapping[str, int | None],
    retry_errors: bool,
) -> bool:
    if row is None or row["error_kind"] == "not_encoded" or (row["status"] != "ok" and retry_errors):
        return False
    wanted = (settings.vae, settings.text_encoder, settings.buckets[clip.bucket].name, clip.content)
    if (row["vae"], row["text_encoder"], row["bucket"], row["content"]) != wanted:
        return False
    return row["status"] != "ok" or there.get(clip.clip_id, -1) in (row["bytes"], None)


def _clip(row: Mapping[str, Any]) -> Clip:
    """A clip from a row of a batch."""
    return Clip(**{**row, "captions": tuple(row["captions"])})


def left(todo: Todo) -> Todo:
    """What of it is not done yet."""
    known = {row["clip_id"]: row for row in encoded.manifest(todo.settings.output).read().to_pylist()}
    there = encoded.latents_there(todo.settings.output, known)
    batches = []
    for batch in todo.batches:
        clips = [_clip(row) for row in batch.to_pylist()]
        keep = [not _settled(known.get(clip.clip_id), clip, todo.settings, there, False) for clip in clips]
        batches.append(batch.filter(pa.array(keep, pa.bool_())))
    return replace(todo, batches=[batch for batch in batches if batch.num_rows])


class EncodeWorker:
    """Encodes batches of clips and appends their rows. Made once per process: loads the encoders, on the GPU if there is
    one."""

    def __init__(self, settings: EncodeSettings) -> None:
        import torch

        from longtake.presto.model import load_text_encoder, load_vae
        from longtake.presto.vae import allow_tf32, vae_dtype

        self.settings = settings
        allow_tf32()
        cuda = torch.cuda.is_available()
        self.device, dtype = ("cuda", torch.bfloat16) if cuda else ("cpu", torch.float32)
        model, self.output = Path(settings.model), settings.output
        self.vae = load_vae(model, vae_dtype(settings.encoding.vae_precision)).to(self.device)
        self.tokenizer, encoder = load_text_encoder(model, dtype)
        self.encoder = encoder.to(self.device)
        self.rows = encoded.manifest(self.output)
        if not exists(encoded.null_path(self.output, settings.text_encoder)):
            encoded.write_null(self.output, settings.text_encoder, self._texts([""])[0])

    def __call__(self, batch: pa.Table) -> tuple[int, int]:
        """(rows, of them errors)."""
        made = [self._encode(_clip(row)) for row in batch.to_pylist()]
        self.rows.append(pa.Table.from_pylist(made, schema=encoded.SCHEMA))
        return len(made), sum(row["status"] == "error" for row in made)

    def give_up(self, batch: pa.Table, message: str) -> tuple[int, int]:
        """Errors in place of clips that nobody survives: (rows, of them errors)."""
        clips = [_clip(row) for row in batch.to_pylist()]
        fault = ClipError("crash", message)
        made = [_row(clip.clip_id, clip.video_id, self.settings, clip, error=fault) for clip in clips]
        self.rows.append(pa.Table.from_pylist(made, schema=encoded.SCHEMA))
        return len(made), len(made)

    def _texts(self, captions: Sequence[str]) -> list[Any]:
        from longtake.presto.text import encode_captions

        return encode_captions(self.tokenizer, self.encoder, captions, clean=self.settings.encoding.clean_captions)

    def _encode(self, clip: Clip) -> dict[str, Any]:
        import torch

        from longtake.presto.text import prepared
        from longtake.presto.vae import encode_moments

        bucket = self.settings.buckets[clip.bucket]
        try:
            frames = read_frames(clip.path, bucket.frames, bucket.height, bucket.width, clip.frames)
            moments = encode_moments(self.vae, torch.from_numpy(frames)[None].to(self.device))[0]
            if not bool(torch.isfinite(moments).all()):
                raise ClipError("unreadable", f"{clip.path}: the VAE gives no finite latents")
            clean = self.settings.encoding.clean_captions
            for before, after in zip(clip.captions, prepared(clip.captions, clean=clean), strict=True):
                if before and not after:
                    raise ClipError("captions", f"cleaning leaves nothing of the caption {before[:80]!r}")
            captions = self._texts(clip.captions)
            path = encoded.latents_path(self.output, clip.clip_id)
            size = encoded.write_encoding(path, encoded.Encoding(moments, captions), self.settings.vae)
        except ClipError as error:
            return _row(clip.clip_id, clip.video_id, self.settings, clip, error=error)
        row = _row(clip.clip_id, clip.video_id, self.settings, clip)
        return row | {"tokens": [len(c) for c in captions], "bytes": size}


def _row(
    clip_id: str, video_id: str, settings: EncodeSettings, clip: Clip | None = None, error: ClipError | None = None
) -> dict[str, Any]:
    return {
        "clip_id": clip_id,
        "video_id": video_id,
        "status": "error" if error else "ok",
        "error_kind": error.reason if error else None,
        "error": str(error) if error else None,
        "content": clip.content if clip else None,
        "bucket": settings.buckets[clip.bucket].name if clip else None,
        "vae": settings.vae,
        "text_encoder": settings.text_encoder,
        "segments": settings.segments,
        "tier": settings.tier,
        "split": clip.split if clip else None,
    }


def encode_here(todo: Todo, done: Callable[[int, int], None] = lambda rows, errors: None) -> tuple[int, int]:
    """In this process: (rows, of them errors). done: is told of each batch."""
    if not todo.batches:
        return 0, 0
    worker, rows, errors = EncodeWorker(todo.settings), 0, 0
    for batch in todo.batches:
        made, bad = worker(batch)
        rows, errors = rows + made, errors + bad
        done(made, bad)
    return rows, errors


def compact(output: Place) -> None:
    """Leave one row per clip in few files; the overview of the folder. Raises PrestoError."""
    from longtake.manifests.store import StoreError

    try:
        encoded.manifest(output).compact()
    except StoreError as error:
        raise PrestoError(str(error)) from error
