"""Fingerprints of the code that measures, beside the protocol under which its scores are stored.

A stored score is used as long as its protocol is the wanted one. So whoever changes what a score means has to change the
protocol, and this table notices who forgot: `fingerprints.toml` holds, for each thing that is measured, its protocol and a
hash of every module that its values depend on. `test_protocols.py` compares; when it fails, either

- the values changed: raise `version` of the filter's class (or METHOD in artifacts.py, SAMPLE_VERSION or CROPPING in
  curation/recipe.py, the number in the captioner's protocol), or
- they did not: only then accept the new code as it is.

In both cases `python -m tests.filters.accept_fingerprints` writes the table anew. A fingerprint is of the syntax tree without
what cannot change a value: comments, docstrings, annotations, imports, messages of exceptions, descriptions of settings, the
stated cost and unit. What is only plumbing (registry, gates, batching, where weights lie) is in no fingerprint.
"""

from __future__ import annotations

import ast
import hashlib
import sys
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch

from longtake.captioning.descriptors import Descriptors
from longtake.curation import recipe
from longtake.curation.reading import shot_network
from longtake.filters.base import Filter
from longtake.filters.registry import BUILT_IN, build, filter_class

ROOT = Path(__file__).parents[2]
TABLE = Path(__file__).with_name("fingerprints.toml")
# Modules in which nothing is measured, and of some the functions that do bear on values all the same.
PLUMBING: dict[str, tuple[str, ...]] = {
    "filters/base.py": ("reduce_detail",),
    "filters/batches.py": ("inference",),
    "filters/registry.py": (),
    "filters/weights.py": (),
    "filters/gates.py": (),
    "filters/verdicts.py": (),
    "captioning/base.py": (),
    "captioning/checks.py": ("normalised",),
}
# Modules that make the pictures for all filters of samples and stored frames, and decide where clips begin and end.
READING = tuple(
    f"curation/reading/{name}.py"
    for name in (
        "acceptance",
        "colour",
        "combs",
        "cuts",
        "damage",
        "decoding",
        "fragments",
        "holes",
        "listed",
        "motion",
        "one_pass",
        "opening",
        "orientation",
        "paff",
        "pictures",
        "pieces",
        "progressive",
        "samples",
        "sampling",
        "scan_video",
        "scenedetect_cuts",
        "seams",
        "seeking",
        "shots",
        "timeline",
        "transnet_cuts",
        "video",
    )
)
# These modules are what our own detector of cuts goes by; its network has a hash of its own.
CUTS = tuple(
    f"curation/reading/{name}.py"
    for name in (
        "bars",
        "camera_moves",
        "fades",
        "grounds",
        "jerks",
        "likeness",
        "network_cuts",
        "passers",
        "pushes",
        "shot_network",
        "stills",
    )
)
# These modules decide which part of a picture is kept where a recipe cuts borders away.
CROPPING = tuple(f"curation/reading/{name}.py" for name in ("box", "cropping", "native"))
# In protocols stand hashes of files of this machine: they say which weights, and nothing of the code.
HASHES = ("weight_tag", "model_hash", "_heads_hash", "_weights_hash", "_configs_hash")
UNMEASURED = {"cost", "unit", "description"}


@dataclass(frozen=True)
class Measured:
    """Something whose values are stored: the protocol that tells them apart, and a fingerprint per module."""

    protocol: str
    modules: dict[str, str]


def current() -> dict[str, Measured]:
    """Every built-in filter, clips and their samples, and the captions that are made of measurements; as the code is."""
    for name, backends in BUILT_IN.items():
        for backend in backends:
            filter_class(name, backend)  # A module that is imported later would keep a stand-in for ever.
    with ExitStack() as stack:
        for path in (ROOT / "filters").glob("*.py"):
            for name in HASHES:
                if f"def {name}(" in path.read_text(encoding="utf-8"):
                    _everywhere(stack, f"longtake.filters.{path.stem}", name)
        stack.enter_context(patch("longtake.filters.text_similarity._model_folder", lambda path: Path("folder")))
        stack.enter_context(patch("longtake.filters.ask._nobody", lambda: "model"))
        found = {
            f"{name}.{backend}": Measured(build(name, {"backend": backend}).protocol, _modules(_files(name, backend)))
            for name, backends in BUILT_IN.items()
            for backend in backends
        }
    found["clips"] = Measured(f"version {recipe.SAMPLE_VERSION}", _modules(READING))
    found["cuts"] = Measured(f"rules {shot_network.RULES}", _modules(CUTS))
    found["crop"] = Measured(recipe.CROPPING, _modules(CROPPING))
    texts = _closure([f"captioning/{name}.py" for name in ("descriptors", "looks", "motion")])
    found["captions.descriptors"] = Measured(Descriptors().protocol, _modules(texts))
    return found


def stored() -> dict[str, Measured]:
    """As they were when somebody last looked."""
    table = tomllib.loads(TABLE.read_text(encoding="utf-8")) if TABLE.exists() else {}
    hashes = table.get("modules", {})
    return {
        name: Measured(entry["protocol"], {module: hashes.get(module, "") for module in entry["modules"]})
        for name, entry in table.get("measured", {}).items()
    }


def forgotten(old: dict[str, Measured], new: dict[str, Measured]) -> dict[str, list[str]]:
    """What is still measured under its old protocol though modules have changed: name → those modules."""
    changed: dict[str, list[str]] = {}
    for name, now in new.items():
        before = old.get(name)
        if before is not None and before.protocol == now.protocol and before.modules != now.modules:
            both = {*before.modules, *now.modules}
            changed[name] = sorted(path for path in both if before.modules.get(path) != now.modules.get(path))
    return changed


def fingerprint(path: str, only: tuple[str, ...] | None = None) -> str:
    """Of a module below the repository's root; only: of these functions of it."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    nodes = tree.body if only is None else [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name in only]
    assert only is None or len(nodes) == len(only), f"{path} has no more all of {only}: mend PLUMBING"
    return fingerprint_of(nodes)


def fingerprint_of(nodes: list[ast.stmt]) -> str:
    return hashlib.sha256(repr(_bare(nodes)).encode()).hexdigest()[:12]


def _bare(node: object) -> object:
    """A syntax tree as nested tuples, without what cannot change a value. Written out here, since `ast.dump` gives another
    text in each version of Python."""
    if isinstance(node, list):
        return [bare for each in node if (bare := _bare(each)) is not None]
    if not isinstance(node, ast.AST):
        return node
    if isinstance(node, ast.Import | ast.ImportFrom | ast.Pass):
        return None
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):  # A docstring measures nothing.
        return None
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return None
    if isinstance(node, ast.AnnAssign):
        if node.value is None:
            return None
        return _bare(ast.Assign([node.target], node.value))
    if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id in UNMEASURED for t in node.targets):
        return None
    if isinstance(node, ast.Raise):
        return "Raise"
    if isinstance(node, ast.keyword) and node.arg in UNMEASURED:
        return None
    left_out = {"annotation", "returns", "type_params", "type_comment", "ctx", "kind"}
    fields = [(name, _bare(value)) for name, value in ast.iter_fields(node) if name not in left_out]
    return type(node).__name__, [(name, value) for name, value in fields if value not in (None, [])]


def _files(name: str, backend: str) -> list[str]:
    """The modules that a filter's values depend on: those of its classes, and what they import of ours."""
    classes = [cls for cls in filter_class(name, backend).__mro__ if issubclass(cls, Filter)]
    return _closure([_path(cls.__module__) for cls in classes])


def _closure(paths: list[str]) -> list[str]:
    found: list[str] = []
    left = list(paths)
    while left:
        path = left.pop(0)
        if path in found:
            continue
        found.append(path)
        if path not in PLUMBING:
            left += _imported(path)
    return found


def _imported(path: str) -> Iterator[str]:
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or not node.module:
            continue
        if node.module in ("longtake.filters", "longtake.captioning"):
            yield from (_path(f"{node.module}.{alias.name}") for alias in node.names)
        elif node.module.startswith(("longtake.filters.", "longtake.captioning.")):
            yield _path(node.module)


def _path(module: str) -> str:
    return module.removeprefix("longtake.").replace(".", "/") + ".py"


def _modules(paths: list[str] | tuple[str, ...]) -> dict[str, str]:
    """Path → fingerprint, sorted; of plumbing only what bears on values."""
    return {path: fingerprint(path, PLUMBING.get(path)) for path in sorted(paths) if PLUMBING.get(path, True)}


def _everywhere(stack: ExitStack, module: str, name: str) -> None:
    """Replace a function in its module, and where others have imported it."""
    original = getattr(import_module(module), name)
    stand_in: Any = lambda *_: "…"  # noqa: E731
    for other in [m for key, m in sys.modules.items() if key.startswith("longtake.filters")]:
        if getattr(other, name, None) is original:
            stack.enter_context(patch.object(other, name, stand_in))


def text(found: dict[str, Measured]) -> str:
    """The table."""
    hashes = {path: value for measured in found.values() for path, value in measured.modules.items()}
    lines = [
        "# Written by `python -m tests.filters.accept_fingerprints`; what it is for stands there.",
        "",
        "[modules]",
        *(f'"{path}" = "{hashes[path]}"' for path in sorted(hashes)),
    ]
    for name, measured in found.items():
        paths = "".join(f'    "{path}",\n' for path in measured.modules)
        lines += ["", f'[measured."{name}"]', f'protocol = "{measured.protocol}"', f"modules = [\n{paths}]"]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Accept the code as it is: write the table."""
    found = current()
    for name, modules in forgotten(stored(), found).items():
        print(f"{name} keeps its protocol; changed: {', '.join(modules)}")
    TABLE.write_text(text(found), encoding="utf-8")
    print(f"written: {TABLE}")


if __name__ == "__main__":
    main()
