"""Which filters there are: name → backend → class. Other packages add theirs under the entry point `longtake.filters`
(`name.backend = "package.module:Class"`)."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points
from typing import Any, get_args

from longtake.filters.base import Filter, Reduce

# Gates are shown in this order: what costs least comes first.
BUILT_IN: dict[str, dict[str, str]] = {
    "width": {"probe": "longtake.filters.resolution:Width"},
    "height": {"probe": "longtake.filters.resolution:Height"},
    "fps": {"probe": "longtake.filters.fps:Fps"},
    "duration": {"probe": "longtake.filters.duration:Duration"},
    "grayscale": {"mean": "longtake.filters.grayscale:Grayscale"},
    "artifacts": {"rapidocr": "longtake.filters.artifacts:Artifacts", "borders": "longtake.filters.artifacts:Borders"},
    "psnr": {"grey": "longtake.filters.psnr:Psnr"},
    "ssim": {"grey": "longtake.filters.ssim:Ssim"},
    "aesthetic": {
        "laion-v2": "longtake.filters.aesthetic:Aesthetic",
        "laion-v1": "longtake.filters.aesthetic:AestheticV1",
    },
    "flow": {
        "dis": "longtake.filters.flow_dis:FlowDis",
        "unimatch": "longtake.filters.flow_unimatch:FlowUnimatch",
        "raft": "longtake.filters.flow_raft:FlowRaft",
    },
    "lpips": {
        "alex": "longtake.filters.lpips:Lpips",
        "vgg": "longtake.filters.lpips:LpipsVgg",
        "squeeze": "longtake.filters.lpips:LpipsSqueeze",
    },
    "duplicates": {"clip": "longtake.filters.duplicates:Duplicates"},
    "text_similarity": {"minilm": "longtake.filters.text_similarity:TextSimilarity"},
}


class UnknownFilter(ValueError):
    """A name, backend or setting that no filter has; the message names the nearest one."""


@cache
def available() -> dict[str, dict[str, str]]:
    """name → backend → 'module:Class', built-in ones first."""
    found = {name: dict(backends) for name, backends in BUILT_IN.items()}
    for point in entry_points(group="longtake.filters"):
        name, _, backend = point.name.partition(".")
        # nobody replaces what is there: a score's protocol names the backend that measured it
        found.setdefault(name, {}).setdefault(backend or point.dist.name if point.dist else backend, point.value)
    return found


def filter_class(name: str, backend: str | None = None) -> type[Filter[Any]]:
    """The class for a filter. backend None: the first one. Raises UnknownFilter."""
    filters = available()
    if name not in filters:
        raise UnknownFilter(f"no filter is called {name!r}{_nearest(name, filters)}")
    backends = filters[name]
    chosen = backend or next(iter(backends))
    if chosen not in backends:
        raise UnknownFilter(f"filter {name!r} has no backend {chosen!r}; it has: {', '.join(backends)}")
    module, _, attribute = backends[chosen].partition(":")
    cls: type[Filter[Any]] = getattr(importlib.import_module(module), attribute)
    return cls


def build(name: str, settings: Mapping[str, Any]) -> Filter[Any]:
    """A filter from its recipe entry: `backend`, `reduce` and whatever its class takes. Raises UnknownFilter."""
    options = dict(settings)
    cls = filter_class(name, options.pop("backend", None))
    known = inspect.signature(cls).parameters
    for key in options:
        if key not in known:
            raise UnknownFilter(f"filter {name!r} has no setting {key!r}{_nearest(key, known)}")
    if options.get("reduce", "mean") not in get_args(Reduce):
        raise UnknownFilter(f"filter {name!r}: reduce is {', '.join(get_args(Reduce))}; not {options['reduce']!r}")
    try:
        return cls(**options)
    except (TypeError, ValueError) as error:
        raise UnknownFilter(f"filter {name!r}: {error}") from error


def _nearest(word: str, known: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(word, list(known), 1)
    return f"; did you mean {close[0]!r}?" if close else f"; there are: {', '.join(known)}"
