"""Captioners by name: the built-in ones, and those that other packages bring as entry points."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from longtake.captioning.base import Captioner

GROUP = "longtake.captioners"

# Adding one = one file, and one line here.
BUILT_IN = {
    "descriptors": "longtake.captioning.descriptors:Descriptors",
    "openai": "longtake.captioning.endpoint:OpenAI",
    "transformers": "longtake.captioning.local:Transformers",
    "vllm": "longtake.captioning.waves:Vllm",
    "sidecar": "longtake.captioning.sidecar:Sidecar",
}


def names() -> list[str]:
    """Every captioner that a recipe can name, sorted."""
    return sorted({*BUILT_IN, *_plugins()})


def captioner_class(name: str) -> type[Captioner]:
    """The class behind `name`. Raises ValueError for an unknown name, or a plug-in that does not load."""
    if name in BUILT_IN:
        module, _, attribute = BUILT_IN[name].partition(":")
        found: Any = getattr(import_module(module), attribute)
    elif (plugin := _plugins().get(name)) is not None:
        try:
            found = plugin.load()
        except Exception as error:
            raise ValueError(f"the captioner {name!r} ({plugin.value}) does not load: {error}") from error
    else:
        raise ValueError(f"no captioner is named {name!r}{_nearest(name, names())}")
    if not (isinstance(found, type) and issubclass(found, Captioner)):
        raise ValueError(f"the captioner {name!r} is no longtake.captioning.base.Captioner: {found!r}")
    return found


def make_captioner(name: str, settings: Mapping[str, Any] | None = None) -> Captioner:
    """A captioner with `settings`, its constructor's keyword arguments. Raises ValueError if one is wrong."""
    cls = captioner_class(name)
    settings = dict(settings or {})
    parameters = inspect.signature(cls).parameters
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        for key in settings:
            if key not in parameters:
                raise ValueError(f"the captioner {name!r} has no setting {key!r}{_nearest(key, parameters)}")
    try:
        return cls(**settings)
    except (TypeError, ValueError) as error:
        # without the settings themselves: somebody may have put a secret there
        raise ValueError(f"the captioner {name!r} cannot be made: {error}") from error


def _plugins() -> dict[str, EntryPoint]:
    """Other packages' captioners. A built-in name stays the built-in captioner's."""
    return {point.name: point for point in entry_points(group=GROUP) if point.name not in BUILT_IN}


def _nearest(word: str, known: Iterable[str]) -> str:
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=1)
    return (f"; did you mean {near[0]!r}?" if near else ";") + f" known: {', '.join(known) or 'none'}"
