"""The stage caption, from stored frames to rows, against a scripted endpoint: what is paid, what is kept, what is killed."""

from __future__ import annotations

import itertools
import json
import pickle
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from longtake.captioning import endpoint
from longtake.captioning.endpoint import Endpoint
from longtake.captioning.quality import Standards, measured_quality
from longtake.captioning.settings import KEY as KEY_VARIABLE
from longtake.curation.cli.main import app
from longtake.curation.clip_table import rows_table
from longtake.curation.reading.samples import store_sample
from longtake.curation.recipe import load_recipe, parse_recipe
from longtake.curation.running.jobs import Job
from longtake.curation.stages.caption import CaptionWorker, plan, texts_and_pictures
from longtake.curation.workspace import Workspace
from longtake.filters.alignment import Alignment
from longtake.filters.base import Sample, Score
from longtake.manifests import schemas
from longtake.manifests.frames import frames_writer
from tests.captioning.frames import TIMES
from tests.captioning.server import Ask, Reply, Server, good, picture, story, told
from tests.curation.workbench import ROOT, RunningRay, environment, kill_driver, wait_for

KEY = "sk-test-77aa0c51b3"
PER_VIDEO = 4

RECIPE: dict[str, Any] = {
    "name": "told",
    "filters": {"grayscale": {}},
    "tiers": {"pretrain": {"grayscale": "[0, 255]"}},
    "captioning": {"captioner": "openai", "settings": {"model": "tiny", "concurrency": 8, "method": "stepwise"}},
}


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "FIRST_PAUSE", 0.01)
    for name in (endpoint.ENDPOINT, endpoint.MODEL, endpoint.KEY, endpoint.KEY_FILE):
        monkeypatch.delenv(name, raising=False)


class Place:
    """A workspace with scanned clips, whose pictures hold their numbers."""

    def __init__(self, folder: Path, count: int) -> None:
        self.folder, self.count = folder, count
        self.workspace = Workspace(str(folder / "workspace"))
        protocols = json.dumps({"grayscale": parse_recipe(RECIPE, "").built["grayscale"].protocol})
        rows, videos = [], {f"{n // PER_VIDEO:032x}" for n in range(count)}
        for video in sorted(videos):
            with frames_writer(self.workspace.path, video) as frames:
                for number in range(int(video, 16) * PER_VIDEO, min(count, (int(video, 16) + 1) * PER_VIDEO)):
                    pictures = np.stack([picture(number, part) for part in range(5)])
                    frames.write(store_sample(self.clip_id(number), Sample(pictures, pictures, TIMES, TIMES + 0.5), 92))
                    rows.append(
                        {
                            "clip_id": self.clip_id(number), "video_id": video, "uri": f"/films/{video}.mp4",
                            "start": 15.0 * number, "end": 15.0 * number + 15, "status": "ok", "has_frames": True,
                            "scan_id": f"of {video}", "grayscale": 100.0, "grayscale_detail": [100.0], "protocols": protocols,
                        }
                    )  # fmt: skip
        self.workspace.clips.append(rows_table(rows, schemas.CLIPS, ["grayscale"]))
        known = [
            {"video_id": v, "uri": f"/films/{v}.mp4", "status": "ok", "scan_id": f"of {v}"} for v in sorted(videos)
        ]
        self.workspace.videos.append(pa.Table.from_pylist(known, schema=schemas.VIDEOS))
        self.workspace.inputs.append(pa.Table.from_pylist(known, schema=schemas.INPUTS))

    @staticmethod
    def clip_id(number: int) -> str:
        return f"{number * 2654435761 % 2**32:08x}{number:024x}"

    def recipe(self, server: Server | None, **changes: Any) -> Path:
        plain = json.loads(json.dumps(RECIPE))
        plain["captioning"]["settings"] |= {"endpoint": server.url} if server else {}
        for key, value in changes.items():
            if key in ("max_copies", "captioner"):
                plain["captioning"][key] = value
            elif key in plain:
                plain[key] = {**plain[key], **value}
            else:
                plain["captioning"]["settings"][key] = value
        path = self.folder / "recipe.yaml"
        path.write_text(yaml.safe_dump(plain))
        return path

    def run(self, recipe: Path, *arguments: str, code: int = 0, how: str = "--engine=inline") -> str:
        command = ["caption", self.workspace.path, "-r", str(recipe), how, *arguments]
        result: Result = CliRunner().invoke(app, command, env={"COLUMNS": "200"})
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        return result.output

    def lose(self, video: int) -> None:
        """A film is gone from its folder, as a run that reads the folder again stores it."""
        row = {
            "video_id": f"{video:032x}",
            "uri": f"/films/{video:032x}.mp4",
            "status": "error",
            "scan_id": f"of {video:032x}",
        }
        gone = [row | {"error_kind": "removed", "error": "gone"}]
        self.workspace.videos.append(pa.Table.from_pylist(gone, schema=schemas.VIDEOS))

    def rows(self) -> pd.DataFrame:
        """The captions as any stranger reads them, by the clip's number."""
        table = pd.read_parquet(Path(self.workspace.path) / "captions")
        assert table["clip_id"].is_unique
        return table.set_index(table["clip_id"].str[8:].map(lambda digits: int(digits, 16))).sort_index()


@pytest.fixture(
    params=[
        "inline",
        pytest.param("on the suite's Ray", marks=[pytest.mark.cluster, pytest.mark.slow, pytest.mark.campaign]),
        pytest.param("on a Ray of its own", marks=[pytest.mark.cluster, pytest.mark.slow, pytest.mark.campaign]),
    ]
)
def how(request: pytest.FixtureRequest) -> str:
    """The option by which a run is in this process, on a Ray that lives on, or on one that it starts and ends."""
    if request.param == "on the suite's Ray":
        running_ray: RunningRay = request.getfixturevalue("running_ray")
        return f"--address={running_ray.address}"
    return "--engine=inline" if request.param == "inline" else "--engine=ray"


def assert_own(rows: pd.DataFrame) -> None:
    for number, row in rows.iterrows():
        assert row["status"] == "ok", row["reason"]
        texts = [row["caption"], *row["sub_captions"]]
        starts = ["overall 0", *(f"refine {part}" for part in range(1, 6))]
        assert all(t.startswith(f"Scene clip{number}, {s}:") for t, s in zip(texts, starts, strict=True))


# ── rows ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_rows_hold_captions_tokens_and_checks_and_a_second_run_pays_nothing(tmp_path: Path) -> None:
    place = Place(tmp_path, 20)
    with Server() as server:
        recipe = place.recipe(server, seed=5)
        output = place.run(recipe)
        assert len(server.asked) == 220
        place.run(recipe)
        assert len(server.asked) == 220
    rows = place.rows()
    assert len(rows) == 20
    assert_own(rows)
    first = rows.iloc[0]
    assert (first["requests"], first["prompt_tokens"], first["completion_tokens"]) == (11, 1100, 110)
    assert (first["attempts"], first["seed"], first["model"]) == (1, 5, "tiny")
    assert re.fullmatch(r"longtake@[0-9a-f]{8}", first["prompts"])
    assert first["caption_protocol"].startswith("progressive/1/openai:tiny/longtake@")
    standards = Standards((20, 80), (30, 150))
    told = measured_quality(first["caption"], list(first["sub_captions"]), standards, (), list(first["moves"]))
    assert {k: first[k].tolist() if k == "words" else first[k] for k in told} == told
    assert (rows["copies"] == 1).all()
    assert (rows["sub_copies"] == 1).all()
    assert rows["copy_of"].isna().all()
    assert not list(Path(place.workspace.path, ".answers").rglob("*.jsonl"))
    assert "20 computed" in output
    assert "220 answers" in output
    runs = pd.read_parquet(Path(place.workspace.path) / "runs").sort_values("started")
    assert runs["requests"].tolist() == [220, 0]
    assert runs["prompt_tokens"].tolist() == [22_000, 0]
    assert 0 < runs["busy_share"].iloc[0] <= 1


def test_captions_of_clips_that_are_gone_do_not_count_and_what_they_cost_does(tmp_path: Path) -> None:
    place = Place(tmp_path, PER_VIDEO + 2)
    with Server() as server:
        recipe = place.recipe(server)
        everything = PER_VIDEO + 2
        assert (
            f"captions: {everything} = {everything} ok, {everything * 1100} + {everything * 110} tokens\n"
            in place.run(recipe)
        )
        place.lose(0)
        paid = f"{everything * 1100} + {everything * 110} tokens (with {PER_VIDEO} captions of clips that are gone)"
        assert f"captions: 2 = 2 ok, {paid}\n" in place.run(recipe)
    told = json.loads(CliRunner().invoke(app, ["stats", place.workspace.path, "--json"]).output)
    assert (told["captions"]["total"], told["captions"]["gone"], told["captions"]["requests"]) == (
        2,
        PER_VIDEO,
        everything * 11,
    )
    assert told["stages"]["caption"]["rows"] == 2


def test_two_questions_a_clip_bring_all_that_the_recipe_asks_for_and_a_kept_row_keeps_it(tmp_path: Path) -> None:
    """Two clips share their caption, so that their texts are put aside, and come back; no other question is paid for."""
    place = Place(tmp_path, 8)

    def script(ask: Ask) -> Reply:
        answer = told(ask)
        if ask.step == "watch" and ask.tag in ("clip2", "clip5"):
            answer["caption"] = told(replace(ask, tag="clip2"))["caption"]
        if ask.step == "watch" and ask.tag == "clip3":
            answer["camera"] = "pan left"
        return Reply(json.dumps(answer))

    chosen = {"method": "joint", "lengths": ["short", "long"], "facts": True, "style": "release"}
    with Server(script) as server:
        place.run(place.recipe(server, max_copies=1, **chosen))
        rows = place.rows()
        assert rows["status"].eq("duplicate").sum() == 2
        assert rows.loc[[2, 5], "caption_long"].isna().all()
        place.run(place.recipe(server, **chosen))
        rows = place.rows()
        assert len(server.asked) == 16
    assert (rows["status"] == "ok").all()
    assert rows["requests"].eq(2).all()
    assert rows["caption_protocol"].str.startswith("joint/2/openai:tiny/longtake@").all()
    for number, row in rows.iterrows():
        assert row["caption_short"].startswith(f"Scene clip{number}, overall 0:")
        assert row["caption_long"].startswith(f"Scene clip{number}, overall 0:")
        assert [t.startswith(f"Scene clip{number}, refine {i}:") for i, t in enumerate(row["sub_captions"], 1)] == [
            True
        ] * 5
    assert rows["shot_size"].eq("wide shot").all()
    assert rows["place"].eq("a harbour").all()
    assert rows["camera_agrees"].tolist() == [number != 3 for number in rows.index], "measured: static"


def test_another_seed_or_prompt_is_captioned_anew_another_endpoint_is_not(tmp_path: Path) -> None:
    place = Place(tmp_path, 3)
    with Server() as server, Server() as other:
        place.run(place.recipe(server))
        place.run(place.recipe(other, concurrency=3, timeout=7))
        assert not other.asked
        place.run(place.recipe(other, prompts={"system": "Be brief. Answer with JSON."}))
        assert len(other.asked) == 33
        assert {ask.body["messages"][0]["content"] for ask in other.asked} == {"Be brief. Answer with JSON."}
    assert set(place.rows()["prompts"].str.partition("@")[0]) == {"recipe"}


def test_errors_stay_until_they_are_retried_and_then_with_another_seed(tmp_path: Path) -> None:
    place = Place(tmp_path, 4)
    with Server(lambda ask: Reply("") if ask.tag == "clip2" else good(ask)) as server:
        recipe = place.recipe(server, tries=2)
        assert "1 with errors" in place.run(recipe)
        assert place.rows()["status"].tolist() == ["ok", "ok", "error", "ok"]
        asked = len(server.asked)
        place.run(recipe)
        assert len(server.asked) == asked
        before = {ask.body["seed"] for ask in server.asked if ask.tag == "clip2"}
        server.script = good
        place.run(recipe, "--retry-errors")
        after = {ask.body["seed"] for ask in server.asked[asked:]}
    assert_own(place.rows())
    assert len(after) == 11
    assert not before & after, "the same question with the same seed would fail the same way"


def test_an_endpoint_that_is_away_replaces_no_captions(tmp_path: Path) -> None:
    """Also none of another seed, whose captions count no more; the same command writes what is missing."""
    place = Place(tmp_path, 8)
    away = {"clip2"}
    with Server(lambda ask: Reply("", status=503) if ask.tag in away else good(ask)) as server:
        recipe = place.recipe(server, request_tries=1)
        place.run(recipe)  # A clip without captions gets the fault, so that it has a row.
        row = place.rows().loc[2]
        assert row[["status", "error_kind"]].tolist() == ["error", "throttled"]
        assert row["host"]
        away.clear()
        assert "1 computed" in place.run(recipe)
        before = place.rows()
        assert_own(before)

        away.update({"clip2", "clip5"})
        other = place.recipe(server, request_tries=1, seed=9)
        assert "2 of them keep the result they had" in place.run(other, code=1)
        after = place.rows()
        assert (after["status"] == "ok").all()
        assert after["seed"].eq(9).sum() == 6
        assert after.loc[[2, 5], "caption"].tolist() == before.loc[[2, 5], "caption"].tolist()

        away.clear()
        assert "2 computed" in place.run(other)
        assert place.rows()["seed"].eq(9).all()


def test_frames_that_are_gone_cost_their_clips_only(tmp_path: Path) -> None:
    place = Place(tmp_path, 8)
    next(Path(place.workspace.path, "frames").rglob(f"{1:032x}.parquet")).unlink()
    with Server() as server:
        place.run(place.recipe(server))
    rows = place.rows()
    assert_own(rows[:4])
    assert (rows["status"][4:] == "error").all()
    assert rows["reason"][4:].str.startswith("the frames of this clip cannot be read").all()


# ── kills ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_killed_in_the_middle_no_answer_is_paid_for_twice(tmp_path: Path, how: str) -> None:
    """SIGKILL to the driver, in this process and on Ray, whose worker may outlive it by a moment."""
    place = Place(tmp_path, 60)
    concurrency = 8
    with Server(lambda ask: Reply(good(ask).text, delay=0.04)) as server:
        recipe = place.recipe(server)
        command = ["-m", "longtake", "caption", place.workspace.path, "-r", str(recipe), how]
        process = subprocess.Popen(
            [sys.executable, *command], cwd=ROOT, env=environment(), text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            wait_for(lambda: place.workspace.captions.rows() >= 16, "rows", process=process)
            wait_for(lambda: len(server.asked) > 300, "more", process=process)
        finally:
            members = kill_driver(process)
        for member in members:
            with suppress(psutil.Error):
                member.kill()
        wait_for(lambda: server.flying[-1][1] == 0, "the server to be alone")
        time.sleep(0.3)
        done = {row["clip_id"] for row in place.workspace.captions.read(["clip_id"]).to_pylist()}
        assert 16 <= len(done) < 60
        before = len(server.asked)
        assert before < 660
        place.run(recipe)
        later = {ask.tag for ask in server.asked[before:]}
        twice = sum(count - 1 for count in server.answered.values())
    assert_own(place.rows())
    assert len(place.rows()) == 60
    numbers = {int(clip_id[8:], 16) for clip_id in done}
    assert not later & {f"clip{number}" for number in numbers}, "what had a row was not asked about again"
    assert len(server.answered) == 660
    # The next request leaves while the answer before it is being written, so each of the two may be repeated.
    assert twice <= 2 * concurrency, "at most what was under way or being written when it was killed"


# ── money and secrets ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_ceiling_stops_the_run_and_what_was_paid_is_kept(tmp_path: Path) -> None:
    place = Place(tmp_path, 20)
    with Server() as server:
        output = place.run(place.recipe(server, token_ceiling=11_000), code=3)
        assert "the token ceiling of this run is reached" in output
        assert "the same command goes on from here" in output
        paid = sum(server.answered.values())
        assert 100 <= paid < 108
        place.run(place.recipe(server))
        assert sum(server.answered.values()) == 220
    assert_own(place.rows())


def shut_off(delay: float, answers: int) -> Callable[[Ask], Reply]:
    """A server that takes `delay` seconds, and after so many questions wants to be paid first, at once."""

    asked = itertools.count(1)
    return lambda ask: Reply(good(ask).text, delay=delay) if next(asked) <= answers else Reply(status=402)


def test_a_fault_stops_the_run_and_what_is_in_the_air_comes_home(tmp_path: Path, how: str) -> None:
    """Whatever worker, batch and clip it was asked for: five keyframes of a clip, other batches, another process."""
    place = Place(tmp_path, 48)
    with Server(shut_off(1.0, 60)) as server:
        recipe = place.recipe(server, concurrency=16, workers=2)
        output = " ".join(place.run(recipe, code=3, how=how).split())
        assert "wants to be paid first" in output
        assert "the same command goes on from here" in output
        assert sum(server.answered.values()) == 60
        wait_for(lambda: server.flying[-1][1] == 0, "the server to be alone")
        server.script = good
        place.run(recipe)
        answered = list(server.answered.values())
    assert_own(place.rows())
    assert len(answered) == 48 * 11
    assert set(answered) == {1}, "each was paid for once"


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_stops_the_run_and_what_is_in_the_air_comes_home(tmp_path: Path, how: str, stop: signal.Signals) -> None:
    """So does SIGTERM, as batch systems and containers send it: it ended the run at once, and answers were paid for twice."""
    place = Place(tmp_path, 32)
    with Server(lambda ask: Reply(good(ask).text, delay=0.8)) as server:
        recipe = place.recipe(server, concurrency=16, workers=2)
        process = subprocess.Popen(
            [sys.executable, "-m", "longtake", "caption", place.workspace.path, "-r", str(recipe), how],
            cwd=ROOT, env=environment(), text=True, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            wait_for(lambda: len(server.asked) > 40, "questions", process=process)
            process.send_signal(stop)
            output, _ = process.communicate(timeout=60)
        finally:
            for member in kill_driver(process):
                with suppress(psutil.Error):
                    member.kill()
        assert process.returncode == 130, output
        assert "stopped; what is done is kept" in output
        assert len(server.asked) < 32 * 11
        server.script = good
        place.run(recipe)
        answered = list(server.answered.values())
    assert_own(place.rows())
    assert set(answered) == {1}, "each was paid for once"


def test_the_key_is_in_no_file_and_no_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    place = Place(tmp_path, 6)

    def quotes(ask: Ask) -> Reply:
        assert ask.headers["Authorization"] == f"Bearer {KEY}"
        if ask.tag == "clip1":
            return Reply(status=400, body=f"no: {ask.headers}".encode())
        if ask.tag == "clip2":
            return Reply(json.dumps({"caption": "..."}))
        return good(ask)

    with Server(quotes) as server:
        recipe = place.recipe(server, tries=1, request_tries=1)
        output = place.run(recipe, "--preview", "--allow-endpoint", server.url)
        server.script = lambda ask: Reply(status=401, body=KEY.encode())
        output += place.run(recipe, "--retry-errors", code=3)
    assert "refuses the key" in output
    assert KEY not in output
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.name == "captions.html" for path in files)
    assert not [path for path in files if KEY.encode() in path.read_bytes()]
    # Compression may hide the key in a Parquet file.
    tables = [pd.read_parquet(Path(place.workspace.path) / name).astype(str).to_json() for name in ("captions", "runs")]
    assert not [table for table in tables if KEY in table]
    assert "[key]" in tables[0], "the server did quote it"


FOREIGN = "https://api.vendor.example/v1"


def test_a_recipe_names_no_other_variable_and_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEY)
    place = Place(tmp_path, 1)
    for settings, message in (
        (
            {"api_key_env": "AWS_SECRET_ACCESS_KEY"},
            "settings: api_key_env: a recipe may name only variables that begin",
        ),
        ({"refiner": {"api_key_env": "HOME"}}, "refiner.api_key_env: a recipe may name only variables that begin"),
        ({"api_key_file": "/etc/passwd"}, "settings: api_key_file: a recipe names no key file"),
    ):
        output = place.run(place.recipe(None, endpoint=FOREIGN, **settings), code=2)
        assert message in output
        assert "LONGTAKE_CAPTION_KEY" in output
        assert KEY not in output
    assert not Path(place.workspace.path, "recipe.yaml").exists()


@pytest.mark.parametrize("command", ["caption", "curate", "doctor"])
def test_a_workspaces_own_recipe_sends_nothing_unasked(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else's workspace, taken over with its recipe: no name is looked up, no socket is opened, no row is written."""

    def never(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setenv(endpoint.KEY, KEY)
    place = Place(tmp_path, 2)
    place.workspace.save_recipe(load_recipe(place.recipe(None, endpoint=FOREIGN)))
    monkeypatch.setattr(Endpoint, "_new_session", never)
    monkeypatch.setattr(socket, "getaddrinfo", never)
    arguments = ["--engine", "inline"] if command != "doctor" else []
    if command == "caption":
        given = [command, place.workspace.path, *arguments]
    else:
        given = [command, "-o", place.workspace.path, *arguments]
    done = CliRunner().invoke(app, given, env={"COLUMNS": "200"})
    assert done.exit_code == 3, done.output
    output = done.output.replace("\n", " ")
    assert "--allow-endpoint api.vendor.example:443" in output
    assert "LONGTAKE_CAPTION_KEY" in output
    assert KEY not in output
    assert not place.workspace.captions.rows()


def test_the_doctor_says_where_a_key_would_go_and_sends_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(endpoint.KEY, KEY)
    place = Place(tmp_path, 1)
    with Server() as server:
        recipe = place.recipe(server)
        done = CliRunner().invoke(app, ["doctor", "-r", str(recipe), "--allow-endpoint", server.url])
        assert "the key in the environment variable LONGTAKE_CAPTION_KEY to http://127.0.0.1" in done.output
        assert server.keys == [None]
    assert KEY not in done.output


def test_workers_on_ray_may_do_what_the_driver_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The permission travels with the run: the workers of this test have a home in which nothing is allowed."""
    monkeypatch.setenv(endpoint.KEY, KEY)
    place = Place(tmp_path, 2)
    with Server() as server:
        job = _planned(place, place.recipe(server), server.url, monkeypatch)
        CaptionWorker(*job.args)(job.batches[0])
        assert {ask.headers["Authorization"] for ask in server.asked} == {f"Bearer {KEY}"}


def _planned(place: Place, recipe: Path, allowed: str, monkeypatch: pytest.MonkeyPatch) -> Job:
    monkeypatch.setenv("LONGTAKE_ALLOW_ENDPOINTS", allowed)
    job = plan(place.workspace, load_recipe(recipe), retry_errors=False)
    monkeypatch.delenv("LONGTAKE_ALLOW_ENDPOINTS")
    assert job is not None
    return pickle.loads(pickle.dumps(job))  # type: ignore[no-any-return]


def test_a_key_in_a_recipe_is_refused_before_it_is_stored(tmp_path: Path) -> None:
    place = Place(tmp_path, 1)
    output = place.run(place.recipe(None, api_key=KEY), code=2)
    assert "no secrets in a recipe" in output
    assert KEY not in output
    assert not Path(place.workspace.path, "recipe.yaml").exists()


# ── before any work ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_recipe_of_other_keyframes_than_its_captioner_takes_stops_before_any_work(tmp_path: Path) -> None:
    """Each clip was scanned and scored, and then each caption was an error."""
    place = Place(tmp_path, 1)
    (tmp_path / "film.mp4").write_bytes(b"not looked at")
    for captioner, code in (("descriptors", 3), ("sidecar", 1)):
        seven = {**RECIPE, "sampling": {"keyframes": 7}, "captioning": {"captioner": captioner}}
        (tmp_path / "seven.yaml").write_text(yaml.safe_dump(seven))
        workspace = tmp_path / captioner
        curate = ["curate", str(tmp_path / "film.mp4"), "-o", str(workspace), "--engine", "inline"]
        for command, ends in ((curate, code), ([*curate, "--until", "score"], 1)):
            result = CliRunner().invoke(app, [*command, "-r", str(tmp_path / "seven.yaml")], env={"COLUMNS": "500"})
            assert result.exit_code == ends, result.output
            assert ("sampling.keyframes is 7" in result.output) == (ends == 3)
            assert (workspace / "videos").exists() == (ends == 1)
    result = CliRunner().invoke(app, ["caption", place.workspace.path, "-r", str(tmp_path / "seven.yaml")])
    assert "sampling.keyframes is 7" not in result.output, "the captions that the list brings need no pictures"


def test_an_endpoint_that_is_not_configured_stops_before_any_work(tmp_path: Path) -> None:
    shipped = load_recipe("longtake-hd").captioning
    assert shipped.captioner == "openai"
    assert shipped.max_copies == 10
    place = Place(tmp_path, 1)
    plain = {**RECIPE, "captioning": shipped.model_dump(mode="json")}
    (tmp_path / "hd.yaml").write_text(yaml.safe_dump(plain))
    (tmp_path / "film.mp4").write_bytes(b"not looked at")
    workspace = tmp_path / "new"
    for command in (
        ["caption", place.workspace.path],
        ["curate", str(tmp_path / "film.mp4"), "-o", str(workspace), "--engine", "inline"],
    ):
        result = CliRunner().invoke(app, [*command, "-r", str(tmp_path / "hd.yaml")], env={"COLUMNS": "500"})
        assert result.exit_code == 3, result.output
        assert re.search(r"captioner openai has no (endpoint|model): set captioning\.settings", result.output)
    assert not (workspace / "videos").exists()
    assert CliRunner().invoke(app, ["recipe", "validate", "longtake-hd"]).exit_code == 0
    plain["captioning"]["settings"]["concurency"] = 3
    (tmp_path / "hd.yaml").write_text(yaml.safe_dump(plain))
    result = CliRunner().invoke(app, ["recipe", "validate", str(tmp_path / "hd.yaml")], env={"COLUMNS": "500"})
    assert result.exit_code == 2
    assert "captioning.settings.concurency: unknown setting; did you mean 'concurrency'" in result.output


# ── a sample, to look at ─────────────────────────────────────────────────────────────────────────────────────────────


class Page(HTMLParser):
    """What a browser would see."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.sources: list[str] = []
        self.text = ""
        self.bad: list[str] = []  # The texts that are coloured as bad.
        self._within: list[str | None] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self._within.append(dict(attributes).get("class"))
        self.sources += [value or "" for name, value in attributes if name in ("src", "href")]
        assert not [name for name, _ in attributes if name.startswith("on")]

    def handle_endtag(self, tag: str) -> None:
        self._within.append(None)

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._within and self._within[-1] == "bad":
            self.bad.append(data)


def test_a_sample_is_paid_once_and_shown_with_its_keyframes(tmp_path: Path) -> None:
    place = Place(tmp_path, 30)
    nasty = "<script>alert(1)</script> & <img src=x onerror=y>"

    def script(ask: Ask) -> Reply:
        if ask.tag == bad and ask.step == "describe":
            return Reply("I'm sorry, but I can't do that.")
        text = story(ask)
        return Reply(json.dumps({"caption": text if ask.step != "refine" or ask.number != 2 else f"{text} {nasty}"}))

    chosen = sorted(range(30), key=Place.clip_id)[:5]
    bad = f"clip{chosen[2]}"
    with Server(script) as server:
        recipe = place.recipe(server, tries=1, prompt_price=2.0, completion_price=10.0)
        output = place.run(recipe, "--sample", "5", "--preview")
        assert {ask.tag for ask in server.asked} == {f"clip{number}" for number in chosen}
        asked = len(server.asked)
        assert f"preview: {place.workspace.path}/captions.html" in output
        page = Page()
        page.feed(Path(place.workspace.path, "captions.html").read_text(encoding="utf-8"))
        paid = int(place.rows()["requests"].sum())
        place.run(recipe, "--sample", "5", "--preview")
        assert len(server.asked) == asked
        place.run(recipe)
        assert {ask.tag for ask in server.asked[asked:]} == {f"clip{n}" for n in range(30) if n not in chosen}
    # An answer is 100 and 10 tokens; how many of them the refused clip got depends on which requests were under way.
    tokens = 20 * paid
    assert (
        f"5 clips so far: {paid / 5:.1f} requests, {tokens:,} prompt tokens and {tokens / 10:,.0f} completion tokens a clip, "
        f"{3 * tokens / 1e6:.5f} by the recipe's prices."
    ) in page.text
    assert f"25 clips are left: at this rate {25 * tokens:,} prompt tokens" in page.text
    assert page.tags["img"] == 25
    assert page.tags["script"] == 0
    assert all(source.startswith("data:image/jpeg;base64,") for source in page.sources)
    assert page.text.count(nasty) == 4
    assert "refused: keyframe" in page.text
    assert "1 refused" in page.text
    for number in chosen:
        assert Place.clip_id(number) in page.text


# ── copies ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_one_caption_for_many_clips_is_no_caption_and_comes_back_when_the_recipe_allows_it(tmp_path: Path) -> None:
    place = Place(tmp_path, 12)
    stock = " ".join(["A person stands in a room and looks at the camera while the light stays as it is."] * 2)

    def script(ask: Ask) -> Reply:
        number = int(ask.tag.removeprefix("clip"))
        if ask.step == "overall" and number < 5:  # One answer has other letters, and one has another word.
            text = {1: stock.upper(), 2: stock.replace("room", "hall", 1)}.get(number, stock)
            return Reply(json.dumps({"caption": text}))
        if ask.step == "overall" and number in (7, 8):
            return Reply(json.dumps({"caption": stock.replace("person", "horse").replace("room", "field")}))
        return good(ask)

    with Server(script) as server:
        place.run(place.recipe(server, max_copies=3))
        rows = place.rows()
        assert rows["status"].tolist() == ["duplicate"] * 5 + ["ok"] * 7
        assert rows["copies"].tolist() == [5] * 5 + [1, 1, 2, 2, 1, 1, 1]
        assert rows["caption"][:5].isna().all()
        assert rows["sub_captions"][:5].isna().all()
        assert rows["reason"][0].startswith("5 clips have this caption, or nearly; ")
        owner = rows["copy_of"][:5].unique()
        assert len(owner) == 1
        assert rows.loc[[7, 8], "copy_of"].nunique() == 1
        paid = len(server.asked)
        assert "clips: 12 = 7 ok + 5 errors (caption 5)" in place.run(place.recipe(server, max_copies=3))
        place.run(place.recipe(server, max_copies=5))
        rows = place.rows()
        assert (rows["status"] == "ok").all()
        assert rows["caption"][0] == stock
        assert all(text.startswith("Scene clip4,") for text in rows["sub_captions"][4])
        assert rows["withheld"].isna().all()
        place.run(place.recipe(server, max_copies=1))
        assert place.rows()["status"].tolist() == ["duplicate"] * 5 + ["ok"] * 2 + ["duplicate"] * 2 + ["ok"] * 3
        place.run(place.recipe(server))
        assert (place.rows()["status"] == "ok").all()
        assert len(server.asked) == paid


def test_captions_of_clips_that_are_gone_are_no_copies(tmp_path: Path) -> None:
    place = Place(tmp_path, PER_VIDEO + 1)
    stock = " ".join(["A person stands in a room and looks at the camera while the light stays as it is."] * 2)

    def script(ask: Ask) -> Reply:
        return Reply(json.dumps({"caption": stock})) if ask.step == "overall" else good(ask)

    with Server(script) as server:
        place.run(place.recipe(server, max_copies=1))
        assert (place.rows()["status"] == "duplicate").all()
        place.lose(0)
        place.run(place.recipe(server, max_copies=PER_VIDEO + 1))
        (last,) = place.rows()[PER_VIDEO:].to_dict("records")
        assert (last["status"], last["copies"], last["caption"]) == ("ok", 1, stock)
        place.run(place.recipe(server, max_copies=1))
        assert place.rows()["status"][PER_VIDEO] == "ok"


def test_sentences_from_measurements_may_be_alike(tmp_path: Path) -> None:
    """The recipe `embedded` sets no limit, since they are alike by construction."""
    assert load_recipe("embedded").captioning.max_copies is None
    place = Place(tmp_path, 6)
    recipe = place.recipe(None, captioner="descriptors")
    plain = yaml.safe_load(recipe.read_text())
    plain["captioning"]["settings"] = {}
    recipe.write_text(yaml.safe_dump(plain))
    place.run(recipe)
    rows = place.rows()
    assert (rows["status"] == "ok").all()
    assert rows["copies"].max() > 1
    assert rows["requests"].tolist() == [0] * 6


# ── similarity ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_neighbours_that_are_too_much_alike_are_told_anew_once_and_then_the_gate_decides(tmp_path: Path) -> None:
    """With the real sentence embeddings. Clip 0 repeats itself once, clip 1 for ever, clip 2 never."""
    pytest.importorskip("sentence_transformers")
    place = Place(tmp_path, 3)
    different = [
        "A grey cat sleeps on the warm stones of a wall.",
        "Three fishermen pull a heavy net out of the black water.",
        "An old steam engine crosses an iron bridge over a gorge.",
        "Children in red coats build a snowman in front of a school.",
        "Molten glass glows orange while a worker turns the pipe.",
    ]

    def script(ask: Ask) -> Reply:
        if ask.step != "refine":
            return good(ask)
        part = ask.number - 1
        if ask.number == 3 and (ask.tag == "clip1" or (ask.tag == "clip0" and ask.nth == 0)):
            text = different[1].replace("heavy", "huge")
        else:
            text = different[part]
        return Reply(json.dumps({"caption": text}))

    gates = {"filters": {"text_similarity": {}}, "tiers": {"pretrain": {"text_similarity": "<= 0.75"}}}
    with Server(script) as server:
        place.run(place.recipe(server, words=[5, 80], **gates), "--preview")
        asked = Counter((ask.tag, ask.number) for ask in server.asked if ask.step == "refine")
        anew = [ask for ask in server.asked if "too much like the caption before it" in ask.text]
    rows = place.rows()
    assert (rows["status"] == "ok").all()
    assert [list(texts) for texts in rows["sub_captions"][[0, 2]]] == [different, different]
    # The captions are asked for again from the repetition on, since the later ones saw it.
    for tag in ("clip0", "clip1"):
        assert [asked[tag, part] for part in range(1, 6)] == [1, 1, 2, 2, 2]
    assert [asked["clip2", part] for part in range(1, 6)] == [1] * 5
    assert {(ask.tag, ask.number) for ask in anew} == {(f"clip{n}", part) for n in (0, 1) for part in (3, 4, 5)}
    alike = rows["text_similarity_detail"].map(max)
    assert alike[0] == alike[2] < 0.75
    assert alike[1] > 0.9
    statuses = json.loads(CliRunner().invoke(app, ["stats", place.workspace.path, "--json"]).output)
    assert statuses["captions"]["status"] == {"ok": 3}
    assert statuses["captions"]["requests"] == 33 + 6
    page = Page()
    page.feed(Path(place.workspace.path, "captions.html").read_text(encoding="utf-8"))
    assert page.text.count("similarity to the one before") == 3 * 4
    over = [value for detail in rows["text_similarity_detail"] for value in detail if value > 0.75]
    assert [f"similarity to the one before {value:.2f}: above the gate at 0.75" for value in over] == [
        text for text in page.bad if text.startswith("similarity")
    ]


def test_scores_of_texts_that_were_told_anew_are_not_kept_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker captions a whole corpus, and of a story that was told twice one version is never asked for again."""
    pytest.importorskip("sentence_transformers")
    monkeypatch.setattr("longtake.curation.stages.caption._MEASURED", 3)
    place = Place(tmp_path, 1)
    gates = {"filters": {"text_similarity": {}}, "tiers": {"pretrain": {"text_similarity": "<= 0.75"}}}
    with Server() as server:
        recipe = load_recipe(str(place.recipe(server, **gates)))
        job = plan(place.workspace, recipe, retry_errors=False)
        assert job is not None
        worker = CaptionWorker(*job.args)
        try:
            versions = [tuple(f"{word} {number}" for word in ("a", "b", "c", "d", "e")) for number in range(5)]
            # The model is loaded by a thread, which measures a clip of its own.
            wait_for(lambda: bool(worker._scores), "the model")
            before = worker._similarities(versions)
            assert list(worker._scores) == versions[-3:]
            scores = worker._on_texts("text_similarity", worker.filters["text_similarity"], versions)
            assert [list(score.detail) for score in scores if isinstance(score, Score)] == [list(one) for one in before]
            assert not worker._scores
        finally:
            worker.close()


def test_a_filter_is_given_the_embeddings_of_as_many_keyframes_as_the_recipe_has() -> None:
    """The captioner `sidecar` takes clips of any number of keyframes; with seven of them its run ended with a traceback."""
    row = {"sub_captions": list("abcde")}
    given = texts_and_pictures(row, np.arange(7 * 8, dtype=np.float16).tolist(), keyframes=7)
    assert given.embeddings is not None
    assert given.embeddings.shape == (7, 8)
    assert texts_and_pictures(row, None, keyframes=7).embeddings is None
    score = Alignment()._one(given, {})  # There is no picture of its own for each text.
    assert isinstance(score, Score)
    assert score.known is None


def test_alignment_holds_each_sub_caption_against_its_own_keyframe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an encoder that is put in CLIP's place, and the keyframe embeddings that the aesthetic filter keeps; of clip 2 the
    model swaps two parts, and clip 3 has no embeddings."""
    directions = np.eye(8, dtype=np.float32)
    monkeypatch.setattr("longtake.filters.alignment.weight_tag", lambda name: "text")
    monkeypatch.setattr("longtake.filters.aesthetic.weight_tag", lambda name: "pictures")
    monkeypatch.setattr(
        Alignment,
        "_embed",
        lambda self, texts: np.stack([directions[int(text.partition("refine ")[2][0])] for text in texts]),
    )
    place = Place(tmp_path, 4)
    rows = place.workspace.clips.read().to_pylist()
    for row in rows:
        row["aesthetic"], row["aesthetic_detail"] = 6.0, [6.0] * 5
        if not row["clip_id"].endswith("3"):
            row["embedding"], row["keyframe_embeddings"] = [1.0], directions[1:6].astype(np.float16).ravel()
    place.workspace.clips.append(rows_table(rows, schemas.CLIPS, ["grayscale", "aesthetic"]))

    def script(ask: Ask) -> Reply:
        answer = told(ask)
        if ask.tag == "clip2" and ask.step == "tell":
            answer["part_1"], answer["part_4"] = answer["part_4"], answer["part_1"]
        return Reply(json.dumps(answer))

    gates = {"filters": {"aesthetic": {}, "alignment": {}}, "tiers": {"pretrain": {"alignment": ">= 0.2"}}}
    with Server(script) as server:
        place.run(place.recipe(server, method="joint", **gates))
    captions = place.rows()
    assert (captions["status"] == "ok").all()
    assert captions["alignment_detail"][0].tolist() == [1.0] * 5
    assert captions["alignment_detail"][2].tolist() == [0.0, 1.0, 1.0, 0.0, 1.0]
    assert captions["alignment"].isna().tolist() == [False, False, False, True]
