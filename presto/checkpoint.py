"""Checkpoints: sharded, by torch.distributed.checkpoint. One is there when its manifest is, and not before.

    RUN/checkpoints/step-00000100/     DCP's files, and checkpoint.json: step, configuration, plan, files, sizes and hashes
    RUN/checkpoints/damaged-00000100/  one that was found damaged, out of the way

A checkpoint is written to a hidden folder, at once or in the background; the manifest comes last, and then the folder
takes its name. So a kill at any moment leaves the one before, whole. Each rank hashes what it wrote, and on resuming its
part of the files is hashed again: where a checkpoint is damaged, the run goes on from the one before it, and says so.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
import warnings
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict_loader import load as dcp_load
from torch.distributed.checkpoint.state_dict_saver import async_save
from torch.distributed.checkpoint.state_dict_saver import save as dcp_save

from longtake.manifests.folder import whole_file
from longtake.presto.errors import PrestoError
from longtake.presto.parallel import Ranks

log = logging.getLogger(__name__)

MANIFEST = "checkpoint.json"
FOLDER = "checkpoints"
VERSION = 2
_NAME = re.compile(r"step-(\d{8})")
# DCP reports a missing key, another size or a bad file in several ways, and CheckpointException is no Exception.
_FAULTS = (Exception, CheckpointException)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint that is whole. step: steps done. meta: config, plan and whatever else was given to `save`. passed: what
    was wrong with newer ones."""

    path: Path
    step: int
    meta: dict[str, Any]
    passed: tuple[str, ...] = ()


class Writer:
    """Writes a run's checkpoints; all ranks have one, and make the same calls. keep: how many of the newest stay.
    in_background: the state is copied to the memory of the CPU, and written and hashed from there by a thread.

    A checkpoint is begun, and later finished by all ranks together; there is one at a time.
    """

    def __init__(self, run: Path, keep: int, ranks: Ranks, *, in_background: bool = False) -> None:
        self.run, self.keep, self.ranks = run, keep, ranks
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint") if in_background else None
        # The threads have a group of their own, so that their messages do not mix with those of the ranks.
        self._group: Any = dist.new_group(backend="gloo") if in_background else None
        self._begun: tuple[int, dict[str, Any], Future[dict[str, str]]] | None = None

    @property
    def pending(self) -> int | None:
        """The step of the checkpoint that is begun and not finished."""
        return None if self._begun is None else self._begun[0]

    @property
    def written(self) -> bool:
        """Whether this rank has nothing more to write of it."""
        return self._begun is not None and self._begun[2].done()

    def begin(self, step: int, state: dict[str, Any], meta: dict[str, Any]) -> None:
        """state: of tensors, sharded or not, and plain values; it may change as soon as this returns."""
        assert self._begun is None
        staged = self._staged(step)
        if self.ranks.first:
            shutil.rmtree(staged, ignore_errors=True)
            staged.mkdir(parents=True)
        dist.barrier()
        hashes: Future[dict[str, str]]
        if self._pool is None:
            hashes = Future()
            try:
                dcp_save(state, checkpoint_id=str(staged))
                hashes.set_result(self._hashes(staged))
            except _FAULTS as error:
                hashes.set_exception(error)
        else:
            saved = cast("Future[Any]", async_save(state, checkpoint_id=str(staged), process_group=self._group))

            def rest() -> dict[str, str]:
                saved.result()
                return self._hashes(staged)

            hashes = self._pool.submit(rest)
        self._begun = step, meta, hashes

    def finish(self) -> Path:
        """Wait for what was begun, and give it its name; the checkpoint's folder. Raises PrestoError."""
        assert self._begun is not None
        (step, meta, hashes), self._begun = self._begun, None
        staged = self._staged(step)
        final = staged.with_name(staged.name[1:])
        mine: dict[str, str] | str
        try:
            mine = hashes.result()
        except _FAULTS as error:
            # CheckpointException is no Exception, and would pass every `except Exception` on its way.
            mine = _told(error)
        every: list[Any] = [None] * self.ranks.world
        dist.all_gather_object(every, mine)
        faults = dict.fromkeys(each for each in every if isinstance(each, str))
        if faults:
            raise PrestoError(f"{final} cannot be written: {'; '.join(faults)}")
        if self.ranks.first:
            digests = {name: digest for each in every for name, digest in each.items()}
            files = {name: [(staged / name).stat().st_size, digests[name]] for name in sorted(digests)}
            with whole_file(staged / MANIFEST) as part:
                part.write_text(
                    json.dumps({"version": VERSION, "step": step, "files": files, **meta}), encoding="utf-8"
                )
            shutil.rmtree(final, ignore_errors=True)
            staged.rename(final)
            for old in _folders(self.run)[: -self.keep]:
                shutil.rmtree(old, ignore_errors=True)
        dist.barrier()
        return final

    def close(self) -> None:
        """Leave what is not finished; no thread of it goes on."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _staged(self, step: int) -> Path:
        return self.run / FOLDER / f".step-{step:08d}"

    def _hashes(self, staged: Path) -> dict[str, str]:
        """Of the files that this rank wrote: DCP names them __<rank>_<number>.distcp, and the first rank writes .metadata."""
        names = [path.name for path in staged.glob(f"__{self.ranks.rank}_*")]
        return {name: _hash(staged / name) for name in [*names, *([".metadata"] if self.ranks.first else [])]}


def _hash(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _folders(run: Path) -> list[Path]:
    root = run / FOLDER
    return sorted(p for p in root.glob("step-*") if _NAME.fullmatch(p.name)) if root.is_dir() else []


def newest(run: Path, ranks: Ranks | None = None) -> Checkpoint | None:
    """The newest whole checkpoint of a run; None if it has none at all. Damaged ones that are newer are put aside, and
    that is logged. ranks: all of them call it, and each hashes its part of the files; None: this process is alone.

    Raises PrestoError if every checkpoint is damaged, or one is of another version of this program.
    """
    damaged: list[tuple[Path, str]] = []
    for folder in reversed(_folders(run)):
        fault = _fault(folder, *((ranks.rank, ranks.world) if ranks else (0, 1)))
        if ranks:
            every: list[str | None] = [None] * ranks.world
            dist.all_gather_object(every, fault)
            fault = next((each for each in every if each), None)
        if fault is None:
            if ranks is None or ranks.first:
                _put_aside(damaged, folder)
            if ranks:
                dist.barrier()
            meta = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            return Checkpoint(folder, meta["step"], meta, tuple(fault for _, fault in damaged))
        damaged.append((folder, fault))
    if damaged:
        raise PrestoError(
            f"{run / FOLDER}: no checkpoint is whole ({'; '.join(fault for _, fault in damaged)}). Copy them again if you "
            "can; delete them to begin the run anew"
        )
    return None


def _put_aside(damaged: Sequence[tuple[Path, str]], whole: Path) -> None:
    """Under another name damaged checkpoints are in nobody's way: `keep` would count them as the newest."""
    for folder, fault in damaged:
        aside = folder.with_name(folder.name.replace("step-", "damaged-"))
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)
        log.warning("%s: the folder is now called %s, and %s, the one before it, is taken", fault, aside.name, whole)


def _fault(path: Path, rank: int, world: int) -> str | None:
    """What is wrong with a checkpoint, as far as one rank's part of its files tells. Raises PrestoError for another
    version."""
    try:
        meta = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        version, files = meta["version"], sorted(meta["files"].items())
        meta["step"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{path / MANIFEST} cannot be read ({error})"
    if version != VERSION:
        raise PrestoError(
            f"{path / MANIFEST}: version {version}, and this program knows {VERSION}. Go on with the program that wrote it, "
            "or export its weights with that one and start in a new folder from them"
        )
    for number, (name, (size, digest)) in enumerate(files):
        file = path / name
        try:
            there = file.stat().st_size if file.is_file() else None
            if there is None:
                return f"{file} is missing"
            if there != size:
                return f"{file} has {there} bytes, not {size}"
            if number % world == rank and _hash(file) != digest:
                return f"{file} is not what was written"
        except OSError as error:
            return f"{file} cannot be read ({error})"
    return None


def _told(error: BaseException) -> str:
    """In a line: CheckpointException's own text holds the traceback of every rank."""
    causes = [cause for cause, _ in error._failures.values()] if isinstance(error, CheckpointException) else [error]
    return "; ".join(dict.fromkeys(f"{type(cause).__name__}: {cause}".splitlines()[0] for cause in causes))


def load(source: Checkpoint, state: dict[str, Any]) -> None:
    """Fill `state` (of tensors, sharded or not, and of plain values) from a checkpoint, whatever the number of ranks
    that wrote it. Raises PrestoError."""
    try:
        dcp_load(state, checkpoint_id=str(source.path))
    except _FAULTS as error:
        raise PrestoError(f"{source.path} does not fit this model: {_told(error)}") from error


def load_weights(source: Checkpoint, state: dict[str, torch.Tensor], part: str) -> None:
    """Fill `state` with the whole tensors of a part (`model`, `ema`), in one process without a process group."""
    wanted = {part: state}
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled")
            dcp_load(wanted, checkpoint_id=str(source.path), no_dist=True)
    except _FAULTS as error:
        raise PrestoError(f"{source.path} holds no weights {part!r} of this model: {_told(error)}") from error
