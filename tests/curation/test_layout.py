"""Who may import whom (design, section 4), and what the commands that only look do not load."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import longtake
from tests.curation.tables import fill

ROOT = Path(__file__).parents[2]
PACKAGES = ("curation", "filters", "captioning", "manifests", "presto")
MAY_KNOW: dict[str, set[str]] = {
    "filters": set(),
    "captioning": set(),
    "manifests": set(),
    "presto": {"manifests"},
    "curation": {"filters", "captioning", "manifests"},
}
# The captioner speaks of the same motion that the filter measures, and samples are measured as clips were.
EXCEPT = {("captioning/motion.py", f"longtake.filters.{name}") for name in ("flow_dis", "global_motion")} | {
    ("presto/perception.py", f"longtake.filters.{name}")
    for name in (
        "aesthetic",
        "base",
        "batches",
        "flow_dis",
        "flow_learned",
        "flow_raft",
        "flow_unimatch",
        "lpips",
        "weights",
    )
}
# The trainer expands a prompt through the captioner's client, so that one rule says where a key may go.
EXCEPT |= {
    ("presto/expand.py", f"longtake.captioning.{name}") for name in ("chat", "endpoint", "permission", "settings")
}
# The trainer encodes on the engine that curates, so that one rule says which process is killed and which item is blamed.
EXCEPT |= {("presto/launch.py", f"longtake.curation.{name}") for name in ("errors", "running.jobs", "running.on_ray")}
DOOR = "longtake.manifests.folder"  # All modules reach a folder, local or remote, through this one module.
HEAVY = {
    "torch",
    "torchvision",
    "transformers",
    "sentence_transformers",
    "onnxruntime",
    "rapidocr",
    "open_clip",
    "lpips",
}


def imports(path: Path, *, only_at_import: bool = False) -> Iterator[tuple[int, str]]:
    """(line, module) of each import in a file; only_at_import: not those inside of functions or for type checkers."""
    todo: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while todo:
        node = todo.pop()
        if only_at_import and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if only_at_import and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            todo.extend(node.orelse)
            continue
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute here"
            if node.module == "longtake":  # A public name belongs to the module that defines it.
                homes = (longtake._HOME.get(alias.name, f"longtake.{alias.name}") for alias in node.names)
                yield from ((node.lineno, home) for home in homes)
            else:
                yield node.lineno, node.module or ""
        todo.extend(ast.iter_child_nodes(node))


def room(module: str) -> str:
    """The sub-package of `longtake` that a module belongs to; of another module, its top package."""
    return module.removeprefix("longtake.").split(".")[0]


def sources(package: str) -> list[Path]:
    found = sorted((ROOT / package).rglob("*.py"))
    assert found, package
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_know_only_whom_they_may(package: str) -> None:
    faults = [
        f"{path.relative_to(ROOT)}:{line} imports {module}"
        for path in sources(package)
        for line, module in imports(path)
        if room(module) in {*PACKAGES, "tests", "benchmarks"} - {package} - MAY_KNOW[package]
        and (path.relative_to(ROOT).as_posix(), module) not in EXCEPT
        and module != DOOR
    ]
    assert not faults


def modules() -> dict[str, Path]:
    """Every module of the five packages, by the name that others import it by; a package itself is its __init__."""
    return {
        ".".join(("longtake", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): path
        for package in PACKAGES
        for path in sources(package)
    }


def module_imports(known: Mapping[str, Path]) -> dict[str, set[str]]:
    """Which others of the known modules each of them imports, anywhere in its file. `from a import b` is an import of a.b
    where that is a module. That Python also runs the packages around a module is left out: every module does that."""
    graph: dict[str, set[str]] = {}
    for name, path in known.items():
        graph[name] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                graph[name] |= {alias.name for alias in node.names} & known.keys()
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    inner = f"{node.module}.{alias.name}"
                    graph[name] |= {inner if inner in known else node.module or ""} & known.keys()
        graph[name].discard(name)
    return graph


def circle(graph: Mapping[str, set[str]]) -> list[str]:
    """Modules of which each is imported by the next, the first one again at the end; none where there is no circle."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Imports inside of functions and for type checkers count: what is read together should lie together."""
    graph = module_imports(modules())
    # The assertion makes sure that imports were found.
    assert "longtake.curation.recipe" in graph["longtake.curation.looking.report.page"]
    assert not circle(graph), " ← ".join(circle(graph))


def test_a_circle_is_found(tmp_path: Path) -> None:
    files = {
        "a": "from longtake import b",
        "b": "def f():\n    import longtake.c",
        "c": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from longtake.a import A",
        "d": "from longtake.a import A",
    }
    for name, text in files.items():
        (tmp_path / f"{name}.py").write_text(text)
    graph = module_imports({f"longtake.{name}": tmp_path / f"{name}.py" for name in files})
    found = circle(graph)
    assert found[0] == found[-1]
    assert set(found) == {"longtake.a", "longtake.b", "longtake.c"}
    assert not circle({name: imported - {"longtake.c"} for name, imported in graph.items()})


def test_ray_is_imported_where_work_is_run() -> None:
    users = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in sources(package)
        for _, module in imports(path)
        if module.split(".")[0] == "ray"
    }
    running = {f"curation/running/{name}.py" for name in ("at_work", "on_ray", "shared", "streaming", "submitting")}
    assert users == {*running, "presto/launch.py"}


def test_heavy_imports_are_late() -> None:
    faults = [
        f"{path.relative_to(ROOT)}:{line} imports {module}"
        for package in ("curation", "filters", "captioning", "manifests")
        for path in sources(package)
        for line, module in imports(path, only_at_import=True)
        if module.split(".")[0] in {*HEAVY, "ray"}
        # These modules are useless without torch and Ray, and are imported late themselves.
        and path.relative_to(ROOT).as_posix()
        not in ("filters/unimatch.py", "curation/running/at_work.py", "curation/running/streaming.py")
    ]
    assert not faults


def test_every_module_says_what_it_is_for() -> None:
    for package in PACKAGES:
        for path in sources(package):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            assert not tree.body or ast.get_docstring(tree), path


LOADED = """
import contextlib, io, json, sys
from longtake.curation.cli.main import app
out = io.StringIO()
with contextlib.redirect_stdout(out):
    try:
        app(json.loads(sys.argv[1]))
    except SystemExit as end:
        assert not end.code, end.code
assert out.getvalue()
print(json.dumps(sorted({name.split(".")[0] for name in sys.modules})))
"""


def loaded(*arguments: str) -> set[str]:
    """The packages that a command has loaded when it ends."""
    done = subprocess.run(
        [sys.executable, "-c", LOADED, json.dumps(arguments)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_help_loads_nothing_that_takes_time() -> None:
    assert not loaded("--help") & {
        *HEAVY,
        "ray",
        "cv2",
        "av",
        "skimage",
        "pandas",
        "numpy",
        "pyarrow",
        "scenedetect",
        "jinja2",
    }


def test_looking_loads_no_model_no_ray_no_video(tmp_path: Path) -> None:
    workspace = fill(tmp_path / "workspace").path
    unwanted = {*HEAVY, "ray", "av", "cv2", "skimage", "pandas", "scenedetect", "duckdb", "scipy", "jinja2"}
    for command in (["stats", workspace, "--json"], ["show", "aaaa", "-o", workspace], ["tiers", workspace]):
        assert not loaded(*command) & unwanted, command


def test_the_architecture_page_lists_the_modules_that_there_are() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    listed = page.partition("<!-- layout -->")[2].partition("<!-- end of layout -->")[0]
    named: set[str] = set()
    for entry in re.split(r"\n {4}(?=\S)", listed):  # A folder at the top, and the text about it.
        top = entry.split("/")[0].strip()
        for part in re.split(r"\n {6}(?=\S)", entry):
            told = re.match(r"(\w+)/ ", part.strip()) if not part.strip().startswith(f"{top}/") else None
            folder = f"{top}/{told[1]}" if told else top
            for inner, names in re.findall(r"(?:(\w+)/ \(([^)]*)\))", part):
                named |= {f"{folder}/{inner}/{name}" for name in re.findall(r"\w+\.py", names)}
            rest = re.sub(r"\w+/ \((?:[^)]*)\)", "", part)
            named |= {f"{folder}/{name}" for name in re.findall(r"(?<![\w/])\w+\.py", rest)}
    there = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in sources(package)
        if package != "presto" and path.name != "__init__.py"
    }
    assert named == there, f"not listed: {sorted(there - named)}; not there: {sorted(named - there)}"
