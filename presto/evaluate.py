"""What can be measured of samples without other people's old environments, honestly named, beside real clips.

- dynamic degree: VBench's rule, on another flow (its backend is part of the name);
- alignment: does segment i look more like caption i than like the others (the 5×5 matrix of CLIP similarities);
- diversity between segments and coherence at their boundaries (CLIP, LPIPS).

Each is told for samples, for real clips where a dataset is given, and for both with captions shuffled among the segments:
a number means little without the two it lies between. For VBench itself, `export_vbench` writes its naming.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from manifests.shards import caption_frames
from presto.dataset import read_dataset
from presto.errors import PrestoError
from presto.video import Frames, read_video

Array = npt.NDArray[np.floating]
FLOW = "dis"  # OpenCV's DIS, medium preset; VBench itself uses RAFT
RATE = 8.0  # frames per second that VBench looks at


# ── dynamic degree ───────────────────────────────────────────────────────────────────────────────────────────────────


def dis_flow(first: Frames, second: Frames) -> Array:
    """Flow in pixels, float32 (H, W, 2), of two RGB frames."""
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (first, second)]
    return np.asarray(dis.calc(grey[0], grey[1], None))  # type: ignore[call-overload]


def is_dynamic(frames: Frames, flow: Callable[[Frames, Frames], Array] = dis_flow) -> bool:
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
    found: Array = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    return found


# ── models ───────────────────────────────────────────────────────────────────────────────────────────────────────────


class Clip:
    """CLIP of a local folder, through transformers: embeddings of pictures and texts, float32 (N, D)."""

    def __init__(self, folder: Path) -> None:
        from transformers import CLIPModel, CLIPProcessor

        try:
            loaded: Any = CLIPModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
            self._model = loaded.eval()
            self._processor: Any = CLIPProcessor.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError) as error:
            raise PrestoError(
                f"{folder} is no CLIP model folder of transformers (with safetensors): {error}"
            ) from error

    def pictures(self, frames: Frames) -> Array:
        import torch

        with torch.no_grad():
            given = self._processor(images=list(frames), return_tensors="pt")
            return _pooled(self._model.get_image_features(**given))

    def texts(self, captions: Sequence[str]) -> Array:
        import torch

        with torch.no_grad():
            given = self._processor(text=list(captions), return_tensors="pt", padding=True, truncation=True)
            return _pooled(self._model.get_text_features(**given))


def _pooled(found: Any) -> Array:
    features = found if hasattr(found, "numpy") else found.pooler_output
    return np.asarray(features.float().numpy())


class Lpips:
    """LPIPS (v0.1, AlexNet) with a trunk from a local file; its heads come with the package."""

    def __init__(self, trunk: Path) -> None:
        import lpips
        import torch

        try:
            weights = torch.load(trunk, weights_only=True, map_location="cpu")
            self._net = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False).eval()
            found = {k.removeprefix("features."): v for k, v in weights.items() if k.startswith("features.")}
            names = list(self._net.net.state_dict())
            self._net.net.load_state_dict(dict(zip(names, found.values(), strict=True)))
        except (OSError, ValueError, RuntimeError) as error:
            raise PrestoError(f"{trunk} does not hold AlexNet's weights: {error}") from error

    def distances(self, first: Frames, second: Frames) -> float:
        """Mean over pairs of frames."""
        import torch

        a, b = (torch.from_numpy(x).permute(0, 3, 1, 2).float() / 127.5 - 1 for x in (first, second))
        with torch.no_grad():
            return float(self._net(a, b).mean())


# ── a folder ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Subject:
    """A video and the captions of its segments."""

    path: Path
    captions: tuple[str, ...]


def samples_of(folder: Path) -> list[Subject]:
    """The videos of a folder of `sample`. Raises PrestoError if there is none."""
    found = []
    for about in sorted(folder.glob("*.json")):
        video = about.with_suffix(".mp4")
        if video.is_file():
            try:
                prompts = json.loads(about.read_text(encoding="utf-8"))["prompts"]
            except (ValueError, KeyError, TypeError) as error:
                raise PrestoError(f"{about} holds no prompts: {error}") from error
            found.append(Subject(video, tuple(map(str, prompts))))
    if not found:
        raise PrestoError(f"{folder} holds no samples: videos with a .json of their prompts beside them")
    return found


def real_clips(dataset: Path, most: int) -> list[Subject]:
    """At most `most` clips of an exported dataset, in order of their ids."""
    table = read_dataset(dataset)
    keys = sorted((field.name for field in table.schema.field("cap").type), key=int)
    rows = table.slice(0, most).to_pylist()
    return [
        Subject(dataset / row["path"], tuple(row["cap"][k] or "" for k in keys))
        for row in rows
        if row["cap"] is not None
    ]


def measure(subjects: Sequence[Subject], clip: Clip | None, lpips: Lpips | None, seed: int = 0) -> dict[str, Any]:
    """Means over videos. With `clip` also alignment, with the captions of each video in order and shuffled (no caption in
    its place); a video that cannot be read is counted and left out."""
    moving: list[bool] = []
    rows: list[dict[str, float]] = []
    matrices: list[Array] = []
    failed: dict[str, str] = {}
    rng = np.random.default_rng(seed)
    for subject in subjects:
        try:
            frames, _ = read_video(subject.path, RATE)
            if len(frames) < 2 * len(subject.captions):
                raise PrestoError(f"{subject.path} has {len(frames)} frames at {RATE:g} per second: too few to segment")
        except PrestoError as error:
            failed[str(subject.path)] = str(error)
            continue
        moving.append(is_dynamic(frames))
        n = len(subject.captions)
        centres = list(caption_frames(len(frames), n))
        edges = [i * len(frames) // n for i in range(1, n)]
        row: dict[str, float] = {}
        if clip is not None:
            middle, texts = clip.pictures(frames[centres]), clip.texts(subject.captions)
            found, mixed = alignment(middle, texts), alignment(middle, texts[_deranged(n, rng)])
            matrices.append(found.similarity)
            row |= {"accuracy": found.accuracy, "margin": found.margin, "diversity_clip": diversity(middle)}
            row |= {"shuffled_accuracy": mixed.accuracy, "shuffled_margin": mixed.margin}
            if edges:
                before, after = (clip.pictures(frames[[e - k for e in edges]]) for k in (1, 0))
                row["coherence_clip"] = coherence(before, after)
        if lpips is not None and edges:
            row["diversity_lpips"] = lpips.distances(frames[centres[:-1]], frames[centres[1:]])
            row["boundary_lpips"] = lpips.distances(frames[[e - 1 for e in edges]], frames[edges])
        rows.append(row)
    means = {key: float(np.mean([row[key] for row in rows])) for key in (rows[0] if rows else {})}
    return {
        "videos": len(moving),
        "failed": failed,
        f"dynamic_degree_{FLOW}": float(np.mean(moving)) if moving else None,
        **means,
        "similarity": np.mean(matrices, axis=0).round(4).tolist() if matrices else None,
    }


def _deranged(n: int, rng: np.random.Generator) -> list[int]:
    """A random order in which nothing keeps its place (n > 1)."""
    while n > 1:
        order = rng.permutation(n)
        if not (order == np.arange(n)).any():
            return [int(i) for i in order]
    return [0]


def evaluate_folder(
    samples: Path, real: Path | None, clip: Path | None, lpips: Path | None, most: int
) -> dict[str, dict[str, Any]]:
    """`measure` of samples, and of real clips. Raises PrestoError."""
    subjects = {"samples": samples_of(samples)}
    if real is not None:
        subjects["real"] = real_clips(real, most)
    encoder, distance = Clip(clip) if clip else None, Lpips(lpips) if lpips else None
    return {name: measure(each, encoder, distance) for name, each in subjects.items()}


def report(found: dict[str, dict[str, Any]]) -> str:
    """A table: a row per measure, a column per set."""
    keys = [k for k in dict.fromkeys(k for each in found.values() for k in each) if k not in ("failed", "similarity")]
    lines = [f"{'':<24}" + "".join(f"{name:>12}" for name in found)]
    for key in keys:
        values = [each.get(key) for each in found.values()]
        told = ["-" if v is None else f"{v}" if isinstance(v, int) else f"{v:.3f}" for v in values]
        lines.append(f"{key:<24}" + "".join(f"{t:>12}" for t in told))
    failed = {path: why for each in found.values() for path, why in each["failed"].items()}
    return "\n".join(lines + [f"left out: {why}" for why in failed.values()])


def export_vbench(samples: Path, output: Path) -> list[Path]:
    """Copy samples as `<prompts>-<index>.mp4`, the naming of VBench's custom input, at most 180 characters of prompt."""
    output.mkdir(parents=True, exist_ok=True)
    counts: dict[str, int] = {}
    made = []
    for subject in samples_of(samples):
        name = re.sub(r"[^\w ,.'-]+", " ", " ".join(subject.captions)).strip(" .")[:180].strip() or "prompt"
        number = counts.get(name, 0)
        counts[name] = number + 1
        made.append(output / f"{name}-{number}.mp4")
        shutil.copyfile(subject.path, made[-1])
    return made
