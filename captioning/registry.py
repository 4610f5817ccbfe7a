"""Captioners by name: the built-in ones, and those that other packages bring as entry points."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from functools import lru_cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from pydantic import BaseModel

from longtake.captioning.base import Captioner
from longtake.captioning.settings import MODELS, faults_in
from longtake.settings import Fault, SettingsError, checked, near

GROUP = "longtake.captioners"

# Another captioner is a file, a line in this table, and one in MODELS of settings.py (docs/add-a-captioner.md).
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
        captioner: Any = getattr(import_module(module), attribute)
    elif (plugin := _plugins().get(name)) is not None:
        try:
            captioner = plugin.load()
        except Exception as error:
            raise ValueError(f"the captioner {name!r} ({plugin.value}) does not load: {error}") from error
    else:
        raise ValueError(f"no captioner is named {name!r}{near(name, names())}")
    if not (isinstance(captioner, type) and issubclass(captioner, Captioner)):
        raise ValueError(f"the captioner {name!r} is no longtake.captioning.base.Captioner: {captioner!r}")
    return captioner


def make_captioner(name: str, settings: Mapping[str, Any] | None = None) -> Captioner:
    """A captioner with `settings`, its constructor's keyword arguments. Raises ValueError, which tells all that is wrong."""
    cls = captioner_class(name)
    settings = dict(settings or {})
    if faults := settings_faults(name, settings):
        raise ValueError(f"the captioner {name!r}: {SettingsError(faults)}")
    try:
        return cls(**settings)
    except (TypeError, ValueError) as error:
        # The message leaves the settings out, since one of them may be a secret.
        raise ValueError(f"the captioner {name!r} cannot be made: {error}") from error


def settings_faults(name: str, settings: Mapping[str, Any], *, files: bool = False) -> list[Fault]:
    """All that is wrong with a captioner's settings, as far as it can be told without making it. files: also whether the
    prompts that they name are on this machine. Raises ValueError if there is no such captioner."""
    if name in BUILT_IN:
        return faults_in(name, settings, files=files)
    cls = captioner_class(name)
    if cls.settings_model is not None:
        try:
            checked(cls.settings_model, settings, quote=False)
        except SettingsError as error:
            return list(error.faults)
        return []
    parameters = inspect.signature(cls).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return []
    return [
        Fault((key,), f"unknown setting{near(key, parameters)}") for key in map(str, settings) if key not in parameters
    ]


def settings_model(name: str) -> type[BaseModel] | None:
    """The model of a captioner's settings; None where there is none, or where it does not load."""
    if name in BUILT_IN:
        return MODELS[name]
    try:
        return captioner_class(name).settings_model
    except ValueError:
        return None


def _plugins() -> dict[str, EntryPoint]:
    """Other packages' captioners. A built-in name stays the built-in captioner's."""
    return _installed(tuple(sys.path))


@lru_cache(maxsize=8)  # All packages are looked through, which takes 10 ms, and each recipe that is read asks for them.
def _installed(folders: tuple[str, ...]) -> dict[str, EntryPoint]:
    """`_plugins` of the packages in these folders."""
    return {point.name: point for point in entry_points(group=GROUP) if point.name not in BUILT_IN}
