"""The command with a Ray of its own: what it prints, and what of its secrets Ray gets to see; and a Ray of somebody else's that
wants a token."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from longtake.captioning.permission import ALLOWED, host_of
from longtake.captioning.settings import KEY
from tests.captioning.server import Reply, Server, good
from tests.curation.stages.test_caption import Place
from tests.curation.workbench import ROOT, RunningRay, command_line, environment, family, kill_tree

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.campaign]  # Ray takes seconds to start.

SECRET = "planted-4f1c9e-secret"


def test_a_ray_of_its_own_is_quiet_and_has_secrets_in_its_environment_alone(tmp_path: Path) -> None:
    place, lines = Place(tmp_path, 6), set[str]()
    with Server(lambda ask: Reply(good(ask).text, delay=0.05)) as server, (tmp_path / "errors").open("w+") as errors:
        command = [
            "caption",
            place.workspace.path,
            "-r",
            str(place.recipe(server)),
            "--engine",
            "ray",
            "--workers",
            "1",
        ]
        process = subprocess.Popen(
            [sys.executable, "-m", "longtake", *command], cwd=ROOT, text=True, start_new_session=True,
            env={**environment(), KEY: SECRET, ALLOWED: host_of(server.url)}, stdout=subprocess.PIPE, stderr=errors,
        )  # fmt: skip
        try:
            while process.poll() is None:
                lines |= set(map(command_line, family(process)))
                time.sleep(0.2)
            output, _ = process.communicate()
        except BaseException:
            kill_tree(process)
            raise
        errors.seek(0)
        assert process.returncode == 0, output + errors.read()
        assert errors.read() == "", "Ray's own words are not for whoever runs this"
        assert "Set ray log level" not in output
        assert {ask.headers.get("Authorization") for ask in server.asked} == {f"Bearer {SECRET}"}, "the workers have it"
    assert any("MapWorker" in line for line in lines), "the worker was seen"
    assert not [line for line in lines if SECRET in line]
    # On a busy machine a Ray may be started more than once until it comes up in time.
    sessions = {found[1] for line in lines if (found := re.search(r"--session-dir=(\S+)", line))}
    logs = [path for session in sessions for path in Path(session).rglob("*") if path.is_file()]
    assert logs
    assert not [path for path in logs if SECRET.encode() in path.read_bytes()]


@pytest.mark.parametrize("token", ["another", None])
def test_a_cluster_that_wants_a_token_says_so(running_ray: RunningRay, token: str | None) -> None:
    """The suite's Ray wants one; this command has another one, or none."""
    around = {name: value for name, value in environment().items() if not name.startswith("RAY_AUTH")}
    if token is not None:
        around |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    code = f"from longtake.curation.running.on_ray import Cluster; Cluster({running_ray.address!r}).workers"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=around, timeout=240
    )
    assert done.returncode == 1
    assert "wants another token than this command has (RAY_AUTH_MODE, RAY_AUTH_TOKEN)" in done.stderr
