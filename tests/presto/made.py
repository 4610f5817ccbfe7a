"""Small data for the trainer's tests: a model folder with random weights, exported datasets, encoded folders."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import torch

from longtake.manifests.dataset.shards import dataset_schema, dataset_table, finish_dataset, write_shards
from longtake.presto import encoded
from longtake.presto.config import Encoding, TrainConfig, parse_config
from longtake.presto.folder import text_fingerprint, vae_fingerprint
from longtake.presto.prepare import Run

BUCKET = {"frames": 24, "height": 64, "width": 64, "micro_batch": 1}  # The latents have 6×8×8 places.
FRAMES = 30  # Frames of a made clip.
WORDS = ("a red car drives", "it turns left", "a man waves", "rain falls", "the night comes")


def config(**changed: Any) -> TrainConfig:
    """Small, float32, reading in the process itself; `changed` by section."""
    found: dict[str, Any] = {
        "name": "small",
        "attention": {"variant": "isolated"},
        "data": {"buckets": [BUCKET], "workers": 0},
        "optimizer": {"rate": 1e-3, "ema": 0.9},
        "steps": 4,
        "global_batch": 2,
        "precision": "float32",
        "checkpoints": {"every": 2, "keep": 2},
        "log_every": 1,
        "seed": 3,
    }
    for key, value in changed.items():
        found[key] = {**found[key], **value} if isinstance(found.get(key), dict) else value
    return parse_config(found, "test")


def film(path: Path, frames: int = FRAMES, size: tuple[int, int] = (96, 64), fps: int = 30, **container: str) -> None:
    """An mp4 whose frame i is of grey level 8·i (mod 256): width, height, frames per second, options of the container."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=container) as out:
        stream = out.add_stream("libx264", rate=fps, options={"crf": "1", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for i in range(frames):
            picture = np.full((size[1], size[0], 3), 8 * i % 256, np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(stream.encode(None))


def row(number: int, folder: Path, **changed: Any) -> dict[str, Any]:
    """A row of the exported table; its film is made unless it is there."""
    clip_id = hashlib.sha256(f"clip {number}".encode()).hexdigest()[:32]
    path = f"clips/{clip_id[:2]}/{clip_id}.mp4"
    if not (folder / path).exists():
        film(folder / path)
    made = {
        "path": path,
        "num_frames": FRAMES,
        "height": 64,
        "width": 96,
        "clip_id": clip_id,
        "video_id": hashlib.sha256(f"video {number // 2}".encode()).hexdigest()[:32],
        "uri": "film.mp4",
        "start": 0.0,
        "end": 1.0,
        "fps": 30.0,
        "pace": 1.0,
        "caption": f"clip {number}",
        "sub_captions": [f"{words} {number}" for words in WORDS],
        "tier": "pretrain",
        "verdict": "kept",
        "sha256": clip_id * 2,
    }
    return made | changed


def dataset(folder: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """Shards and index of `rows`, as the export stage writes them."""
    table = dataset_table(rows, dataset_schema(frames=FRAMES))
    write_shards(table, folder)
    finish_dataset(folder)
    return folder


def encoded_folder(
    folder: Path,
    model: Path,
    count: int,
    latent: tuple[int, int, int] = (6, 8, 8),
    words: int = 3,
    width: int = 32,
    first: int = 0,
) -> Path:
    """Random moments and captions of `count` clips, under the fingerprints of `model`. words: the least tokens of a
    caption; width: of an embedding. first: number of the first clip."""
    vae, text = vae_fingerprint(model, Encoding()), text_fingerprint(model, Encoding())
    bucket = "x".join(map(str, (latent[0] * 4, latent[1] * 8, latent[2] * 8)))
    rows = []
    for number in range(first, first + count):
        generator = torch.Generator().manual_seed(number)
        clip_id = hashlib.sha256(f"clip {number}".encode()).hexdigest()[:32]
        lengths = [words + (number + i) % 5 for i in range(6)]
        found = encoded.Encoding(
            torch.randn(8, *latent, generator=generator),
            [torch.randn(n, width, generator=generator).bfloat16() for n in lengths],
        )
        size = encoded.write_encoding(encoded.latents_path(folder, clip_id), found, vae)
        rows.append(
            {
                "clip_id": clip_id,
                "status": "ok",
                "video_id": f"video {number // 2}",
                "content": f"{number}",
                "bucket": bucket,
                "vae": vae,
                "text_encoder": text,
                "segments": 5,
                "tier": "pretrain",
                "tokens": lengths,
                "bytes": size,
            }
        )
    encoded.manifest(folder).append(pa.Table.from_pylist(rows, schema=encoded.SCHEMA))
    encoded.write_null(folder, text, torch.zeros(1, width).bfloat16())
    return folder


def run(config: TrainConfig, model: Path, data: Path, output: Path) -> Run:
    """As the command line makes it."""
    return Run(config, model, data, output)
