"""Other packages' filters and captioners, as they are brought to the workers of a cluster (Ray's `py_modules`)."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path

GROUPS = ("longtake.filters", "longtake.captioners")


def plugin_paths() -> list[str]:
    """The files and folders of all plug-ins that are installed here: of each its module or package, and its metadata, by which
    it is found. What they import besides has to be on the nodes."""
    paths: dict[str, None] = {}
    for group in GROUPS:
        for point in entry_points(group=group):
            paths |= dict.fromkeys(_paths(point))
    return list(paths)


def _paths(point: EntryPoint) -> list[str]:
    metadata = getattr(point.dist, "_path", None)
    try:
        spec = find_spec(point.module.partition(".")[0])
    except (ImportError, ValueError):
        spec = None
    if spec is None or not isinstance(metadata, Path):  # The registry reports a missing plug-in to those who need it.
        return []
    folders = list(spec.submodule_search_locations or [])
    module = folders[0] if folders else spec.origin
    return [module, str(metadata)] if module is not None and (folders or module.endswith(".py")) else []
