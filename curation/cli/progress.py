"""How a run goes, for whoever watches: a bar with rate and time left on a terminal, plain lines in a log."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from longtake.curation.inputs import InputReport
from longtake.curation.running.jobs import Report

_LINE_SECONDS = 15.0


@dataclass(slots=True)
class _Stage:
    """A stage under way: rows that came to it, when it began, its bar, and what was done."""

    rows: int
    began: float
    task: TaskID
    total: Report = field(default_factory=Report)


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
        self._stages: dict[str, _Stage] = {}
        self._last_line = 0.0

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

    def say(self, text: str) -> None:
        """What the run waits for."""
        self._console.print(escape(text), soft_wrap=True)

    def begin(self, stage: str, rows: int) -> None:
        """Stages may overlap; more rows may come to one than it begins with."""
        now = time.monotonic()
        self._last_line = now
        self._stages[stage] = _Stage(rows, now, self._bars.add_task(stage, total=rows, rate=""))
        if self._bars.disable and rows:
            self._console.print(f"{stage}: {rows} rows to compute")

    def more(self, stage: str, rows: int) -> None:
        """Rows have come to a stage."""
        if (known := self._stages.get(stage)) is not None:
            known.rows += rows
            self._bars.update(known.task, total=known.rows)

    def advance(self, report: Report) -> None:
        now = time.monotonic()
        if (known := self._stages.get(report.stage)) is not None:
            known.total += report
            rate = known.total.rows / max(now - known.began, 1e-3)
            self._bars.update(known.task, completed=known.total.rows, rate=f"{rate:.1f}/s")
        if self._bars.disable and now - self._last_line > _LINE_SECONDS:
            self._last_line = now
            self._lines(now)

    def _lines(self, now: float) -> None:
        for stage, known in self._stages.items():
            if known.total.rows < known.rows:
                rate = known.total.rows / max(now - known.began, 1e-3)
                left = (known.rows - known.total.rows) / max(rate, 1e-9)
                left_over = f", {left:.0f} s left" if known.total.rows else ""
                self._console.print(f"{stage}: {known.total.rows} of {known.rows}, {rate:.1f}/s{left_over}")

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
        if total.repeated:
            done += f", {total.repeated} begun more than once, since a worker or a machine was lost"
        self._console.print(done)
        if (known := self._stages.pop(stage, None)) is not None:
            self._bars.remove_task(known.task)
