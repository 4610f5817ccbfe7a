"""What runs the checks (workflows, `.ci`, the Makefile) names only what there is."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([a-z0-9-]+):", MAKEFILE, re.MULTILINE))
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
SCRIPTS = sorted((ROOT / ".ci").iterdir())
ACTIONS = {"actions/checkout", "actions/setup-python"}


def jobs(path: Path) -> dict[str, Any]:
    """The jobs of a workflow by name."""
    found: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]
    return found


def runs(path: Path) -> list[str]:
    """The shell commands of a workflow, line by line."""
    steps = [step for job in jobs(path).values() for step in job["steps"]]
    return [line.strip() for step in steps for line in step.get("run", "").splitlines()]


def test_there_are_workflows() -> None:
    assert {path.name for path in WORKFLOWS} == {"ci.yml", "nightly.yml"}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_runs_targets_of_the_makefile(path: Path) -> None:
    assert runs(path)
    for line in runs(path):
        program, *arguments = line.split()
        assert program == "make", line
        targets = {word for word in arguments if "=" not in word}
        assert targets, line
        assert targets <= TARGETS, line
    for job in jobs(path).values():
        assert job["timeout-minutes"] <= 60
        assert {step["uses"].partition("@")[0] for step in job["steps"] if "uses" in step} == ACTIONS


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_names_no_registry_and_no_machine(path: Path) -> None:
    assert not re.findall(r"https?://|--index|(?:^|[\s\"'=])/[a-z]", path.read_text(encoding="utf-8"))


def test_every_change_is_linted_typed_documented_tested_and_packed() -> None:
    found = jobs(ROOT / ".github" / "workflows" / "ci.yml")
    told = set(runs(ROOT / ".github" / "workflows" / "ci.yml"))
    assert told == {"make lint", "make docs", "make test", "make wheel-test"}
    lint = re.search(r"^lint:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)
    assert lint
    assert [word for word in ("ruff check", "ruff format --check", "mypy") if word not in lint[1]] == []
    versions = found["tests"]["strategy"]["matrix"]["python"]
    assert versions == ["3.11", "3.12", "3.13", "3.14"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["requires-python"] == f">={versions[0]}"


def test_the_site_is_what_make_docs_builds() -> None:
    docs = re.search(r"^docs:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)
    assert docs
    assert 'docs.site "$(SITE)"' in docs[1]


def test_slow_tests_run_each_night() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "nightly.yml").read_text(encoding="utf-8"))
    assert "schedule" in workflow[True]  # YAML 1.1 reads the key `on` as true.
    assert runs(ROOT / ".github" / "workflows" / "nightly.yml") == [
        "make test-slow", "make test-campaign", "make properties",
    ]  # fmt: skip


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_script_can_be_run_and_runs_targets_of_the_makefile(path: Path) -> None:
    assert os.access(path, os.X_OK)
    subprocess.run(["bash", "-n", str(path)], check=True)
    text = path.read_text(encoding="utf-8")
    assert "set -euo pipefail" in text
    assert {*re.findall(r"^make ([a-z-]+)", text, re.MULTILINE)} <= TARGETS


def test_a_submission_passes_all_checks() -> None:
    text = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert re.findall(r"^make ([a-z-]+)", text, re.MULTILINE) == ["lint", "docs", "test", "test-slow"]
    assert "--durations=25" in text


MARKED = {
    "test": '-m "not slow"', "test-slow": '-m "slow and not campaign"', "test-campaign": "-m campaign", "test-all": "",
}  # fmt: skip


def test_every_target_is_declared_and_can_be_expanded() -> None:
    phony = re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    assert phony
    assert set(phony[1].split()) == TARGETS
    if not shutil.which("make"):
        pytest.skip("no make here")
    for target in ("test", "test-slow", "test-campaign", "test-all"):
        done = subprocess.run(
            ["make", "--dry-run", "--silent", target, f"VENV={sys.prefix}", f"--old-file={sys.prefix}/.ready"],
            cwd=ROOT, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert "-m pytest" in done.stdout
        assert MARKED[target] in done.stdout


def test_the_pins_with_hashes_are_the_pins_of_the_tests() -> None:
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").split())
    text = (ROOT / "constraints-hashed.txt").read_text(encoding="utf-8")
    hashed = {
        name: (version, set(re.findall(r"sha256:[0-9a-f]{64}\b", hashes)))
        for name, version, hashes in re.findall(r"^([\w.-]+)==(\S+) \\\n((?:    .*\n?)+)", text, re.MULTILINE)
    }
    assert len(hashed) == text.count("==") > 200
    assert all(hashes for _, hashes in hashed.values())
    assert {name: version for name, (version, _) in hashed.items() if name in pins} | {"tzdata": pins["tzdata"]} == pins
    assert set(hashed) - set(pins) == {"setuptools", "tomli"}  # The tests take these two in any version.
    assert "//" not in text
