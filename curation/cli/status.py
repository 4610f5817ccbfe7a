"""`longtake status`: how a run goes, from anywhere."""

from __future__ import annotations

import json
import sys
import threading
import time
from contextlib import ExitStack, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from longtake.curation.cli.app import ROW_ERRORS, app, command, console, errors, examples, outside
from longtake.curation.cli.options import RequiredWorkspace
from longtake.curation.cli.tables import print_table
from longtake.curation.errors import SetupError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from longtake.curation.looking.status import Seen
    from longtake.curation.running.status import RunStatus, StageStatus

_CLEAR = "\x1b[H\x1b[2J"


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or int(port) > 65535:
        raise typer.BadParameter(f"{text!r} is no address: write PORT, or HOST:PORT")
    return host.strip("[]") or "127.0.0.1", int(port)


@app.command(
    epilog=examples(
        "longtake status workspace",
        "longtake status s3://me/workspace --watch",
        "longtake status workspace --json | jq '.runs[].limited_by'",
        "longtake status s3://me/workspace --watch --json >> status.jsonl",
        "longtake status s3://me/workspace --metrics-port 9464",
        "longtake status workspace --watch --metrics-file textfile/longtake.prom",
    )
)
@command
def status(
    workspace: RequiredWorkspace,
    watch: Annotated[bool, typer.Option("--watch", help="Look again and again, until Ctrl-C.")] = False,
    every: Annotated[float, typer.Option(min=0.1, metavar="SECONDS", help="How often it looks with --watch.")] = 5.0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object; with --watch, one line of JSON for each look.")
    ] = False,
    metrics_port: Annotated[
        str | None,
        typer.Option(
            metavar="[HOST:]PORT",
            help="Serve Prometheus its text at /metrics until Ctrl-C, on 127.0.0.1 unless a host is given.",
            show_default=False,
        ),
    ] = None,
    metrics_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write the same text into a file, whole, at each look: for node exporter's textfile collector (NAME.prom).",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Say how a run goes, from any machine that can read the workspace. Each stage with what is done and left, its rate, the
    time left, errors by kind and machine, batches that are late, GPUs held and busy, and what limits the run now. A run
    that is over is shown until the next one begins. Exits with 1 if a run died or failed."""
    from longtake.curation.cli.startup import leave_pandas_out

    leave_pandas_out()
    from longtake.curation.looking import metrics
    from longtake.curation.looking.status import DIED, look
    from longtake.curation.running.status import FAILED
    from longtake.curation.workspace import Workspace

    target = Workspace(workspace)
    seen = look(target)
    with ExitStack() as open_:
        if metrics_port is not None:
            host, port = _address(metrics_port)
            try:
                server = open_.enter_context(metrics.server(host, port, lambda: look(target)))
            except OSError as error:
                raise SetupError(f"cannot listen on {host}:{port}: {error.strerror}") from error
            open_.callback(server.shutdown)
            threading.Thread(target=server.serve_forever, daemon=True).start()
            errors.print(f"metrics: http://{host}:{server.server_port}/metrics  (Ctrl-C ends it)", soft_wrap=True)
        with suppress(KeyboardInterrupt):  # Ctrl-C is the way to end it.
            while True:
                if metrics_file is not None:
                    metrics.write(metrics_file, seen)
                if as_json:
                    json.dump(seen.as_json(), sys.stdout, indent=None if watch else 2)
                    sys.stdout.write("\n")
                    sys.stdout.flush()
                elif watch or (metrics_port is None and metrics_file is None):
                    if watch and console.is_terminal:
                        console.file.write(_CLEAR)
                    show(seen)
                if not watch and metrics_port is None:
                    break
                time.sleep(every)
                seen = look(target)
    if not watch and any(run.state in (DIED, FAILED) for run in seen.runs):
        raise typer.Exit(ROW_ERRORS)


def show(seen: Seen) -> None:
    """What was seen, on the terminal."""
    from longtake.curation.looking.status import limit, together

    if not seen.runs:
        console.print(
            "No run has left a note in this workspace: none was started since this version is installed, or `longtake forget` "
            "erased the note.",
            soft_wrap=True,
        )
    for run in seen.runs:
        _show_run(run, seen.now)
        if len(seen.runs) == 1:
            _show_stages("stages", run.stages)
            _show_details(run)
        if limited := limit(run):
            console.print(f"Limited by {outside(limited.by)}: {outside(limited.why)}.", soft_wrap=True)
    if len(seen.runs) > 1:
        console.print()
        _show_stages(f"{len(seen.runs)} parts together", together(seen.runs))
        for run in seen.runs:
            _show_details(run)
    rows = ", ".join(f"{count} {name}" for name, count in seen.stored.items())
    console.print(f"The workspace holds {rows}.", soft_wrap=True)


def _show_run(run: RunStatus, now: float) -> None:
    from longtake.curation.looking.status import DIED, is_silent
    from longtake.curation.running.status import FAILED, RUNNING

    part = f"part {run.part}, " if run.part else ""
    began = f"since {_clock(run.started)} ({span(max(0.0, run.beat - run.started))})"
    console.print(f"[bold]{part}{outside(run.recipe)}[/] on {outside(run.host)}, process {run.pid}, {began}: ", end="")
    ago = f"{_clock(run.beat)}, {span(max(0.0, now - run.beat))} ago"
    if run.state == RUNNING:
        console.print(f"at work (beat {span(max(0.0, now - run.beat))} ago)", soft_wrap=True)
        if is_silent(run, now):
            console.print(
                f"  Its process lives, but its last note is of {_clock(run.beat)}: it was stopped (kill -CONT {run.pid}), it "
                "cannot write to the workspace, or the clock was set.",
                soft_wrap=True,
            )
    elif run.state == DIED:
        console.print(
            f"[bold red]died[/]: no beat since {ago}. What is done is kept, and the same command goes on:",
            soft_wrap=True,
        )
        console.print(f"  {outside(run.command)}", soft_wrap=True)
    elif run.state == FAILED:
        console.print(f"[bold red]failed[/] at {ago}: {outside(run.message or '')}", soft_wrap=True)
    else:
        console.print(f"{run.state} at {ago}", soft_wrap=True)
    if run.state == RUNNING and run.waits:
        console.print(f"  It says: {outside(run.waits)}", soft_wrap=True)


def _show_stages(title: str, stages: Sequence[StageStatus]) -> None:
    from longtake.curation.looking.status import left, rate, seconds_left, share
    from longtake.curation.running.status import RUNNING

    rows = []
    for stage in stages:
        at_work, remaining = stage.state == RUNNING, seconds_left(stage)
        busy = share(stage, "busy_seconds") if stage.busy_seconds else None
        held = f"{stage.gpu_busy_seconds:.0f}/{stage.gpu_seconds:.0f}" if stage.gpu_seconds else None
        rows.append(
            (
                stage.stage, stage.state, stage.done, f"{left(stage)}{'+' if stage.more else ''}",
                f"{rate(stage):.2f}" if stage.done else None,
                span(remaining) if at_work and remaining is not None else None, stage.errors,
                stage.workers if at_work else None, stage.batches if at_work else None,
                None if busy is None else f"{busy:.0%}", held,
            )
        )  # fmt: skip
    heads = ("stage", "state", "done", "left", "rows/s", "time left", "errors", "workers", "in hand", "busy")
    gpus = any(row[-1] for row in rows)
    if gpus:
        print_table(console, title, (*heads, "GPU s busy/held"), rows, left=2)
    else:
        print_table(console, title, heads, [row[:-1] for row in rows], left=2)


def _show_details(run: RunStatus) -> None:
    kinds = [(stage.stage, kind, host, rows) for stage in run.stages for kind, host, rows in stage.error_kinds]
    if kinds:
        print_table(console, "errors", ("stage", "kind", "machine", "rows"), kinds, left=3)
    for stage in run.stages:
        for late in stage.late:
            usual = f", where {span(stage.usual_seconds)} is usual" if stage.usual_seconds else ""
            where = f"{stage.stage} on {outside(late['host'])}"
            console.print(
                f"late: {where}, {span(late['seconds'])} in hand{usual}: {outside(late['what'])}", soft_wrap=True
            )


def _clock(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds).astimezone():%Y-%m-%d %H:%M:%S}"


def span(seconds: float) -> str:
    """A length of time, in the two units that say enough of it."""
    if seconds < 120:
        return f"{seconds:.3g} s" if seconds < 10 else f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172800 else f"{seconds / 86400:.1f} d"
