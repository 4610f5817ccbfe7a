"""What this machine can do, looked at before a long run."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import psutil

from longtake.curation.models import check_filter, runs_here
from longtake.curation.recipe import Recipe
from longtake.filters.base import FilterUnavailable
from longtake.manifests.store import StoreError, open_folder

_CODECS = ("h264", "hevc", "vp8", "vp9", "av1", "mpeg2video", "mpeg4", "theora", "vvc")
_PACKAGES = (
    "av",
    "opencv-python-headless",
    "scikit-image",
    "ray",
    "torch",
    "rapidocr",
    "sentence-transformers",
    "decord",
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. needed: without it, what was asked for cannot run."""

    what: str
    good: bool
    detail: str
    needed: bool = False


def examine(recipe: Recipe | None, workspace: str | None, start_ray: bool) -> list[Finding]:
    """Look at codecs, packages, memory, GPU; at a recipe's filters and captioner; at a workspace; at Ray."""
    checks = [*_machine(), *_codecs(), *_packages()]
    if recipe:
        checks += _recipe(recipe)
    if workspace:
        checks += _workspace(workspace)
    if start_ray:
        checks.append(_ray())
    return checks


def _machine() -> Iterator[Finding]:
    memory = psutil.virtual_memory()
    yield Finding("processor", True, f"{os.cpu_count()} cores")
    yield Finding(
        "memory", memory.available > 2 * 2**30, f"{memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB free"
    )
    smi = shutil.which("nvidia-smi")
    yield Finding("GPU", smi is not None, smi or "none; models run on the CPU")


def _codecs() -> Iterator[Finding]:
    import av
    import av.codec

    missing = []
    for name in _CODECS:
        try:
            av.codec.Codec(name, "r")
        except (av.codec.codec.UnknownCodecError, ValueError):
            missing.append(name)
    have = ", ".join(name for name in _CODECS if name not in missing)
    yield Finding("decoders", not missing, have + (f"; missing: {', '.join(missing)}" if missing else ""))
    try:
        av.codec.Codec("libx264", "w")
        yield Finding("encoder", True, "libx264", needed=True)
    except (av.codec.codec.UnknownCodecError, ValueError):
        yield Finding(
            "encoder", False, "PyAV has no libx264: export cannot work; install the wheel from PyPI", needed=True
        )


def _packages() -> Iterator[Finding]:
    for name in _PACKAGES:
        try:
            yield Finding(name, True, version(name))
        except PackageNotFoundError:
            extra = "presto" if name == "decord" else "models"
            yield Finding(name, False, f"not installed; `pip install 'longtake[{extra}]'` brings it")


def _recipe(recipe: Recipe) -> Iterator[Finding]:
    from longtake.captioning.chat import CaptionerFault
    from longtake.captioning.registry import make_captioner

    lacks = False
    for name, filter_ in recipe.built.items():
        try:
            check_filter(filter_)
            yield Finding(f"filter {name}", True, filter_.protocol, needed=True)
        except FilterUnavailable as error:
            lacks = True
            yield Finding(f"filter {name}", False, str(error), needed=True)
    if lacks and (instead := runs_here(without=recipe.name)):
        yield Finding(
            f"recipe {instead}",
            True,
            f"runs on this machine without the missing parts: `longtake curate … -r {instead}`",
        )
    captioner = recipe.captioning.captioner
    try:
        made = make_captioner(captioner, recipe.captioning.settings)
        told = made.examine()
        yield Finding("captioner", True, "; ".join([made.protocol, *told]), needed=True)
    except (ValueError, CaptionerFault) as error:
        yield Finding("captioner", False, str(error), needed=True)


def _workspace(workspace: str) -> Iterator[Finding]:
    try:
        place = open_folder(workspace)
    except StoreError as error:
        yield Finding("workspace", False, str(error), needed=True)
        return
    if not place.is_local:
        yield Finding("workspace", True, workspace)
        return
    folder = place.root
    while not os.path.exists(folder):
        folder = os.path.dirname(folder)
    good = os.path.isdir(folder) and os.access(folder, os.W_OK)
    why = "can be written" if good else f"cannot be made or written in {folder}: choose another, or allow writing there"
    yield Finding("workspace", good, f"{workspace} {why}", needed=True)
    free = shutil.disk_usage(folder).free
    yield Finding("disk", free > 2**30, f"{free / 2**30:.1f} GiB free")


def _ray() -> Finding:
    from longtake.curation.running.on_ray import Cluster

    cluster = Cluster()
    started = time.monotonic()
    try:
        workers = cluster.workers
        return Finding("Ray", True, f"starts in {time.monotonic() - started:.0f} s, {workers} workers")
    except Exception as error:
        return Finding("Ray", False, str(error), needed=True)
    finally:
        cluster.close()
