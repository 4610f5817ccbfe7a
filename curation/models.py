"""The weights on this machine: which there are, who needs them, fetching them, and whether a recipe has what it needs.

Only `longtake models pull` fetches; a run never does, and a worker even less.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from longtake.curation.downloads import DownloadError, Progress, fetch, read_text
from longtake.curation.errors import SetupError
from longtake.curation.recipe import Recipe, load_recipe, shipped
from longtake.filters.base import Filter, FilterUnavailable
from longtake.filters.weights import (
    RECORD_SUFFIX,
    WEIGHTS,
    Weight,
    expected_sha256,
    file_sha256,
    find_weight,
    missing,
    models_folder,
    models_uri,
    record_sha256,
    verify,
)
from longtake.manifests.folder import is_uri

SUMS = "SHA256SUMS"


@dataclass(frozen=True, slots=True)
class Known:
    """A weight, where it lies (None: nowhere), and the filters of shipped recipes that need it, as 'recipe: filter'."""

    weight: Weight
    path: Path | None
    needed_by: list[str]


@dataclass(frozen=True, slots=True)
class Pulled:
    """A weight that is here now. fetched: False if it was here before. set_aside: a wrong file that was here."""

    path: Path
    fetched: bool
    set_aside: Path | None = None


def weights_of(filter_: Filter[Any]) -> tuple[str, ...]:
    """Names of the published weights that a filter reads."""
    names = getattr(filter_, "weights", ())  # A plug-in's filter may use the name `weights` for something else.
    return tuple(name for name in names if name in WEIGHTS) if isinstance(names, tuple | list) else ()


def needed(recipe: Recipe) -> dict[str, list[str]]:
    """Weight → the filters of a recipe that read it."""
    needed_by: dict[str, list[str]] = {}
    for name, filter_ in recipe.built.items():
        for weight in weights_of(filter_):
            needed_by.setdefault(weight, []).append(name)
    return needed_by


def listed() -> list[Known]:
    """Every weight."""
    users: dict[str, list[str]] = {}
    for recipe in shipped():
        for weight, filters in needed(load_recipe(recipe)).items():
            users.setdefault(weight, []).extend(f"{recipe}: {name}" for name in filters)
    return [
        Known(weight, None if missing([name]) else find_weight(name), users.get(name, []))
        for name, weight in WEIGHTS.items()
    ]


def check_filter(filter_: Filter[Any]) -> None:
    """Raises FilterUnavailable if a package or a weight is missing, or a weight is not the right one."""
    names = weights_of(filter_)
    if faults := [fault for fault in verified(names).values() if fault]:
        raise FilterUnavailable("\n".join(faults))
    if names and importlib.util.find_spec("torch") is None:
        raise FilterUnavailable("torch is missing: pip install 'longtake[models]'")
    _ = filter_.protocol


def check_filters(recipe: Recipe, filters: Mapping[str, Filter[Any]]) -> None:
    """Raises SetupError naming every file that is missing or wrong. A right file is hashed once per process."""
    faults = []
    for name, filter_ in filters.items():
        try:
            check_filter(filter_)
        except FilterUnavailable as error:
            faults.append(f"filter {name}: {error}")
    if faults:
        instead = runs_here(without=recipe.name)
        if instead:
            faults.append(f"The recipe {instead} runs on this machine without that: longtake curate … -r {instead}")
        raise SetupError(f"recipe {recipe.name}: " + "\n".join(faults))


def runs_here(without: str) -> str | None:
    """The first shipped recipe all of whose filters this machine can measure, other than the one of this name; None if there is
    none. It is looked for among those that need the least."""
    for name in shipped():
        if name == without:
            continue
        try:
            for filter_ in load_recipe(name).built.values():
                check_filter(filter_)
        except FilterUnavailable:
            continue
        return name
    return None


def pull(name: str, mirror: str | None = None, progress: Progress = lambda have, total: None) -> Pulled:
    """Bring a weight into the models folder, if it is not there, and check it.

    mirror: a folder or an fsspec or http(s) URI that holds files as the models folder does, in its subfolders or
    without them; else LONGTAKE_MODELS where that is a URI; else the weight's own source. A file whose hash nobody
    published is compared with the mirror's SHA256SUMS or FILE.sha256, and its hash is recorded beside it.

    Raises SetupError if it cannot be fetched, or is another file than expected: that one is kept as FILE.bad.
    """
    weight = WEIGHTS[name]
    set_aside = None
    if not missing([name]):
        try:
            return Pulled(verify(name), fetched=False)
        except FilterUnavailable:
            wrong = find_weight(name)
            set_aside = wrong.with_name(wrong.name + ".bad")
            os.replace(wrong, set_aside)
    target = models_folder() / weight.filename
    part = target.with_name(target.name + ".part")
    expected = _recorded(target)
    try:
        mirror = mirror or models_uri()
        if mirror:
            expected = _from_mirror(mirror, weight, part, progress) or expected
        elif is_uri(weight.source):
            fetch(weight.source, part, progress)
        else:
            raise SetupError(
                f"{name} comes only inside another download ({weight.source}): take it from there and copy it to "
                f"{target}, or pull it from a mirror that has it (--mirror)"
            )
    except DownloadError as error:
        raise SetupError(f"{name}: {error}") from error
    if problem := _fault(part, weight, expected):
        bad = target.with_name(target.name + ".bad")
        os.replace(part, bad)
        raise SetupError(
            f"{name}: what came from {mirror or weight.source} is not the expected file: {problem}. It is kept as {bad}"
        )
    with part.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(part, target)
    if len(weight.sha256 or "") < 64:
        record_sha256(target)
    return Pulled(target, fetched=True, set_aside=set_aside)


def verified(names: Iterable[str]) -> dict[str, str | None]:
    """Of each weight named: what is wrong with it, or None. Hashes every file anew, once per process."""
    faults: dict[str, str | None] = {}
    for name in names:
        try:
            verify(name)
            faults[name] = None
        except FilterUnavailable as error:
            faults[name] = str(error)
    return faults


def known_hash(name: str) -> bool:
    """Whether there is anything to compare a present file with."""
    return expected_sha256(name) is not None


def _from_mirror(mirror: str, weight: Weight, part: Path, progress: Progress) -> str | None:
    """Fetch a weight's file from a mirror; the SHA-256 that the mirror states for it, if it does."""
    root = (mirror if is_uri(mirror) else os.path.expanduser(mirror)).rstrip("/")
    web = root.startswith(("http://", "https://"))
    tried = []
    for path in (weight.filename, Path(weight.filename).name):
        source = f"{root}/{quote(path) if web else path}"
        try:
            fetch(source, part, progress)
        except DownloadError as error:
            if not error.missing:
                raise
            tried.append(source)
            continue
        sums = (read_text(f"{root}/{SUMS}") or "").splitlines()
        lines = [*(read_text(source + RECORD_SUFFIX) or "").splitlines()[:1], *sums]
        stated = {words[-1].removeprefix("*").removeprefix("./"): words[0] for line in lines if (words := line.split())}
        return stated.get(path) or stated.get(Path(path).name)
    raise DownloadError(f"the mirror has neither {' nor '.join(tried)}", missing=True)


def _recorded(target: Path) -> str | None:
    """The hash noted at an earlier pull, which outlives the file."""
    record = target.with_name(target.name + RECORD_SUFFIX)
    return next(iter(record.read_text("ascii").split()), None) if record.is_file() else None


def _fault(path: Path, weight: Weight, stated: str | None) -> str | None:
    """Why a file cannot be this weight, or None. The table's word counts for more than the mirror's (`stated`)."""
    size = path.stat().st_size
    if weight.size is not None and size != weight.size:
        return f"it has {size} bytes, not {weight.size}"
    with path.open("rb") as file:
        # A zip or a pickle begins like this, and the page of a proxy does not.
        if file.read(1) not in (b"P", b"\x80") and weight.sha256 is None:
            return "it is no weight file at all"
    digest = file_sha256(path)
    for expected in (weight.sha256, None if len(weight.sha256 or "") == 64 else stated):
        if expected and not digest.startswith(expected.lower()):
            return f"its SHA-256 is {digest}, not {expected}"
    return None
