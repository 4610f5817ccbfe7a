"""Checkpoints: sharded, by torch.distributed.checkpoint. One is there when its manifest is, and not before.

    RUN/checkpoints/step-00000100/     DCP's files, and checkpoint.json: step, configuration, plan, files and sizes

A checkpoint is written to a hidden folder; the manifest comes last, and then the folder takes its name. So a kill at any
moment leaves the one before, whole.
"""

from __future__ import annotations

import json
import re
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.state_dict_loader import load as dcp_load
from torch.distributed.checkpoint.state_dict_saver import save as dcp_save

from longtake.manifests.folder import whole_file
from longtake.presto.errors import PrestoError
from longtake.presto.parallel import Ranks

MANIFEST = "checkpoint.json"
FOLDER = "checkpoints"
VERSION = 1
_NAME = re.compile(r"step-(\d{8})")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint that is whole. step: steps done. meta: config, plan and whatever else was given to `save`."""

    path: Path
    step: int
    meta: dict[str, Any]


def save(run: Path, step: int, state: dict[str, Any], meta: dict[str, Any], keep: int, ranks: Ranks) -> Path:
    """Write a checkpoint; all ranks call it, each writes its shards. The `keep` newest stay. Its folder."""
    root = run / FOLDER
    staged, final = root / f".step-{step:08d}", root / f"step-{step:08d}"
    if ranks.first:
        shutil.rmtree(staged, ignore_errors=True)
        staged.mkdir(parents=True)
    dist.barrier()
    dcp_save(state, checkpoint_id=str(staged))
    if ranks.first:
        files = {str(p.relative_to(staged)): p.stat().st_size for p in sorted(staged.rglob("*")) if p.is_file()}
        with whole_file(staged / MANIFEST) as part:
            part.write_text(json.dumps({"version": VERSION, "step": step, "files": files, **meta}), encoding="utf-8")
        shutil.rmtree(final, ignore_errors=True)
        staged.rename(final)
        for old in _folders(run)[:-keep]:
            shutil.rmtree(old, ignore_errors=True)
    dist.barrier()
    return final


def _folders(run: Path) -> list[Path]:
    root = run / FOLDER
    return sorted(p for p in root.glob("step-*") if _NAME.fullmatch(p.name)) if root.is_dir() else []


def newest(run: Path) -> Checkpoint | None:
    """The newest checkpoint of a run; None if it has none. Raises PrestoError if that one is damaged."""
    folders = _folders(run)
    return open_checkpoint(folders[-1]) if folders else None


def open_checkpoint(path: Path) -> Checkpoint:
    """Raises PrestoError, naming the file, if the checkpoint is not whole or of a newer program."""
    again = f"delete {path} to go on from the checkpoint before it"
    try:
        meta = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        version, step, files = meta["version"], meta["step"], meta["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PrestoError(f"{path / MANIFEST} cannot be read ({error}): {again}") from error
    if version > VERSION:
        raise PrestoError(f"{path / MANIFEST}: version {version}, and this program knows {VERSION}")
    for name, size in files.items():
        there = (path / name).stat().st_size if (path / name).is_file() else None
        if there != size:
            raise PrestoError(
                f"{path / name} " + ("is missing" if there is None else f"has {there} bytes, not {size}") + f": {again}"
            )
    return Checkpoint(path, step, meta)


def load(found: Checkpoint, state: dict[str, Any]) -> None:
    """Fill `state` (of tensors, sharded or not, and of plain values) from a checkpoint, whatever the number of ranks
    that wrote it. Raises PrestoError."""
    try:
        dcp_load(state, checkpoint_id=str(found.path))
    except Exception as error:  # DCP reports a missing key, a size or a bad file in several ways
        raise PrestoError(f"{found.path} does not fit this model: {error}") from error


def load_weights(found: Checkpoint, state: dict[str, torch.Tensor], part: str) -> None:
    """Fill `state` with the whole tensors of a part (`model`, `ema`), in one process without a process group."""
    wanted = {part: state}
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled")
            dcp_load(wanted, checkpoint_id=str(found.path), no_dist=True)
    except Exception as error:
        raise PrestoError(f"{found.path} holds no weights {part!r} of this model: {error}") from error
