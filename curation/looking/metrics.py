"""How a run goes as Prometheus reads it: the text format 0.0.4, in a file for node exporter's textfile collector, or served."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from longtake.curation.looking.status import Seen, left, limit, rate, seconds_left
from longtake.curation.running.status import RUNNING, RunStatus, StageStatus
from longtake.manifests.folder import whole_file

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# Seconds. More frequent requests get the same answer again: a look at a bucket is some ten requests.
_FRESH_SECONDS = 2.0

# Name of a stage's metric → its type, its meaning and its value. A value of None is not known now and is left out.
_STAGE: dict[str, tuple[str, str, Callable[[StageStatus], float | None]]] = {
    "rows_done_total": ("counter", "Rows of this stage that this run has done.", lambda s: s.done),
    "rows_left": ("gauge", "Rows that are known to be left; more may come from the stages before.", left),
    "rows_per_second": ("gauge", "Rows per second within the last five minutes.", rate),
    "left_seconds": ("gauge", "Seconds until what is known to be left is done.", seconds_left),
    "running": ("gauge", "1 while the stage is at work, else 0.", lambda s: s.state == RUNNING),
    "faults_total": (
        "counter",
        "Rows that met a fault of the world, such as a source that is away.",
        lambda s: s.faults,
    ),
    "repeated_total": ("counter", "Rows that were begun more than once: a worker was lost.", lambda s: s.repeated),
    "workers": ("gauge", "Workers that have started.", lambda s: s.workers),
    "batches_in_hand": ("gauge", "Batches that workers have in hand.", lambda s: s.batches),
    "oldest_batch_seconds": ("gauge", "When the oldest of these batches was begun.", lambda s: s.oldest_seconds),
    "late_batches": ("gauge", "Batches in hand for much longer than others were, at most ten.", lambda s: len(s.late)),
    "worker_seconds_total": ("counter", "Seconds that workers were at batches.", lambda s: s.worker_seconds),
    "cpu_seconds_total": ("counter", "Seconds of CPU that workers and decoders took.", lambda s: s.cpu_seconds),
    "busy_seconds_total": ("counter", "Seconds of workers in which a model had work.", lambda s: s.busy_seconds),
    "gpu_held_seconds_total": ("counter", "Seconds that workers held a GPU.", lambda s: s.gpu_seconds),
    "gpu_busy_seconds_total": ("counter", "Of these, seconds that a model worked.", lambda s: s.gpu_busy_seconds),
    "video_seconds_total": ("counter", "Seconds of video that were worked on.", lambda s: s.video_seconds),
    "requests_total": ("counter", "Requests that a language model answered.", lambda s: s.requests),
    "prompt_tokens_total": ("counter", "Tokens that it read.", lambda s: s.prompt_tokens),
    "completion_tokens_total": ("counter", "Tokens that it wrote.", lambda s: s.completion_tokens),
}
_RUN: dict[str, tuple[str, str, Callable[[RunStatus], float]]] = {
    "up": ("gauge", "1 while the run lives, 0 once it has ended, failed or died.", lambda r: r.state == RUNNING),
    "started_timestamp_seconds": ("gauge", "When the run was started.", lambda r: r.started),
    "beat_timestamp_seconds": ("gauge", "When the run last said that it lives.", lambda r: r.beat),
}


def exposition(seen: Seen) -> str:
    """The text that Prometheus takes."""
    families: dict[str, tuple[str, str, list[str]]] = {}

    def add(name: str, kind: str, about: str, labels: Mapping[str, str], value: float) -> None:
        told = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
        families.setdefault(name, (kind, about, []))[2].append(f"{name}{{{told}}} {float(value)!r}")

    for manifest, rows in seen.stored.items():
        about = "Rows that the workspace holds; one that was replaced counts until the next compaction."
        add("longtake_stored_rows", "gauge", about, {"workspace": seen.workspace, "manifest": manifest}, rows)
    for run in seen.runs:
        of_run = {"workspace": seen.workspace, "part": run.part or "all"}
        facts = {"host": run.host, "recipe": run.recipe, "version": run.longtake, "state": run.state, "run": run.run}
        add("longtake_run_info", "gauge", "What run it is; always 1.", {**of_run, **facts}, 1)
        for name, (kind, about, value) in _RUN.items():
            add(f"longtake_run_{name}", kind, about, of_run, value(run))
        if limited := limit(run):
            about = "What limits the run now: 1 for the stage and what holds it up."
            add("longtake_run_limited", "gauge", about, {**of_run, "stage": limited.stage or "", "by": limited.by}, 1)
        for stage in run.stages:
            of_stage = {**of_run, "stage": stage.stage}
            for name, (kind, about, of) in _STAGE.items():
                if (amount := of(stage)) is not None:
                    add(f"longtake_stage_{name}", kind, about, of_stage, amount)
            for kind, host, rows in stage.error_kinds:
                about = "Rows that ended in an error, by its kind and the machine."
                add("longtake_stage_errors_total", "counter", about, {**of_stage, "kind": kind, "host": host}, rows)
    lines = []
    for name, (kind, about, samples) in families.items():
        lines += [f"# HELP {name} {about}", f"# TYPE {name} {kind}", *samples]
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def write(path: Path, seen: Seen) -> None:
    """The text into a file, which nobody sees half written. Raises OSError."""
    with whole_file(path) as part:
        part.write_text(exposition(seen), encoding="utf-8")


def server(host: str, port: int, look: Callable[[], Seen]) -> ThreadingHTTPServer:
    """A server of `/metrics`, bound already; `serve_forever` serves. look: how the workspace is seen. Raises OSError."""
    last: list[tuple[float, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.partition("?")[0] != "/metrics":
                self.send_error(404, "there is /metrics only")
                return
            try:
                if not last or time.monotonic() - last[-1][0] > _FRESH_SECONDS:
                    last[:] = [(time.monotonic(), exposition(look()))]
                body = last[-1][1].encode()
            except Exception as error:
                self.send_error(503, f"the workspace cannot be read: {type(error).__name__}")
                return
            self.send_response(200)
            self.send_header("Content-Type", CONTENT_TYPE)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: a request every few seconds is no news."""

    return ThreadingHTTPServer((host, port), Handler)
