"""Logs of a run: one JSON line per entry in RUN/log.jsonl, and the same numbers for TensorBoard and Weights & Biases."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from longtake.presto.config import TrainConfig
from longtake.presto.errors import PrestoError


class Log:
    """Written by the first rank only. Lines of steps after `step` (of a run that was resumed from there) are cut off, so
    that each step is there once. config: may name a project of Weights & Biases; there a run that is resumed goes on under
    its id, which is kept in RUN/wandb.txt."""

    def __init__(self, run: Path, step: int, config: TrainConfig | None = None) -> None:
        path = run / "log.jsonl"
        run.mkdir(parents=True, exist_ok=True)
        kept = [line for line in _lines(path) if line["step"] <= step]
        with open(path, "w", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in kept)
        self._file = open(path, "a", encoding="utf-8", buffering=1)  # noqa: SIM115 - closed in __exit__
        from torch.utils.tensorboard import SummaryWriter

        self._board = SummaryWriter(str(run / "tensorboard"), purge_step=step + 1 if step else None)
        self._wandb = _wandb(run, config) if config is not None and config.wandb is not None else None

    def __enter__(self) -> Log:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()
        self._board.close()
        if self._wandb is not None:
            self._wandb.finish(exit_code=0 if error is None else 1)

    def write(self, step: int, kind: str, values: Mapping[str, float]) -> None:
        """kind: train, validation, drop, …"""
        line = {"step": step, "kind": kind, "time": time.time(), **values}
        self._file.write(json.dumps(line) + "\n")
        for name, value in values.items():
            self._board.add_scalar(f"{kind}/{name}", value, step)
        if self._wandb is not None:
            self._wandb.log({"step": step, **{f"{kind}/{name}": value for name, value in values.items()}})

    def note(self, step: int, kind: str, told: Sequence[str]) -> None:
        """A line of words, which TensorBoard does not get."""
        self._file.write(json.dumps({"step": step, "kind": kind, "time": time.time(), "told": list(told)}) + "\n")


def _wandb(run: Path, config: TrainConfig) -> Any:
    assert config.wandb is not None
    wandb = require_wandb()
    kept = run / "wandb.txt"
    if not kept.is_file():
        kept.write_text(uuid.uuid4().hex, encoding="utf-8")
    started = wandb.init(
        project=config.wandb.project,
        entity=config.wandb.entity,
        name=f"{config.name} {run.name}",
        id=kept.read_text(encoding="utf-8").strip(),
        resume="allow",
        dir=str(run),
        config=config.model_dump(mode="json"),
    )
    started.define_metric("*", step_metric="step")  # Steps that are done again after a crash may be in the log twice.
    return started


def require_wandb() -> Any:
    """The package. Raises PrestoError."""
    try:
        import wandb
    except ImportError as error:
        raise PrestoError("wandb: the package is not there: pip install wandb, or set wandb to null") from error
    return wandb


def read_log(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's log."""
    return _lines(run / "log.jsonl")


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue  # A kill interrupted the writing of this line.
    return rows
