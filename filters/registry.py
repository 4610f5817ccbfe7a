"""Which filters there are: name → backend → class. Other packages add theirs under the entry point `longtake.filters`
(`name.backend = "package.module:Class"`)."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from longtake.filters.base import Filter, FilterSettings
from longtake.filters.questions import QUESTIONS, class_name
from longtake.settings import Fault, SettingsError, checked, closest, near, one_of, quoted

# Gates are shown in this order: what costs least comes first.
BUILT_IN: dict[str, dict[str, str]] = {
    "width": {"probe": "longtake.filters.resolution:Width"},
    "height": {"probe": "longtake.filters.resolution:Height"},
    "fps": {"probe": "longtake.filters.fps:Fps"},
    "duration": {"probe": "longtake.filters.duration:Duration"},
    "hdr": {"probe": "longtake.filters.hdr:Hdr"},
    "bits": {"probe": "longtake.filters.bits:Bits"},
    "shot_confidence": {"probe": "longtake.filters.shot_confidence:ShotConfidence"},
    "grayscale": {"mean": "longtake.filters.grayscale:Grayscale"},
    "burnt": {"luma": "longtake.filters.exposure:Burnt"},
    "black": {"luma": "longtake.filters.exposure:Black"},
    "contrast": {"luma": "longtake.filters.exposure:Contrast"},
    "colour_variance": {"means": "longtake.filters.saturation:ColourVariance"},
    "saturation": {"hsv": "longtake.filters.saturation:Saturation"},
    "blur": {"laplacian": "longtake.filters.blur:Blur"},
    "blurred": {"edges": "longtake.filters.blur:Blurred"},
    "phash": {"dct": "longtake.filters.phash:Phash"},
    "true_resolution": {"spectrum": "longtake.filters.true_resolution:TrueResolution"},
    "artifacts": {"rapidocr": "longtake.filters.artifacts:Artifacts", "borders": "longtake.filters.artifacts:Borders"},
    "artifact_keyframes": {
        "rapidocr": "longtake.filters.artifact_keyframes:ArtifactKeyframes",
        "borders": "longtake.filters.artifact_keyframes:BordersKeyframes",
    },
    "psnr": {"grey": "longtake.filters.psnr:Psnr"},
    "ssim": {"grey": "longtake.filters.ssim:Ssim"},
    "frozen": {"thumbs": "longtake.filters.frozen:Frozen"},
    "repeats": {"thumbs": "longtake.filters.repeats:Repeats"},
    "sound": {"stream": "longtake.filters.loudness:SoundShare"},
    "loudness": {"bs1770": "longtake.filters.loudness:Loudness"},
    "silence": {"rms": "longtake.filters.loudness:Silence"},
    "aesthetic": {
        "laion-v2": "longtake.filters.aesthetic:Aesthetic",
        "laion-v1": "longtake.filters.aesthetic:AestheticV1",
    },
    "dover": {"dover": "longtake.filters.dover:Dover"},
    "dover_technical": {"dover": "longtake.filters.dover:DoverTechnical"},
    "dover_aesthetic": {"dover": "longtake.filters.dover:DoverAesthetic"},
    "nsfw": {"laion": "longtake.filters.nsfw:Nsfw"},
    "flow": {
        "dis": "longtake.filters.flow_dis:FlowDis",
        "unimatch": "longtake.filters.flow_unimatch:FlowUnimatch",
        "raft": "longtake.filters.flow_raft:FlowRaft",
    },
    "jitter": {"global": "longtake.filters.jitter:Jitter"},
    "camera": {"global": "longtake.filters.camera:Camera"},
    "camera_confidence": {"global": "longtake.filters.camera:CameraConfidence"},
    "lpips": {
        "alex": "longtake.filters.lpips:Lpips",
        "vgg": "longtake.filters.lpips:LpipsVgg",
        "squeeze": "longtake.filters.lpips:LpipsSqueeze",
    },
    "copies": {"phash": "longtake.filters.copies:Copies"},
    "duplicates": {"clip": "longtake.filters.duplicates:Duplicates"},
    "concept": {"kmeans": "longtake.filters.concept:Concept"},
    **{name: {"ask": f"longtake.filters.ask:{class_name(name)}"} for name in QUESTIONS},
    "text_similarity": {"minilm": "longtake.filters.text_similarity:TextSimilarity"},
    "alignment": {"clip": "longtake.filters.alignment:Alignment"},
}


NAME = re.compile(r"[a-z][a-z0-9_]{0,60}")  # The name of a question of the recipe's own, which becomes a column.


class UnknownFilter(ValueError):
    """A name, backend or setting that no filter has, or a value that a setting cannot have. The message names every fault;
    `faults` says where each is within the filter's entry of a recipe."""

    def __init__(self, name: str, faults: Sequence[Fault]) -> None:
        super().__init__(f"filter {name!r}: " + "; ".join(map(str, faults)))
        self.faults = tuple(faults)


@cache
def available() -> dict[str, dict[str, str]]:
    """name → backend → 'module:Class', built-in ones first."""
    backends_of = {name: dict(backends) for name, backends in BUILT_IN.items()}
    for point in entry_points(group="longtake.filters"):
        name, _, backend = point.name.partition(".")
        # A plug-in replaces no backend that is installed: a score's protocol names the backend that measured it.
        backends_of.setdefault(name, {}).setdefault(backend or point.dist.name if point.dist else backend, point.value)
    return backends_of


def filter_class(name: str, backend: object = None) -> type[Filter[Any]]:
    """The class for a filter. backend None: the first one. Raises UnknownFilter."""
    filters = available()
    if name not in filters and backend == "ask" and NAME.fullmatch(name):
        from longtake.filters.ask import own_question

        return own_question(name)
    if name not in filters:
        raise UnknownFilter(name, [Fault((), f"no filter is called {name!r}{near(name, filters)}")])
    backends = filters[name]
    chosen = next(iter(backends)) if backend is None else backend
    if not isinstance(chosen, str) or chosen not in backends:
        meant = closest(chosen, backends)
        hint = f"; did you mean {meant!r}?" if meant else ""
        raise UnknownFilter(name, [Fault(("backend",), f"must be {one_of(backends)}, not {quoted(chosen)}{hint}")])
    module, _, attribute = backends[chosen].partition(":")
    try:
        cls: Any = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # Another package's module may fail in any way.
        if backends[chosen] == BUILT_IN.get(name, {}).get(chosen):
            raise
        raise UnknownFilter(name, [Fault((), f"{backends[chosen]} does not load: {error}")]) from error
    if not (isinstance(cls, type) and issubclass(cls, Filter)):
        raise UnknownFilter(name, [Fault((), f"{backends[chosen]} is no longtake.filters.base.Filter")])
    return cls


@cache
def samples_time(name: str) -> bool:
    """Whether the scores of this name are means over moments of the clip, which have a standard error."""
    for backend in available().get(name, {}):
        try:
            if filter_class(name, backend).samples_time:
                return True
        except UnknownFilter:  # The filter comes from another package, which does not load.
            continue
    return False


def build(name: str, settings: Mapping[str, Any]) -> Filter[Any]:
    """A filter from its recipe entry: `backend`, and the settings that its class takes. Raises UnknownFilter, which holds
    every fault of the entry."""
    options = dict(settings)
    backend = options.pop("backend", None)
    try:
        cls = filter_class(name, backend)
    except UnknownFilter as error:
        # The other settings are still checked, as those of the backend that was probably meant.
        meant = closest(backend, available().get(name, {}))
        raise UnknownFilter(name, [*error.faults, *(_faults(name, meant, options) if meant else [])]) from error
    try:
        made = cls(**options)
    except SettingsError as error:
        raise UnknownFilter(name, error.faults) from error
    except (TypeError, ValueError) as error:  # The class comes from another package.
        raise UnknownFilter(name, [Fault((), f"cannot be made: {error}")]) from error
    if cls.asks and name not in available() and options.get("question") is None:
        what = f"must be given, since no question that ships is called {name!r}{near(name, QUESTIONS)}"
        raise UnknownFilter(name, [Fault(("question",), what)])
    return made


def entry_models(name: str) -> dict[str, type[FilterSettings]]:
    """Backend → the model of its settings, the first one first; of another package those that load."""
    models = {}
    for backend in available()[name]:
        try:
            models[backend] = filter_class(name, backend).settings_model
        except UnknownFilter:
            continue
    return models


def _faults(name: str, backend: str, options: Mapping[str, Any]) -> Sequence[Fault]:
    try:
        checked(filter_class(name, backend).settings_model, options)
    except (SettingsError, UnknownFilter) as error:
        return error.faults
    return ()
