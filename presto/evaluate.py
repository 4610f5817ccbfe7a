"""What can be measured of samples without other people's old environments, honestly named, beside real clips.

- dynamic degree: VBench's rule; the flow that it looks at is part of the name;
- alignment: does segment i look more like caption i than like the others (the 5×5 matrix of CLIP similarities);
- diversity between segments and coherence at their boundaries (CLIP, LPIPS).

Each is told for samples and, where a dataset is given, for real clips, read as the trainer reads them: as many frames, of
the samples' size. Alignment is told for captions that are shuffled among the segments too. A number means little without
the ones it lies between. For VBench itself, `export_vbench` writes its naming.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from longtake.manifests.dataset.shards import CAPTIONS, caption_frames
from longtake.manifests.folder import whole_file
from longtake.presto.dataset import read_dataset
from longtake.presto.errors import ClipError, PrestoError
from longtake.presto.files import Place, join
from longtake.presto.frames import read_frames
from longtake.presto.perception import Array, Clip, Distance, Flow, optical_flow
from longtake.presto.video import Frames, read_video

RATE = 8.0  # Frames per second that VBench looks at.
_NAME_BYTES = 240  # Bytes of a prompt in a file's name.


# ── dynamic degree ───────────────────────────────────────────────────────────────────────────────────────────────────


def is_dynamic(frames: Frames, flow: Flow) -> bool:
    """VBench's dynamic degree of one video (Huang et al., CVPR 2024; its dynamic_degree.py): of n frames at about 8 per
    second, each neighbouring pair's score is the mean of the 5 % largest flow lengths; the video moves if at least
    round(n / 4) pairs exceed 6 · short side / 256."""
    limit, needed = 6.0 * min(frames.shape[1:3]) / 256, round(len(frames) / 4)
    moving = 0
    for first, second in pairwise(frames):
        lengths = np.sort(np.linalg.norm(flow(first, second), axis=2), axis=None)
        top = lengths[len(lengths) - max(1, int(len(lengths) * 0.05)) :]
        moving += bool(top.mean() > limit)
    return moving >= needed


# ── alignment ────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Alignment:
    """similarity (N, N): cosine of segment i and caption j. accuracy: share of segments nearest to their own caption
    (chance 1/N). margin: mean of own similarity less the mean of the others."""

    similarity: Array
    accuracy: float
    margin: float


def alignment(segments: Array, captions: Array) -> Alignment:
    """Of embeddings (N, D) each, of any length."""
    similarity = _unit(segments) @ _unit(captions).T
    n = len(similarity)
    own = np.diag(similarity)
    others = (similarity.sum(1) - own) / max(1, n - 1)
    return Alignment(similarity, float((similarity.argmax(1) == np.arange(n)).mean()), float((own - others).mean()))


def diversity(segments: Array) -> float:
    """1 less the mean cosine between all pairs of segments' embeddings (N, D)."""
    unit = _unit(segments)
    similarity = unit @ unit.T
    return float(1 - similarity[np.triu_indices(len(unit), 1)].mean())


def coherence(before: Array, after: Array) -> float:
    """Mean cosine of the frames on the two sides of each boundary, embeddings (N − 1, D) each."""
    return float((_unit(before) * _unit(after)).sum(1).mean())


def _unit(x: Array) -> Array:
    scaled: Array = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    return scaled


# ── a folder ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Subject:
    """A video and the captions of its segments. idea: the prompt that they were expanded from. seed: of its noise."""

    path: Place
    captions: tuple[str, ...]
    idea: str = ""
    seed: int | None = None


def samples_of(folder: Path) -> list[Subject]:
    """The videos of a folder of `sample`. Raises PrestoError if there is none."""
    samples = []
    for about in sorted(folder.glob("*.json")):
        video = about.with_suffix(".mp4")
        if video.is_file():
            try:
                said = json.loads(about.read_text(encoding="utf-8"))
                prompts, idea, seed = said["prompts"], said.get("idea") or "", said.get("seed")
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise PrestoError(f"{about} holds no prompts: {error}") from error
            samples.append(Subject(video, tuple(map(str, prompts)), str(idea), seed if isinstance(seed, int) else None))
    if not samples:
        raise PrestoError(f"{folder} holds no samples: videos with a .json of their prompts beside them")
    return samples


def real_clips(dataset: Place, most: int) -> list[Subject]:
    """At most `most` clips of an exported dataset, in order of their ids, which are hashes: a fair choice."""
    table = read_dataset(dataset)
    keys = sorted((field.name for field in table.schema.field("cap").type), key=int)
    rows = table.slice(0, most).to_pylist()
    return [
        Subject(join(dataset, row["path"]), tuple(row["cap"][k] or "" for k in keys))
        for row in rows
        if row["cap"] is not None
    ]


@dataclass(frozen=True, slots=True)
class Backends:
    """By what is measured. flow: its name, and the function. clip, lpips: None leaves out what they measure."""

    flow: tuple[str, Flow]
    clip: Clip | None = None
    lpips: Distance | None = None


def measure(
    subjects: Sequence[Subject],
    by: Backends,
    read: Callable[[Place], Frames],
    seed: int = 0,
) -> dict[str, Any]:
    """Means over videos; one that cannot be read or is too small is named in `failed`, and left out of all of them.

    Of a video with one caption the alignment is left out, and five segments are compared.
    """
    rows: list[dict[str, float]] = []
    matrices: list[Array] = []
    failed: dict[str, str] = {}
    rng = np.random.default_rng(seed)
    for subject in subjects:
        try:
            row, similarity = _measure_one(read(subject.path), subject.captions, by, rng)
        except (PrestoError, ClipError) as error:
            failed[str(subject.path)] = str(error)
            continue
        rows.append(row)
        if similarity is not None:
            matrices.append(similarity)
    keys = dict.fromkeys(key for row in rows for key in row)
    means = {key: float(np.mean([row[key] for row in rows if key in row])) for key in keys}
    same = len({len(matrix) for matrix in matrices}) == 1
    similarity = np.mean(matrices, axis=0).round(4).tolist() if same else None
    return {"videos": len(rows), "failed": failed, **means, "similarity": similarity}


def _measure_one(
    frames: Frames, captions: Sequence[str], by: Backends, rng: np.random.Generator
) -> tuple[dict[str, float], Array | None]:
    """(its measures, the matrix of similarities)."""
    n = len(captions) if len(captions) > 1 else CAPTIONS
    if len(frames) < 2 * n:
        raise ClipError("short", f"{len(frames)} frames at {RATE:g} per second are too few for {n} segments")
    name, flow = by.flow
    row = {f"dynamic_degree_{name}": float(is_dynamic(frames, flow))}
    centres = list(caption_frames(len(frames), n))
    edges = [i * len(frames) // n for i in range(1, n)]
    similarity = None
    if by.clip is not None:
        middle = by.clip.pictures(frames[centres])
        if len(captions) > 1:
            texts = by.clip.texts(captions)
            aligned, mixed = alignment(middle, texts), alignment(middle, texts[_deranged(n, rng)])
            similarity = aligned.similarity
            row |= {"accuracy": aligned.accuracy, "shuffled_accuracy": mixed.accuracy}
            row |= {"margin": aligned.margin, "shuffled_margin": mixed.margin}
        before, after = (by.clip.pictures(frames[[e - k for e in edges]]) for k in (1, 0))
        row |= {"diversity_clip": diversity(middle), "coherence_clip": coherence(before, after)}
    if by.lpips is not None:
        pairs = [by.lpips.neighbours(frames[[e - 1, e]])[0] for e in edges]
        row[f"diversity_lpips_{by.lpips.net}"] = float(np.mean(by.lpips.neighbours(frames[centres])))
        row[f"boundary_lpips_{by.lpips.net}"] = float(np.mean(pairs))
    return row, similarity


def _deranged(n: int, rng: np.random.Generator) -> list[int]:
    """A random order in which nothing keeps its place (n > 1)."""
    while n > 1:
        order = rng.permutation(n)
        if not (order == np.arange(n)).any():
            return [int(i) for i in order]
    return [0]


def evaluate_folder(
    samples: Path, real: Place | None, flow: str, clip: str | None, lpips: str | None, most: int
) -> dict[str, dict[str, Any]]:
    """`measure` of samples, and of real clips in as many frames of the same size. flow, clip, lpips: see
    longtake.presto.perception. Raises PrestoError."""
    subjects = samples_of(samples)
    clips = [] if real is None else real_clips(real, most)
    by = Backends((flow, optical_flow(flow)), Clip(clip) if clip else None, Distance(lpips) if lpips else None)
    measures = {"samples": measure(subjects, by, _sample_frames)}
    if real is not None:
        shape = next((s for subject in subjects if (s := _shape(subject.path))), None)
        if shape is None:
            raise PrestoError(f"{samples}: no sample can be read, so there is no size to bring real clips to")
        count, height, width = shape
        measures["real"] = measure(clips, by, lambda path: read_frames(path, count, height, width))
    return measures


def _sample_frames(path: Place) -> Frames:
    return read_video(Path(path), RATE)[0]


def _shape(path: Place) -> tuple[int, int, int] | None:
    try:
        count, height, width, _ = _sample_frames(path).shape
    except PrestoError:
        return None
    return count, height, width


def report(measures: dict[str, dict[str, Any]]) -> str:
    """A table: a row per measure, a column per set."""
    keys = [
        k for k in dict.fromkeys(k for each in measures.values() for k in each) if k not in ("failed", "similarity")
    ]
    lines = [f"{'':<24}" + "".join(f"{name:>12}" for name in measures)]
    for key in keys:
        values = [each.get(key) for each in measures.values()]
        told = ["-" if v is None else f"{v}" if isinstance(v, int) else f"{v:.3f}" for v in values]
        lines.append(f"{key:<24}" + "".join(f"{t:>12}" for t in told))
    failed = {path: why for each in measures.values() for path, why in each["failed"].items()}
    return "\n".join(lines + [f"left out: {why}" for why in failed.values()])


def export_vbench(samples: Path, output: Path) -> Path:
    """Copy samples to OUTPUT/videos as VBench names them, and write OUTPUT/prompts.json (file → prompt); that folder.

    A video is called `<prompt>-<number>.mp4`, where the prompt is what was expanded to those of the segments (so that
    VBench's own prompts are found), else these, one after the other. A name has 255 bytes at most, and VBench takes the
    prompt out of it unless it is given prompts.json. This lies outside, since VBench takes the first file's ending for
    that of all.
    """
    videos = output / "videos"
    videos.mkdir(parents=True, exist_ok=True)
    counts: dict[str, int] = {}
    prompts: dict[str, str] = {}
    for subject in samples_of(samples):
        prompt = subject.idea or " ".join(subject.captions)
        name = "".join(c if c.isprintable() and c not in "/\\" else " " for c in prompt)
        name = name.encode()[:_NAME_BYTES].decode(errors="ignore").strip() or "prompt"
        number = counts.get(name, 0)
        counts[name] = number + 1
        file = f"{name}-{number}.mp4"
        shutil.copyfile(subject.path, videos / file)
        prompts[file] = prompt
    with whole_file(output / "prompts.json") as part:
        part.write_text(json.dumps(prompts, ensure_ascii=False, indent=1), encoding="utf-8")
    return videos
