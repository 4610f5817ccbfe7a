"""The files of `deploy/`, as far as they can be checked without a cluster: each is read by who reads it, and each command of ours
in it is one that the command line knows."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import jsonschema
import pytest
import typer
import yaml

from longtake.curation.cli.main import app
from longtake.curation.cli.submit import prepared
from longtake.curation.recipe import Scan, shipped
from tests.deploy.kuberay import FIELDS

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
FILES = sorted(path for path in DEPLOY.iterdir() if path.is_file())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
IMAGE = f"longtake:{PROJECT['version']}"
RAY = re.search(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.M)[1]  # type: ignore[index]
GROUPS = {"cpu", "spot", "gpu"}


def text(name: str) -> str:
    return (DEPLOY / name).read_text(encoding="utf-8")


def parsed(words: list[str]) -> dict[str, Any]:
    """What the command line makes of `longtake …`, without running it. Raises click.ClickException."""
    assert words[0] == "longtake"
    command: click.Command = typer.main.get_command(app).commands[words[1]]  # type: ignore[attr-defined]
    found = command.make_context(words[1], words[2:]).params
    if words[1] == "submit":
        prepared_words = [word if word != "mine.yaml" else "base" for word in found["words"]]
        prepared(prepared_words)
    return found


def told(name: str) -> list[list[str]]:
    """The commands of ours in the comments of a file."""
    lines = [line.lstrip("#").strip() for line in text(name).splitlines() if re.match(r"#\s{3,}longtake ", line)]
    return [shlex.split(line, comments=True) for line in lines]


def test_all_that_is_there_is_checked_here() -> None:
    assert [path.name for path in FILES] == [
        "Containerfile", "presto.slurm.sh", "ray-cluster.yaml", "rayjob.yaml", "slurm.sh",
    ]  # fmt: skip


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_registry_no_machine_and_no_secret(path: Path) -> None:
    content = path.read_text(encoding="utf-8")
    assert not re.findall(r"https?://|--index|docker\.io|ghcr\.io|/root\b|/tmp/", content)
    assert not re.findall(
        r"(?i)AKIA[0-9A-Z]{16}|(?:key|secret|token|password)\s*[:=]\s*['\"]?[A-Za-z0-9/+]{16,}", content
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_commands_in_comments_are_known(path: Path) -> None:
    for words in told(path.name):
        parsed(words)


def test_comments_tell_commands() -> None:
    assert [len(told(name)) for name in ("rayjob.yaml", "ray-cluster.yaml", "slurm.sh")] == [1, 2, 1]


# ── the image ────────────────────────────────────────────────────────────────────────────────────────────────────────


def instructions() -> list[tuple[str, str]]:
    joined = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", text("Containerfile"), flags=re.M))
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line)]


def test_the_image_is_built_of_what_is_there_at_pinned_versions() -> None:
    lines = instructions()
    assert lines[0][0] == "FROM"
    assert re.fullmatch(r"python:3\.1\d-slim-bookworm", lines[0][1])
    copied = [word for kind, rest in lines if kind == "COPY" for word in rest.split()[:-1]]
    assert all((ROOT / name).exists() for name in copied)
    # The files that `pip install .` needs: the five packages whose links lie in src, and those that pyproject.toml
    # reads.
    packages = {path.name for path in (ROOT / "src" / "longtake").iterdir() if path.is_symlink()}
    assert {*packages, "src", "pyproject.toml", "constraints.txt", PROJECT["readme"], "LICENSE"} == set(copied)
    (install,) = (rest for kind, rest in lines if kind == "RUN" and "pip install" in rest)
    assert "--constraint constraints.txt" in install
    (extras,) = (rest.removeprefix("EXTRAS=") for kind, rest in lines if kind == "ARG")
    assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])
    assert {"remote", "submit"} <= set(extras.split(","))
    assert [rest for kind, rest in lines if kind == "USER"] == ["ray"]
    parsed([*json.loads(dict(lines)["CMD"])[:1], "stats", "workspace"])


def test_the_images_shell_is_shell() -> None:
    for kind, rest in instructions():
        if kind == "RUN":
            subprocess.run(["bash", "-n"], input=rest, text=True, check=True)


# ── KubeRay ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def job() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(text("rayjob.yaml"))
    return found


def unknown(place: str, given: Mapping[str, Any]) -> set[str]:
    return set(given) - set(FIELDS[place].split())


def pods(spec: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    groups = {group["groupName"]: group["template"]["spec"] for group in spec["workerGroupSpecs"]}
    return {"head": spec["headGroupSpec"]["template"]["spec"], **groups}


def test_the_ray_job_names_fields_that_kuberay_publishes(job: dict[str, Any]) -> None:
    assert (job["apiVersion"], job["kind"], set(job)) == (
        "ray.io/v1", "RayJob", {"apiVersion", "kind", "metadata", "spec"},
    )  # fmt: skip
    spec = job["spec"]
    cluster = spec["rayClusterSpec"]
    assert not unknown("", spec)
    assert not unknown("rayClusterSpec", cluster)
    assert not unknown("rayClusterSpec.autoscalerOptions", cluster["autoscalerOptions"])
    assert not unknown("rayClusterSpec.headGroupSpec", cluster["headGroupSpec"])
    for group in cluster["workerGroupSpecs"]:
        assert not unknown("rayClusterSpec.workerGroupSpecs", group)
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
    for pod in pods(cluster).values():
        assert not unknown("pod", pod)
        for container in pod["containers"]:
            assert not unknown("container", container)


def test_the_ray_job_has_its_groups_and_one_image(job: dict[str, Any]) -> None:
    cluster = job["spec"]["rayClusterSpec"]
    found = pods(cluster)
    assert set(found) == {"head", *GROUPS}
    for name, pod in found.items():
        (container,) = pod["containers"]
        assert container["image"] == IMAGE
        limits = container["resources"]["limits"]
        assert limits == container["resources"]["requests"], "a pod that is given less than it reckons with is killed"
        assert ("nvidia.com/gpu" in limits) == (name == "gpu")
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
        assert container["envFrom"] == [{"secretRef": {"name": "longtake"}}]
        assert not any(re.search("KEY|TOKEN|SECRET", one["name"]) for one in container["env"])
        if name in ("cpu", "spot"):
            room = int(limits["memory"].removesuffix("Gi")) * 1024 / int(limits["cpu"])
            assert room >= Scan().memory_limit_mib, "a worker of scan for each core"
    assert cluster["rayVersion"] == RAY
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert cluster["enableInTreeAutoscaling"] is True
    assert "nodeSelector" in found["spot"]


def test_the_ray_jobs_command_is_ours(job: dict[str, Any]) -> None:
    found = parsed(shlex.split(job["spec"]["entrypoint"]))
    assert found["address"] == "auto"
    assert found["videos"] == ["s3://my-bucket/films/**/*.mp4"]
    mounts = pods(job["spec"]["rayClusterSpec"])["head"]["containers"][0]["volumeMounts"]
    assert any(found["recipe"].startswith(mount["mountPath"]) for mount in mounts)
    assert job["spec"]["submissionMode"] == "K8sJobMode"


# ── Ray's launcher ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_rays_own_schema_takes_the_cluster() -> None:
    import ray

    found = yaml.safe_load(text("ray-cluster.yaml"))
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft7Validator(schema).validate(found)
    types = found["available_node_types"]
    assert set(types) == {"head", *GROUPS}
    assert found["head_node_type"] == "head"
    assert types["head"]["resources"] == {"CPU": 0}
    assert types["spot"]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert all(one.get("min_workers", 0) <= one.get("max_workers", 0) for one in types.values())
    assert sum(one.get("max_workers", 0) for one in types.values()) >= found["max_workers"]
    assert found["docker"]["image"] == IMAGE


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray's command line loads Ray Serve, which warns.
def test_ray_start_knows_the_options_of_the_cluster() -> None:
    from ray.scripts.scripts import cli

    found = yaml.safe_load(text("ray-cluster.yaml"))
    options = {name for param in cli.commands["start"].params for name in param.opts}
    for line in [*found["head_start_ray_commands"], *found["worker_start_ray_commands"]]:
        subprocess.run(["bash", "-n"], input=line, text=True, check=True)
        used = set(re.findall(r"(--[a-z-]+)", line.partition("ray start")[2]))
        assert used <= options, line


# ── Slurm ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "name", ["slurm.sh", "presto.slurm.sh"]
)  # `tests/presto/test_launch.py` checks more of the second script.
def test_a_slurm_script_is_shell(name: str) -> None:
    subprocess.run(["bash", "-n", str(DEPLOY / name)], check=True)
    assert os.access(DEPLOY / name, os.X_OK)
    checker = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert checker, "shellcheck comes with the extra `dev`"
    done = subprocess.run(
        [checker, "--severity=warning", str(DEPLOY / name)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_its_parts_are_those_of_its_array() -> None:
    script = text("slurm.sh")
    directives = dict(line.split("=", 1) for line in re.findall(r"^#SBATCH --(\S+=\S+)$", script, re.M))
    parts = re.search(r"^PARTS=\$\{PARTS:-(\d+)\}$", script, re.M)
    assert parts
    assert directives["array"] == f"1-{parts[1]}"
    assert int(directives["mem"].removesuffix("G")) * 1024 >= int(directives["cpus-per-task"]) * Scan().memory_limit_mib


@pytest.mark.parametrize(("task", "part"), [("1", (1, 64)), ("64", (64, 64)), ("0", None), (None, None)])
def test_the_slurm_scripts_command_is_ours(task: str | None, part: tuple[int, int] | None, tmp_path: Path) -> None:
    """The script itself runs, with a `longtake` that writes down what it was called with."""
    (tmp_path / "longtake").write_text('#!/bin/sh\nprintf "%s\\0" longtake "$@"\n')
    (tmp_path / "longtake").chmod(0o755)
    around = {
        "PATH": f"{tmp_path}:/usr/bin:/bin", "VIDEOS": "/shared/a film", "RECIPE": "base", "WORKSPACE": "s3://b/w",
        "SLURM_CPUS_PER_TASK": "16", **({"SLURM_ARRAY_TASK_ID": task} if task else {}),
    }  # fmt: skip
    done = subprocess.run([str(DEPLOY / "slurm.sh")], env=around, capture_output=True, text=True, check=True)
    found = parsed(done.stdout.split("\0")[:-1])
    assert (found["part"], found["workers"], found["videos"]) == (part, 16, ["/shared/a film"])
    assert (found["recipe"], found["output"]) == ("base", "s3://b/w")


def test_the_slurm_script_says_what_it_lacks() -> None:
    around = {"PATH": "/usr/bin:/bin", "VIDEOS": "/films"}
    done = subprocess.run([str(DEPLOY / "slurm.sh")], env=around, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "RECIPE: a recipe that ships" in done.stderr
    assert "base" in shipped()
