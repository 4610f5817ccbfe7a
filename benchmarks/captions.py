"""`make bench-captions`: what a clip's captions cost by each method, and how well an endpoint is kept busy.

For each method, over the same clips, on the tests' own server in a process of its own: requests, prompt tokens (counted as
tests/captioning/counting.py says: a picture has 650), how many of them a cache of prefixes has already, CPU, and the wall
clock where an answer takes 1 s; once more with a model of whose texts one in fifty cannot be used. The clips have stored frames
of 960×540 pixels; all else is the stage as it runs: frames read, camera movement measured, questions asked, rows written. Where
the wall clock is measured, and where texts are spoiled, movement is not: it is nearly all of the CPU, and would be what is
measured on a machine of few cores. Text similarity is left out: it is a filter, with a figure of its own, which the last line
adds.

    python -m benchmarks.captions [--clips 200]
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import random
import tempfile
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, ClassVar

import cv2
import numpy as np
import pyarrow as pa

from longtake.captioning import chat, progressive
from longtake.captioning.story import camera_movements
from longtake.curation.clip_table import rows_table
from longtake.curation.pipeline import run
from longtake.curation.reading.samples import store_sample
from longtake.curation.recipe import parse_recipe
from longtake.curation.running.jobs import Report
from longtake.curation.stages.stage import Options
from longtake.curation.workspace import Workspace
from longtake.filters.base import Sample
from longtake.manifests import schemas
from longtake.manifests.frames import frames_writer
from tests.captioning.server import Ask, Reply, Server, told

SIZE = (540, 960)
PER_VIDEO = 10


def serve(delay: float, spoiled: float, pipe: Connection) -> None:
    """The tests' server, which answers after `delay` seconds, until it is told to stop; then it says what it counted. spoiled:
    the share of texts that cannot be used."""
    dice = random.Random(0)

    def script(ask: Ask) -> Reply:
        answer: dict[str, str] = told(ask)
        for key in answer:
            if dice.random() < spoiled:
                answer[key] = "A text that breaks off..."
        return Reply(json.dumps(answer), delay=delay)

    with Server(script, models=("bench",)) as server:
        pipe.send(server.port)
        pipe.recv()
        pipe.send((server.cache.requests, server.cache.prompt_tokens, server.cache.cached_tokens))


class NotedMeter(chat.Meter):
    """The backend's meter, that notes each change."""

    changes: ClassVar[list[tuple[float, int]]] = []

    def _change(self, by: int) -> None:
        super()._change(by)
        if by:
            self.changes.append((time.monotonic(), self.changes[-1][1] + by))


class Quiet:
    """Nobody watches; the total is kept."""

    total = Report()
    seconds = 0.0

    def begin(self, stage: str, rows: int) -> None: ...

    def advance(self, report: Report) -> None: ...

    def end(self, stage: str, total: Report, seconds: float) -> None:
        self.total, self.seconds = total, seconds


def workspace(folder: str, clips: int) -> Workspace:
    """Scanned clips with frames: a textured picture that the camera pans over."""
    place = Workspace(folder)
    rng = np.random.default_rng(0)
    wide = cv2.resize(rng.integers(0, 255, (90, 240, 3), np.uint8), (2400, 900), interpolation=cv2.INTER_CUBIC)
    rows, videos = [], []
    for first in range(0, clips, PER_VIDEO):
        video = f"{first:032x}"
        videos.append({"video_id": video, "uri": f"/{video}.mp4", "status": "ok", "scan_id": video})
        with frames_writer(folder, video) as frames:
            for number in range(first, min(clips, first + PER_VIDEO)):
                corners = rng.integers(0, (300, 1300), (5, 2))
                cut = [wide[y : y + SIZE[0], x : x + SIZE[1]] for y, x in corners]
                partners = [wide[y : y + SIZE[0], x + 40 : x + 40 + SIZE[1]] for y, x in corners]
                times = np.arange(1.5, 15, 3)
                clip_id = f"{number:032x}"
                frames.write(store_sample(clip_id, Sample(np.stack(cut), np.stack(partners), times, times + 0.5), 92))
                rows.append(
                    {
                        "clip_id": clip_id, "video_id": video, "uri": f"/{video}.mp4", "start": 0.0, "end": 15.0,
                        "status": "ok", "has_frames": True, "scan_id": video, "width": 1280.0,
                        "width_detail": [1280.0],
                        "protocols": json.dumps({"width": recipe("", 1, False).built["width"].protocol}),
                    }
                )  # fmt: skip
    place.clips.append(rows_table(rows, schemas.CLIPS, ["width"]))
    place.videos.append(pa.Table.from_pylist(videos, schema=schemas.VIDEOS))
    place.inputs.append(pa.Table.from_pylist(videos, schema=schemas.INPUTS))
    return place


def recipe(url: str, concurrency: int, similarity: bool, method: str = "joint") -> Any:
    endpoint = url or "http://127.0.0.1/v1"
    settings = {"endpoint": endpoint, "model": "bench", "concurrency": concurrency, "method": method}
    return parse_recipe(
        {
            "name": "bench",
            "filters": {"width": {}, **({"text_similarity": {}} if similarity else {})},
            "tiers": {"pretrain": {"width": ">= 64", **({"text_similarity": "<= 1"} if similarity else {})}},
            "captioning": {"captioner": "openai", "settings": settings},
        },
        "benchmarks.captions",
    )


@dataclass
class Done:
    """One run of the stage. changes: the requests in flight, (time, how many), as they changed. requests, prompt_tokens, cached:
    as the server counted them."""

    clips: int
    watcher: Quiet
    changes: list[tuple[float, int]]
    requests: int
    prompt_tokens: int
    cached: int

    def __str__(self) -> str:
        cpu = self.watcher.total.cpu_seconds / self.clips
        return (
            f"{self.requests / self.clips:.2f} requests, {self.prompt_tokens / self.clips:.0f} prompt tokens "
            f"({self.cached / self.clips:.0f} of them cached, {(self.prompt_tokens - self.cached) / self.clips:.0f} to compute), "
            f"{1000 * cpu:.0f} ms of CPU a clip; {self.watcher.seconds:.1f} s in all"
        )


def caption(
    clips: int,
    delay: float,
    concurrency: int,
    method: str,
    spoiled: float = 0.0,
    similarity: bool = False,
    moves: bool = True,
) -> Done:
    """One run of the stage. moves: measure the camera's movement."""
    here, there = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(delay, spoiled, there), daemon=True)
    server.start()
    watcher = Quiet()
    with tempfile.TemporaryDirectory() as folder:
        place = workspace(folder, clips)
        chosen = recipe(f"http://127.0.0.1:{here.recv()}/v1", concurrency, similarity, method)
        if similarity:
            # The time to load the model is not part of the measurement.
            chosen.built["text_similarity"].measure([tuple("abcde")])
        NotedMeter.changes = [(time.monotonic(), 0)]
        chat.Meter = NotedMeter  # type: ignore[misc]
        progressive.camera_movements = camera_movements if moves else lambda clip: ("static",) * 5
        run(place, chosen, [], Options(("caption",), engine="inline"), watcher)
        done = place.captions.read(["status"])["status"].to_pylist()
        assert spoiled or done == ["ok"] * clips, f"{done.count('ok')} of {clips} are ok"
    here.send("stop")
    counted = here.recv()
    server.join()
    return Done(clips, watcher, NotedMeter.changes, *counted)


def share(changes: list[tuple[float, int]], concurrency: int, until: int) -> tuple[float, float]:
    """From the first request until the `until`th: the share of time with so many requests in flight, and their mean.

    `changes` are (time, in flight). The end is left out, where fewer requests are left than may fly.
    """
    full = total = area = 0.0
    begun = 0
    for (t, flying), (later, after) in itertools.pairwise(changes):
        begun += after > flying
        if begun >= until:
            break
        full += (later - t) * (flying >= concurrency)
        area += (later - t) * flying
        total += later - t
    return full / total, area / total / concurrency


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--concurrency", type=int, default=32)
    arguments = parser.parse_args()
    clips, concurrency = arguments.clips, arguments.concurrency
    print(f"{os.cpu_count()} cores (load {os.getloadavg()[0]:.0f}), {clips} clips, frames {SIZE[1]}×{SIZE[0]}")
    for method in ("joint", "stepwise"):
        print(f"{method}:")
        print(f"  a server that answers at once: {caption(clips, 0.0, concurrency, method)}", flush=True)
        spoiled = caption(clips, 0.0, concurrency, method, spoiled=0.02, moves=False)
        print(f"  the same, one text in fifty cannot be used: {spoiled}", flush=True)
        done = caption(clips, 1.0, concurrency, method, moves=False)
        print(f"  a server that answers in 1 s, concurrency {concurrency}: {done}")
        # Once so few requests are left that the last clips cannot fill all places, it is no longer ours to keep it busy.
        per_clip = done.requests // clips
        full, mean = share(done.changes, concurrency, until=per_clip * max(1, clips - 2 * concurrency))
        print(
            f"    in flight: {mean:.1%} of {concurrency} on average, all of them {full:.1%} of the time; busy over the whole "
            f"run, start and end included: {done.watcher.total.busy_share or 0:.1%}",
            flush=True,
        )
    print(f"joint with the filter text_similarity: {caption(clips, 0.0, concurrency, 'joint', similarity=True)}")


if __name__ == "__main__":
    main()
