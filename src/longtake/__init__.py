"""LongTake: raw video in; filtered, captioned training shards out.

The public API, told with examples in docs/api.md:

    import longtake

    longtake.curate("videos/", "workspace")
    workspace = longtake.open("workspace")
    workspace.verdicts("pretrain", flow=">= 30")

Every name is loaded at its first use: `import longtake` itself takes milliseconds, and loads no other package.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__all__ = [
    "CaptionError",
    "Captioner",
    "CaptionerFault",
    "Captions",
    "ClipFrames",
    "ClipView",
    "CurateResult",
    "Filter",
    "FilterSettings",
    "FilterUnavailable",
    "Gate",
    "MeasureError",
    "Needs",
    "OpenWorkspace",
    "Probe",
    "Recipe",
    "RecipeError",
    "Reduce",
    "Sample",
    "Score",
    "SetupError",
    "Status",
    "StoreError",
    "WorkspaceBusy",
    "__version__",
    "curate",
    "load_recipe",
    "open",
]

# The module that defines each name. Type checkers and editors read the imports below instead; a test compares the two.
_HOME = {
    "CaptionError": "longtake.captioning.checks",
    "Captioner": "longtake.captioning.base",
    "CaptionerFault": "longtake.captioning.chat",
    "Captions": "longtake.captioning.base",
    "ClipFrames": "longtake.captioning.base",
    "ClipView": "longtake.curation.looking.report.clips",
    "CurateResult": "longtake.curation.api",
    "Filter": "longtake.filters.base",
    "FilterSettings": "longtake.filters.base",
    "FilterUnavailable": "longtake.filters.base",
    "Gate": "longtake.filters.gates",
    "MeasureError": "longtake.filters.base",
    "Needs": "longtake.filters.base",
    "OpenWorkspace": "longtake.curation.api",
    "Probe": "longtake.filters.base",
    "Recipe": "longtake.curation.recipe",
    "RecipeError": "longtake.curation.recipe",
    "Reduce": "longtake.filters.base",
    "Sample": "longtake.filters.base",
    "Score": "longtake.filters.base",
    "SetupError": "longtake.curation.errors",
    "Status": "longtake.captioning.checks",
    "StoreError": "longtake.manifests.parts",
    "WorkspaceBusy": "longtake.manifests.lock",
    "curate": "longtake.curation.api",
    "load_recipe": "longtake.curation.recipe",
    "open": "longtake.curation.api",
}

if TYPE_CHECKING:
    from longtake.captioning.base import Captioner, Captions, ClipFrames
    from longtake.captioning.chat import CaptionerFault
    from longtake.captioning.checks import CaptionError, Status
    from longtake.curation.api import CurateResult, OpenWorkspace, curate, open
    from longtake.curation.errors import SetupError
    from longtake.curation.looking.report.clips import ClipView
    from longtake.curation.recipe import Recipe, RecipeError, load_recipe
    from longtake.filters.base import (
        Filter,
        FilterSettings,
        FilterUnavailable,
        MeasureError,
        Needs,
        Probe,
        Reduce,
        Sample,
        Score,
    )
    from longtake.filters.gates import Gate
    from longtake.manifests.lock import WorkspaceBusy
    from longtake.manifests.parts import StoreError

    __version__: str
else:  # Type checkers must not see this: to them, a module with a `__getattr__` has every attribute.

    def __getattr__(name: str) -> object:
        if name == "__version__":
            from importlib.metadata import version

            value = version("longtake")
        elif name in _HOME:
            value = getattr(import_module(_HOME[name]), name)
        else:
            raise AttributeError(f"module 'longtake' has no attribute {name!r}")
        globals()[name] = value  # The value is stored, so that Python calls this function once for each name.
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
