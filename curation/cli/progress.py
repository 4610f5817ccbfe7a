"""How a run goes, for whoever watches: a bar with rate and time left on a terminal, plain lines in a log."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from longtake.curation.inputs import InputReport
from longtake.curation.running.jobs import Report

_LINE_SECONDS = 15.0


class Progress:
    """A `pipeline.Watcher` that writes to a console."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = Bars(
            TextColumn("{task.description:8}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task: TaskID | None = None
        self._stage, self._rows = "", 0
        self._total = Report()
        self._began = self._last_line = 0.0

    def __enter__(self) -> Progress:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def inputs(self, report: InputReport) -> None:
        """What was read, and what was left out and why."""
        for line in report.lines():
            self._console.print(escape(line), soft_wrap=True)

    def begin(self, stage: str, rows: int) -> None:
        self._stage, self._rows, self._total = stage, rows, Report()
        self._began = self._last_line = time.monotonic()
        self._task = self._bars.add_task(stage, total=rows, rate="")
        if self._bars.disable:
            self._console.print(f"{stage}: {rows} rows to compute")

    def advance(self, report: Report) -> None:
        self._total += report
        now = time.monotonic()
        rate = self._total.rows / max(now - self._began, 1e-3)
        if self._task is not None:
            self._bars.update(self._task, completed=self._total.rows, rate=f"{rate:.1f}/s")
        if self._bars.disable and now - self._last_line > _LINE_SECONDS and self._total.rows < self._rows:
            self._last_line = now
            left = (self._rows - self._total.rows) / max(rate, 1e-9)
            self._console.print(f"{self._stage}: {self._total.rows} of {self._rows}, {rate:.1f}/s, {left:.0f} s left")

    def end(self, stage: str, total: Report, seconds: float) -> None:
        hours = total.video_seconds / 3600
        done = f"{stage}: {total.rows} computed" if total.rows else f"{stage}: nothing to compute"
        if total.rows:
            done += f" in {seconds:.1f} s, {total.cpu_seconds:.1f} CPU-s, {hours:.2f} video-hours"
        if total.busy_share is not None:
            done += f", models busy {total.busy_share:.0%}"
        if total.requests:
            tokens = total.prompt_tokens + total.completion_tokens
            done += (
                f", {total.requests} answers, {total.prompt_tokens} + {total.completion_tokens} tokens "
                f"({total.rows / seconds:.2f} clips/s, {tokens / seconds:.0f} tokens/s)"
            )
        if total.errors:
            done += f", {total.errors} with errors"
        self._console.print(done)
        if self._task is not None:
            self._bars.remove_task(self._task)
            self._task = None
