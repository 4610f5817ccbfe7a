"""How fast the model filters are: batched across clips, against the bare model on tensors that are ready.

    python -m benchmarks.models [--seconds S]

Weights are RANDOM: the time does not depend on them, scores would mean nothing. On a GPU the paper's networks run
(CLIP ViT-L/14, LPIPS AlexNet, UniMatch), on a CPU smaller ones (ViT-B/32, AlexNet, RAFT small) on smaller frames, with
one thread, as Ray's workers have. Both ways are measured in turn in one process; a number is the best of its rounds.
Busy: the share of the time in which the device has a batch in hand. The last lines are the worker of the stage itself,
from stored frames to appended rows: with these models, and with text detection, which is measured ahead of them on the
CPU. On a busy machine ratios mean little: the load is printed.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from longtake.curation.clip_table import rows_table
from longtake.curation.reading.samples import load_sample, store_sample
from longtake.curation.recipe import parse_recipe
from longtake.curation.running.jobs import Report
from longtake.curation.stages.score import AT_MOST, ScoreWorker
from longtake.curation.workspace import Workspace
from longtake.filters import weights
from longtake.filters.aesthetic import Aesthetic, AestheticV1, frame_to_square, image_tower, to_input
from longtake.filters.base import Sample, Score
from longtake.filters.batches import ModelFilter, inference
from longtake.filters.flow_learned import LearnedFlow
from longtake.filters.flow_raft import FlowRaft
from longtake.filters.flow_raft import build as build_raft
from longtake.filters.flow_unimatch import FlowUnimatch
from longtake.filters.flow_unimatch import build as build_unimatch
from longtake.filters.lpips import Lpips, neighbour_distances
from longtake.manifests import schemas
from longtake.manifests.frames import frames_writer

ROUNDS = 3
GOAL = 0.9


@dataclass
class Case:
    """A filter, and the bare model over the same clips."""

    name: str
    filter_: ModelFilter
    bare: Callable[[], None]
    samples: list[Sample]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=4.0, help="of one measurement, about")
    seconds = parser.parse_args().seconds
    import torch

    cuda = torch.cuda.is_available()
    if not cuda:
        torch.set_num_threads(1)
    device = torch.cuda.get_device_name() if cuda else "CPU, one thread"
    load = os.getloadavg()[0]
    print(f"{device}; {os.cpu_count()} cores, {platform.machine()}; torch {torch.__version__}; load {load:.1f}")
    print("weights are random; clips have 5 keyframes and 5 partners\n")
    print(f"{'':34}{'bare':>10}{'filter':>10}{'ratio':>8}{'busy':>7}")
    with tempfile.TemporaryDirectory() as folder:
        os.environ[weights.FOLDER_VARIABLE] = folder
        size = (960, 540) if cuda else (480, 270)
        _report(_aesthetic(cuda, size, seconds))
        _report(_lpips(cuda, size, seconds))
        _report(_flow(cuda, size if cuda else (320, 180), seconds))
        _decoding(size)
        models: dict[str, dict[str, Any]] = {
            "aesthetic": {} if cuda else {"backend": "laion-v1", "clip": "ViT-B-32"},
            "lpips": {},
            "flow": {"backend": "unimatch"} if cuda else {"backend": "raft", "variant": "small"},
        }
        _stage("score stage", Path(folder) / "models", models, size, 64 if cuda else 12)
        _stage("score stage, with text detection", Path(folder) / "all", {"artifacts": {}, **models}, size, 16)


def _report(case: Case) -> None:
    clips = len(case.samples)
    case.bare()
    assert all(isinstance(score, Score) for score in case.filter_.measure(case.samples[:1]))
    bare, filtered, share = [], [], []
    for _ in range(ROUNDS):
        bare.append(_seconds(case.bare))
        before = case.filter_.busy_seconds
        filtered.append(_seconds(lambda: case.filter_.measure(case.samples)))
        share.append((case.filter_.busy_seconds - before) / filtered[-1])
    a, b = min(bare), min(filtered)
    mark = "" if a / b >= GOAL else f"  below {GOAL:.0%}"
    print(
        f"{case.name:34}{clips / a:8.2f}/s{clips / b:8.2f}/s{a / b:8.1%}{share[filtered.index(b)]:7.0%}{mark}",
        flush=True,
    )


def _seconds(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def _sample(seed: int, size: tuple[int, int]) -> Sample:
    """Smooth random pictures: as dear to resize as real ones."""
    import cv2

    rng = np.random.default_rng(seed)
    frames = [cv2.resize(rng.integers(0, 256, (9, 16, 3), np.uint8), size, interpolation=3) for _ in range(10)]
    times = np.arange(5, dtype=np.float64) * 3
    return Sample(np.stack(frames[::2]), np.stack(frames[1::2]), times, np.asarray(times + 0.5))


def _samples(size: tuple[int, int], count: int) -> list[Sample]:
    return [_sample(seed, size) for seed in range(count)]


def _put(name: str, state: dict[str, Any]) -> None:
    """Random weights in the place of the published ones, whose size and hash are set aside."""
    import torch

    weights.WEIGHTS[name] = replace(weights.WEIGHTS[name], size=None, sha256=None)
    path = weights.models_folder() / weights.WEIGHTS[name].filename
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, path)


def _random(module: Any) -> Any:
    """A module on the meta device, with values."""
    import torch

    module = module.to_empty(device="cpu")
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    for buffer in module.buffers():
        buffer.zero_()
    return module


def _until(seconds: float, one_clip: Callable[[], None], least: int) -> int:
    """How many clips fill the time."""
    one_clip()
    return max(least, min(512, int(seconds / _seconds(one_clip))))


def _aesthetic(cuda: bool, size: tuple[int, int], seconds: float) -> Case:
    import torch

    clip, width = ("ViT-L-14", 768) if cuda else ("ViT-B-32", 512)
    _put(f"clip-{clip.lower()}", {f"visual.{k}": v for k, v in _random(image_tower(clip)).state_dict().items()})  # type: ignore[arg-type]
    head = torch.nn.Linear(width, 1).state_dict()
    _put("aesthetic-v2" if cuda else "aesthetic-v1-vit-b-32", head)
    filter_: Aesthetic = Aesthetic() if cuda else AestheticV1(clip="ViT-B-32")
    model, device = filter_._model

    def bare_of(samples: Sequence[Sample]) -> Callable[[], None]:
        squares = np.stack([frame_to_square(frame, "center") for item in samples for frame in item.keyframes])
        ready = to_input(torch.from_numpy(squares)).to(device)

        def bare() -> None:
            with inference(device, "float32"):
                for batch in ready.split(filter_._batches.size):
                    model(batch).cpu()

        return bare

    count = _until(seconds, bare_of(_samples(size, 1)), 26 if cuda else 12)
    samples = _samples(size, count)
    return Case(f"aesthetic, CLIP {clip}", filter_, bare_of(samples), samples)


def _lpips(cuda: bool, size: tuple[int, int], seconds: float) -> Case:
    import torch
    import torchvision

    trunk = torchvision.models.alexnet(weights=None).features.state_dict()
    _put("alexnet", {f"features.{key}": value for key, value in trunk.items()})
    filter_ = Lpips()
    model, device = filter_._model

    def bare_of(samples: Sequence[Sample]) -> Callable[[], None]:
        frames = torch.from_numpy(np.concatenate([item.keyframes for item in samples])).permute(0, 3, 1, 2)
        ready = (frames.float() / 127.5 - 1).to(device)

        def bare() -> None:
            with inference(device, "float32"):
                for batch in ready.split(5 * filter_._batches.size):
                    neighbour_distances(model, batch, 5).cpu()

        return bare

    samples = _samples(size, _until(seconds, bare_of(_samples(size, 1)), 8 if cuda else 4))
    return Case("lpips, AlexNet", filter_, bare_of(samples), samples)


def _flow(cuda: bool, size: tuple[int, int], seconds: float) -> Case:
    import torch

    filter_: LearnedFlow
    if cuda:
        _put("unimatch", build_unimatch(2, 6).unimatch.state_dict())
        filter_, name = FlowUnimatch(), "UniMatch"
    else:
        _put("raft-small", build_raft("small").raft.state_dict())
        filter_, name = FlowRaft(variant="small"), "RAFT small"
    network, device = filter_._model
    padded = tuple(-(-side // filter_.stride) * filter_.stride for side in (size[1], size[0]))

    def bare_of(samples: Sequence[Sample]) -> Callable[[], None]:
        pairs = np.stack([pair for item in samples for pair in zip(item.keyframes, item.partners, strict=True)])
        images = torch.from_numpy(pairs).permute(1, 0, 4, 2, 3).float()
        down, right = padded[0] - size[1], padded[1] - size[0]
        first, second = (
            torch.nn.functional.pad(image, (0, right, 0, down), mode="replicate").to(device) for image in images
        )

        def bare() -> None:
            with inference(device, "float32"):
                for start in range(0, len(first), filter_._batches.size):
                    batch = slice(start, start + filter_._batches.size)
                    network(first[batch], second[batch]).cpu()

        return bare

    samples = _samples(size, _until(seconds, bare_of(_samples(size, 1)), 2 if cuda else 1))
    return Case(f"flow, {name}", filter_, bare_of(samples), samples)


def _decoding(size: tuple[int, int]) -> None:
    stored = [store_sample(str(seed), _sample(seed, size), 92) for seed in range(16)]
    spent = min(_seconds(lambda: [load_sample(one) for one in stored]) for _ in range(ROUNDS))
    print(f"{'decoding stored frames, one thread':34}{'':10}{len(stored) / spent:8.2f}/s")


def _stage(name: str, folder: Path, filters: dict[str, dict[str, Any]], size: tuple[int, int], clips: int) -> None:
    """The worker over clips of one video each, as `longtake score` hands them to it."""
    workspace = Workspace(str(folder))
    rows = []
    for number in range(clips):
        with frames_writer(workspace.path, f"{number:032x}") as writer:
            writer.write(store_sample(f"{number:032x}", _sample(number, size), 92))
        row = {"clip_id": f"{number:032x}", "video_id": f"{number:032x}", "uri": f"{number}.mp4", "status": "ok"}
        rows.append(row | {"start": 0.0, "end": 15.0, "has_frames": True, "protocols": "{}"})
    tier = dict.fromkeys(filters, ">= -1e9")
    recipe = parse_recipe({"name": "bench", "filters": filters, "tiers": {"all": tier}}, "the benchmark")
    worker = ScoreWorker(workspace.path, recipe.model_dump(mode="json"), True)
    table = rows_table(rows, schemas.CLIPS, [])
    worker(table.slice(0, 1))  # The first call loads the models.
    total = Report()
    for start in range(0, clips, AT_MOST):
        total += worker(table.slice(start, AT_MOST))
    assert total.errors == 0
    print(f"{name:34}{'':10}{clips / total.seconds:8.2f}/s{'':8}{total.busy_share or 0:7.0%}", flush=True)


if __name__ == "__main__":
    main()
