"""`make bench-captions`: what captioning costs besides the model, and how well an endpoint is kept busy.

Two servers on loopback, in processes of their own, that answer at once, and after 1 s. The clips have stored frames of
960×540 pixels; all else is the stage as it runs: frames read, camera movement measured, questions asked, rows written.
Text similarity is left out of the first two: it is a filter, with a figure of its own, which the third adds.

    python -m benchmarks.captions [--clips 300]
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import multiprocessing
import os
import random
import tempfile
import time
from multiprocessing.connection import Connection
from typing import Any, ClassVar

import cv2
import numpy as np
import pyarrow as pa

from longtake.captioning import chat
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

SIZE = (540, 960)
PER_VIDEO = 10
WORDS = ["harbour", "lantern", "market", "river", "tower", "garden", "bridge", "window", "orchard", "tram", "valley"]


def serve(delay: float, pipe: Connection) -> None:
    """An endpoint that answers after `delay` seconds, until it is told to stop."""
    from aiohttp import web

    served = itertools.count()

    async def models(_: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "bench"}]})

    async def complete(request: web.Request) -> web.Response:
        await request.read()
        if delay:
            await asyncio.sleep(delay)
        text = f"View {next(served)} has " + " ".join(random.choices(WORDS, k=40)) + "."
        message = {"role": "assistant", "content": json.dumps({"caption": text})}
        usage = {"prompt_tokens": 1500, "completion_tokens": 60}
        return web.json_response({"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage})

    async def main() -> None:
        app = web.Application(client_max_size=2**26)
        app.router.add_get("/v1/models", models)
        app.router.add_post("/v1/chat/completions", complete)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        pipe.send(runner.addresses[0][1])
        while not pipe.poll():
            await asyncio.sleep(0.1)

    asyncio.run(main())


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


def recipe(url: str, concurrency: int, similarity: bool) -> Any:
    settings = {"endpoint": url or "http://127.0.0.1/v1", "model": "bench", "concurrency": concurrency}
    return parse_recipe(
        {
            "name": "bench",
            "filters": {"width": {}, **({"text_similarity": {}} if similarity else {})},
            "tiers": {"pretrain": {"width": ">= 64", **({"text_similarity": "<= 1"} if similarity else {})}},
            "captioning": {"captioner": "openai", "settings": settings},
        },
        "benchmarks.captions",
    )


def caption(
    clips: int, delay: float, concurrency: int, similarity: bool = False
) -> tuple[Quiet, list[tuple[float, int]]]:
    """One run of the stage; what it came to, and the requests in flight, (time, how many), as they changed."""
    here, there = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(delay, there), daemon=True)
    server.start()
    watcher = Quiet()
    with tempfile.TemporaryDirectory() as folder:
        place = workspace(folder, clips)
        chosen = recipe(f"http://127.0.0.1:{here.recv()}/v1", concurrency, similarity)
        if similarity:
            chosen.built["text_similarity"].measure([tuple("abcde")])  # loading is not what is measured
        NotedMeter.changes = [(time.monotonic(), 0)]
        chat.Meter = NotedMeter  # type: ignore[misc]
        run(place, chosen, [], Options(("caption",), engine="inline"), watcher)
        done = place.captions.read(["status"])["status"].to_pylist()
        assert done == ["ok"] * clips, f"{done.count('ok')} of {clips} are ok"
    here.send("stop")
    server.join()
    return watcher, NotedMeter.changes


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
    parser.add_argument("--clips", type=int, default=300)
    parser.add_argument("--concurrency", type=int, default=32)
    arguments = parser.parse_args()
    clips, concurrency = arguments.clips, arguments.concurrency
    print(f"{os.cpu_count()} cores, {clips} clips of 11 questions; frames {SIZE[1]}×{SIZE[0]}")
    for title, similarity in (("a server that answers at once", False), ("the same, with text similarity", True)):
        watcher, _ = caption(clips, 0.0, concurrency, similarity)
        cpu = watcher.total.cpu_seconds / clips
        print(
            f"{title}: {clips / watcher.seconds * 60:.0f} clips/min, {1000 * cpu:.0f} ms of CPU per clip: "
            f"{60 / cpu:.0f} clips/min per core"
        )
    watcher, changes = caption(clips, 1.0, concurrency)
    # once so few requests are left that the last clips cannot fill all places, it is no longer ours to keep it busy
    full, mean = share(changes, concurrency, until=11 * (clips - 2 * concurrency))
    print(
        f"a server that answers in 1 s, concurrency {concurrency}: {watcher.total.requests} answers in "
        f"{watcher.seconds:.1f} s; in flight: {mean:.1%} of {concurrency} on average, all of them {full:.1%} of the time; "
        f"busy over the whole run, start and end included: {watcher.total.busy_share or 0:.1%}"
    )


if __name__ == "__main__":
    main()
