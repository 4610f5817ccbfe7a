"""`longtake submit`: what the cluster gets, what it would not see, and a job on a real head with Ray's dashboard."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from longtake.curation.cli.main import app
from longtake.curation.cli.submit import prepared
from longtake.curation.errors import SetupError
from longtake.curation.recipe import load_recipe
from longtake.curation.running import submitting
from longtake.curation.running.submitting import Submission
from tests.curation.workbench import free_port, ray_cluster, videos

SECRET = "X-Amz-Signature=0123456789abcdef0123456789abcdef"


def test_the_command_is_what_was_typed_on_the_cluster() -> None:
    arguments, files, workspace = prepared(["curate", "s3://b/*.mp4", "-o", "s3://b/ws", "-r", "base", "--part", "1/2"])
    assert arguments == [
        "curate",
        "s3://b/*.mp4",
        "-o",
        "s3://b/ws",
        "-r",
        "base",
        "--part",
        "1/2",
        "--address",
        "auto",
    ]
    assert (files, workspace) == ({}, "s3://b/ws")
    assert Submission(arguments, {}, {}).entrypoint.startswith("python -m longtake curate 's3://b/*.mp4' -o s3://b/ws")
    assert prepared(["longtake", "score", "/mnt/ws", "--address", "h:1"])[0] == ["score", "/mnt/ws", "--address", "h:1"]


def test_a_dashboard_that_is_gone_while_a_job_is_followed_is_said() -> None:
    pytest.importorskip("ray.job_submission")
    about = {"version": "4", "ray_version": "2.60.0", "ray_commit": ""}
    job = {"type": "SUBMISSION", "submission_id": "x", "status": "RUNNING", "entrypoint": ""}
    answers: list[dict[str, str]] = [about, about, job, {"logs": "so far\n"}]

    class Dashboard(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            data = json.dumps(answers.pop(0)).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    def serve() -> None:
        with server:
            while answers:
                server.handle_request()

    told: list[str] = []
    server = HTTPServer(("127.0.0.1", 0), Dashboard)
    threading.Thread(target=serve, daemon=True).start()
    with pytest.raises(SetupError, match="the cluster does not answer any more; the job goes on: "):
        submitting.follow("x", f"http://127.0.0.1:{server.server_port}", told.append)
    assert told == ["so far\n"]


@pytest.mark.parametrize("how", [["-r", "{}"], ["--recipe", "{}"], ["--recipe={}"], ["-r{}"]])
def test_a_recipe_file_goes_along(how: list[str], tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text(load_recipe("base").to_yaml())
    given = [word.format(mine) for word in how]
    arguments, files, _ = prepared(["curate", "s3://b/x.mp4", "-o", "s3://b/ws", *given])
    assert files == {"recipe.yaml": mine}
    assert not any(str(mine) in word for word in arguments)
    assert "recipe.yaml" in " ".join(arguments)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["curate", "films/", "-o", "s3://b/ws"], "films/ is relative to the folder that you are in"),
        (["curate", "s3://b/f.mp4", "-o", "ws"], "workspace: ws is relative"),
        (["score", "ws"], "workspace: ws is relative"),
        (["curate", f"https://b/f.mp4?{SECRET}", "-o", "s3://b/ws"], "may hold no user, password or signature"),
        (["curate", "https://me:word@b/f.mp4", "-o", "s3://b/ws"], "may hold no user, password or signature"),
        (["curate", "s3://b/f", "-o", "s3://b/ws", "--access", "/s"], "--access names a file of secrets"),
        (["curate", "s3://b/f", "-o", "s3://b/ws", "--engine", "inline"], "--engine inline runs in one process"),
    ],
)
def test_what_a_cluster_cannot_see_or_may_not_is_refused_in_a_sentence(words: list[str], said: str) -> None:
    with pytest.raises(SetupError) as caught:
        prepared(words)
    assert said in str(caught.value)
    assert "0123456789abcdef" not in str(caught.value)
    assert "word@" not in str(caught.value)


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["submit", *arguments], env={"COLUMNS": "200"})


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["stats", "s3://b/ws"], "'stats' is no command that computes"),
        (["curate", "s3://b/f", "-o", "s3://b/ws", "--nonsense"], "No such option"),
        (["curate", "s3://b/f", "-o", "s3://b/ws", "-r", "nonsense"], "nonsense"),
        (["--env", "nonsense", "curate", "s3://b/f", "-o", "s3://b/ws"], "write NAME=VALUE"),
    ],
)
def test_a_wrong_command_is_told_before_anything_is_sent(words: list[str], said: str) -> None:
    found = invoke(*words)
    assert found.exit_code in (2, 3)
    assert said in found.output


@pytest.mark.parametrize("name", ["LONGTAKE_CAPTION_KEY", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "RAY_AUTH_TOKEN"])
def test_no_secret_goes_by_the_jobs_environment(name: str) -> None:
    found = invoke("--env", f"{name}=hunter2", "curate", "s3://b/f", "-o", "s3://b/ws")
    assert found.exit_code == 3
    assert "looks like a secret" in found.output
    assert "hunter2" not in found.output
    found = invoke("--env", "STORE=https://me:hunter2@store", "curate", "s3://b/f", "-o", "s3://b/ws")
    assert found.exit_code == 3
    assert "hunter2" not in found.output
    submitting.check_environment({"LONGTAKE_MODELS": "/models", "AWS_ENDPOINT_URL": "http://store"})


def test_who_has_no_dashboard_client_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray.job_submission", None)
    found = invoke("curate", "s3://b/f", "-o", "s3://b/ws")
    assert found.exit_code == 3
    assert "pip install 'longtake[submit]'" in found.output


@pytest.mark.skipif(importlib.util.find_spec("aiohttp_cors") is None, reason="needs ray[default]")
def test_a_dashboard_that_is_not_there_is_told() -> None:
    found = invoke("--address", f"http://127.0.0.1:{free_port()}", "curate", "s3://b/f", "-o", "s3://b/ws")
    assert found.exit_code == 3
    assert "no Ray dashboard answers" in found.output


@pytest.fixture
def dashboard() -> Iterator[str]:
    """The address of a head's dashboard. Jobs run `python`, which is that of the head's environment."""
    if importlib.util.find_spec("aiohttp_cors") is None:
        pytest.skip("needs ray[default]")
    port, programs = free_port(), Path(sys.executable).parent
    with ray_cluster(2, dashboard=port, PATH=f"{programs}{os.pathsep}{os.environ['PATH']}"):
        yield f"http://127.0.0.1:{port}"


@pytest.mark.slow  # The test starts a Ray head with a dashboard.
@pytest.mark.cluster
def test_a_job_runs_on_a_real_head(dashboard: str, tmp_path: Path) -> None:
    videos(tmp_path / "films", 1)
    (tmp_path / "mine.yaml").write_text(load_recipe("explore").to_yaml())
    place = tmp_path / "workspace"
    found = invoke(
        "--address", dashboard, "--env", "LONGTAKE_ALLOW_PRIVATE=1", "--follow",
        "curate", str(tmp_path / "films"), "-r", str(tmp_path / "mine.yaml"), "-o", str(place), "--until", "scan",
    )  # fmt: skip
    assert found.exit_code == 0, found.output
    assert f"longtake status {place} --watch" in found.output
    assert "joining the Ray cluster at auto" in found.output
    assert "videos: 1 = 1 ok" in found.output
    assert (place / "recipe.yaml").exists()
