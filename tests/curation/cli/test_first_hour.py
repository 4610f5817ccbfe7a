"""The first hour of a newcomer: what is said, how wide it is, what it returns, and how one goes on.

What is told is read from real processes. Commands that prepare a workspace, or look at one, are called in this process: a
process takes a second of CPU to start.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from tests.captioning.server import Ask, Reply, Server, good
from tests.corpus import SMALL, Encoding, film, pan
from tests.curation.faulty_server import faulty_server
from tests.curation.tables import fill
from tests.curation.workbench import longtake as called

ROOT = Path(__file__).parents[3]
# Clips of two seconds, and a gate that none of them passes.
STRICT: dict[str, Any] = {
    "name": "strict",
    "splitting": {"detector": "none", "min_seconds": 2, "window_seconds": 2},
    "sampling": {"partner_seconds": 0.1},
    "filters": {"width": {}, "duration": {}, "grayscale": {}, "artifacts": {"backend": "borders"}, "flow": {"backend": "dis"}},
    "tiers": {"pretrain": {"width": ">= 64", "duration": ">= 2", "grayscale": "[1, 254]", "flow": ">= 900"}},
    "export": {"fps": None, "frames": None, "preset": "ultrafast", "crf": 30},
}  # fmt: skip


def longtake(
    *arguments: object, code: int = 0, columns: int = 80, **environment: str
) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own, with pipes for its output."""
    env = {**os.environ, "COLUMNS": str(columns), "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", **environment}
    done = subprocess.run(
        [sys.executable, "-m", "longtake", *map(str, arguments)], cwd=ROOT, env=env, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == code, f"{done.returncode}: {done.stdout} {done.stderr}"
    return done


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two films of two clips each, 320 × 180."""
    folder = tmp_path_factory.mktemp("films")
    for i in range(2):
        film(folder / f"{i}.mp4", pan("table", (2, 0), (200 + 40 * i, 60), SMALL, 98), Encoding(size=SMALL))
    return folder


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "strict.yaml"
    path.write_text(yaml.safe_dump(STRICT))
    return path


@pytest.fixture(scope="module")
def nothing_kept(films: Path, recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A workspace that keeps none of four clips, and what the run printed."""
    workspace = tmp_path_factory.mktemp("nothing") / "my work"
    return workspace, longtake("curate", films, "-r", recipe, "-o", workspace, "--engine", "inline").stdout


# ── nothing is kept ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_run_that_keeps_nothing_says_how_to_go_on(nothing_kept: tuple[Path, str]) -> None:
    workspace, printed = nothing_kept
    last = printed.rstrip().split("\n\n")[-1].splitlines()
    assert len(last) <= 8
    assert last[0].startswith("pretrain keeps 0 of 4 clips, 0.00 h of ")
    assert "Most fall at flow (>= 900): 4 clips, " in last[0]
    assert len([line for line in last if re.match(r"Near: [0-9a-f]+ fails flow [\d.]+ \(-\d+\)", line)]) == 3
    assert f"  longtake report '{workspace}'" in "\n".join(last)
    assert f"  longtake studio '{workspace}'" in "\n".join(last)


def test_the_command_that_is_told_keeps_the_best(nothing_kept: tuple[Path, str], tmp_path: Path) -> None:
    workspace, printed = nothing_kept
    told = re.search(r"This keeps the best (\d+) \((\d+) in all, .*h\):\n  longtake (.*)", printed)
    assert told
    best, in_all, command = told.groups()
    arguments = subprocess.run(  # The command is split as a shell would split it.
        ["bash", "-c", f"printf '%s\\n' {command}"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    longtake(*arguments, "--engine", "inline")
    index = pd.read_parquet(workspace / "dataset" / "pretrain" / "index.parquet")
    assert len(index) == int(in_all) >= int(best) == 4
    assert all((workspace / "dataset" / "pretrain" / path).stat().st_size for path in index["path"])


def test_films_without_a_long_shot_are_told_of_explore(films: Path, tmp_path: Path) -> None:
    strict = {**STRICT, "splitting": {"detector": "none", "min_seconds": 15, "window_seconds": 15}}
    strict["tiers"] = {"pretrain": {"duration": ">= 15"}}
    (tmp_path / "long.yaml").write_text(yaml.safe_dump(strict))
    done = longtake("curate", films, "-r", tmp_path / "long.yaml", "-o", tmp_path / "w", "--engine", "inline")
    assert f"longtake curate -o {tmp_path / 'w'} -r explore" in done.stdout
    assert len(done.stdout.rstrip().split("\n\n")[-1].splitlines()) <= 8
    # The recipe has no gate on the length any more, and still keeps no clip.
    strict["tiers"] = {"pretrain": {"width": ">= 64"}}
    (tmp_path / "any.yaml").write_text(yaml.safe_dump(strict))
    called("curate", "-r", tmp_path / "any.yaml", "-o", tmp_path / "w", "--engine", "inline")
    counts = json.loads(called("stats", tmp_path / "w", "--json"))
    assert counts["clips"]["error_kinds"] == {"too_short": 2}
    assert counts["tiers"]["pretrain"]["kept"] == 0


def test_clips_that_could_not_be_encoded_are_told_with_the_command_that_tries_again(
    films: Path, tmp_path: Path
) -> None:
    """The film of two kept clips is gone when they are encoded: a kind of error that the same command does not try again."""
    loose = {**STRICT, "tiers": {"pretrain": {"width": ">= 64"}}}
    (tmp_path / "loose.yaml").write_text(yaml.safe_dump(loose))
    (tmp_path / "films").mkdir()
    for film_ in films.iterdir():
        (tmp_path / "films" / film_.name).write_bytes(film_.read_bytes())
    called("scan", tmp_path / "films", "-r", tmp_path / "loose.yaml", "-o", tmp_path / "w", "--engine", "inline")
    (tmp_path / "films" / "0.mp4").write_bytes(b"no video any more" * 100)
    done = longtake("export", tmp_path / "w", "-r", tmp_path / "loose.yaml", "--engine", "inline")
    told = re.search(
        r"^not encoded: 2 clips \(\w+ 2\)\. This tries them again:\n  longtake (.*)$", done.stdout, re.MULTILINE
    )
    assert told, done.stdout
    (tmp_path / "films" / "0.mp4").write_bytes((films / "0.mp4").read_bytes())
    again = longtake(*told[1].split(), "--engine", "inline")
    assert "not encoded" not in again.stdout
    assert len(pd.read_parquet(tmp_path / "w" / "dataset" / "pretrain" / "index.parquet")) == 4


def test_hours_stand_beside_clips(nothing_kept: tuple[Path, str]) -> None:
    workspace, printed = nothing_kept
    assert re.search(r"^videos: 2 = 2 ok \+ 0 errors, 0.0023 h$", printed, re.MULTILINE)
    assert re.search(r"^clips: 4 = 4 ok \+ 0 errors, 0.0022 h$", printed, re.MULTILINE)
    found = json.loads(called("stats", workspace, "--json"))["hours"]
    assert found["clips"] == pytest.approx(8 / 3600)
    assert sum(found["tiers"]["pretrain"].values()) == pytest.approx(8 / 3600)


# ── output ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "command",
    [("stats", "{w}"), ("tiers", "{w}", "--set", "pretrain.psnr=[1, 2]"), ("show", "{w}", "aaaa")],
    ids=lambda command: command[0],
)
def test_no_number_is_folded(tmp_path: Path, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Every number of a wide terminal is one word of a narrow one, and a process prints the same as a call."""
    monkeypatch.setenv("NO_COLOR", "1")
    arguments = [word.format(w=fill(tmp_path / "workspace").path) for word in command]
    wide, *narrow = (called(*arguments, columns=columns) for columns in (400, 80, 60, 40))
    numbers = {word.strip(",()") for word in wide.split() if re.fullmatch(r"[+−-]?\d+\.\d+(e[+-]\d+)?,?", word)}
    assert numbers
    for printed in narrow:
        assert numbers <= {word.strip(",()") for word in printed.split()}
        assert "\x1b" not in printed
    assert longtake(*arguments, columns=40).stdout == narrow[-1]


def test_head_is_quiet(nothing_kept: tuple[Path, str]) -> None:
    workspace, _ = nothing_kept
    for command in ("stats", "tiers"):
        done = subprocess.run(
            ["bash", "-c", f"{sys.executable} -m longtake {command} '{workspace}' | head -n 1"], cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")}, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert done.stderr == ""
        assert len(done.stdout.splitlines()) == 1


def test_every_input_an_error_is_no_success(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"no video" * 100)
    done = longtake(
        "curate",
        tmp_path / "a.mp4",
        tmp_path / "b.mp4",
        "-r",
        "base",
        "-o",
        tmp_path / "w",
        "--engine",
        "inline",
        code=1,
    )
    assert "error: every video ended in an error (missing 1, not_video 1); nothing was curated" in done.stderr


@pytest.mark.parametrize(("fault", "words"), [("403", "HTTP 403"), ("404", "HTTP 404|not found|nothing there")])
def test_a_web_servers_answer_is_told(fault: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "served").mkdir()
    with faulty_server(tmp_path / "served") as server:
        server.fault = fault
        done = longtake(
            "curate", f"{server.url}/a.mp4", "-r", "base", "-o", tmp_path / "w", "--engine", "inline", "--allow-private",
            code=3 if fault == "403" else 1,
        )  # fmt: skip
    (row,) = pd.read_parquet(tmp_path / "w" / "videos").to_dict("records")
    assert re.search(words, row["error"]), row["error"]
    assert fault != "403" or re.search(words, done.stderr), done.stderr


def test_a_host_that_nobody_knows_is_told(tmp_path: Path) -> None:
    longtake(
        "curate", "https://no.such.host.invalid/a.mp4", "-r", "base", "-o", tmp_path / "w", "--engine", "inline", code=3
    )
    (row,) = pd.read_parquet(tmp_path / "w" / "videos").to_dict("records")
    assert "unknown host no.such.host.invalid" in row["error"]


@pytest.mark.parametrize("name", ["films.csv", "shard.tar"])
def test_a_web_servers_answer_for_a_list_is_told(name: str, tmp_path: Path) -> None:
    with faulty_server(tmp_path) as server:
        server.fault = "403"
        done = longtake(
            "curate",
            f"{server.url}/{name}",
            "-r",
            "base",
            "-o",
            tmp_path / "w",
            "--engine",
            "inline",
            "--allow-private",
            code=3,
        )
    assert "HTTP 403" in done.stderr, done.stderr


# ── commands ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_manifests_can_be_read_though_nothing_is_there(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"no video" * 100)
    longtake("scan", tmp_path / "a.mp4", "-r", "base", "-o", tmp_path / "w", "--engine", "inline", code=1)
    for name in ("clips", "captions", "exports", "forgotten"):
        table = pd.read_parquet(tmp_path / "w" / name)
        assert len(table) == 0
        assert len(table.columns) > 1
    assert "flow" in pd.read_parquet(tmp_path / "w" / "clips").columns
    assert len(pd.read_parquet(tmp_path / "w" / "runs")) == 1


def test_once_there_are_rows_no_empty_part_is_left(nothing_kept: tuple[Path, str]) -> None:
    workspace, _ = nothing_kept
    names = [path.name for path in (workspace / "clips").glob("*.parquet")]
    assert not [name for name in names if "-0-" in name]
    assert {"flow", "flow_detail"} <= set(pd.read_parquet(workspace / "clips").columns)


def test_show_takes_the_workspace_first(tmp_path: Path) -> None:
    workspace = fill(tmp_path / "workspace").path
    told = called("show", workspace, "aaaa", "--json")
    assert json.loads(told)["clip_id"].startswith("aaaa")
    assert told == called("show", "aaaa", "-o", workspace, "--json")
    assert "longtake show WORKSPACE CLIP" in longtake("show", "aaaa", code=2).stderr


def test_format_adds_and_only_removes(nothing_kept: tuple[Path, str]) -> None:
    workspace, _ = nothing_kept

    def formats() -> list[str]:
        return list(yaml.safe_load((workspace / "recipe.yaml").read_text())["export"]["formats"])

    called("export", workspace, "--format", "webdataset", "--engine", "inline")
    called("export", workspace, "--format", "huggingface", "--engine", "inline")
    assert formats() == ["parquet", "webdataset", "huggingface"]
    called("export", workspace, "--only", "huggingface", "--engine", "inline")
    assert formats() == ["parquet", "huggingface"]
    called("export", workspace, "--only", "parquet", "--engine", "inline")
    assert formats() == ["parquet"]


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("curate x.mp4 -r ex", "explore"),
        ("export {w} --format web", "webdataset"),
        ("calibrate fl", "flow"),
        ("tiers {w} --set pretrain.ps", "pretrain.psnr="),
        ("show {w} aa", "aaaaaaaaaaaaaaaa"),
        ("recipe print ba", "base"),
    ],
)
def test_the_tab_key_knows_names(typed: str, offered: str, tmp_path: Path) -> None:
    workspace = fill(tmp_path / "workspace").path
    words = ["longtake", *typed.format(w=workspace).split()]
    done = subprocess.run(
        [sys.executable, "-c", "from longtake.curation.cli.main import app; app(prog_name='longtake')"],
        env={
            **os.environ, "PYTHONPATH": str(ROOT / "src"), "_LONGTAKE_COMPLETE": "complete_bash",
            "COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1),
        },
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert [line for line in done.stdout.splitlines() if line.startswith(offered)], done


# ── the price ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_price_is_told_before_the_run(films: Path, recipe: Path, tmp_path: Path) -> None:
    """Of two films all is looked at: the ends of each interval are one, and they are what the run then takes."""
    loose = {**STRICT, "tiers": {"pretrain": {"width": ">= 64"}}}
    (tmp_path / "loose.yaml").write_text(yaml.safe_dump(loose))
    arguments = [
        "plan",
        films,
        "-r",
        tmp_path / "loose.yaml",
        "--engine",
        "inline",
        "--price",
        "cpu-hour=0.04",
        "--price",
        "gb=2",
    ]
    found = json.loads(longtake(*arguments, "--json").stdout)
    assert (found["videos"], found["sampled"], found["clips"], found["kept"]) == (2, 2, 4, 4)
    assert found["quantities"]["kept"] == pytest.approx(dict.fromkeys(("expected", "low", "high"), 8 / 3600), rel=0.05)
    assert found["quantities"]["CPU"]["expected"] > 0
    paid = 0.04 * found["quantities"]["CPU"]["expected"] + 2 * found["quantities"]["written"]["expected"]
    assert found["money"]["expected"] == pytest.approx(paid)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["loose.yaml"]
    shown = called(*arguments)
    assert re.search(r"^kept \(hours\) +0\.0022", shown, re.MULTILINE)
    assert "Unit costs, measured now on the sample:" in shown
    assert "write NAME=AMOUNT" in called("plan", films, "--price", "cpu=1", code=2)


def asking(server: str, method: str = "joint") -> dict[str, Any]:
    """A recipe that asks one question about each clip, a gate with the answer, and has it captioned by a model."""
    settings = {"endpoint": server, "model": "tiny", "method": method}
    return {
        **STRICT,
        "filters": {**STRICT["filters"], "slideshow": {}},
        "tiers": {"pretrain": {"width": ">= 64", "slideshow": "<= 0"}},
        "captioning": {"captioner": "openai", "settings": settings},
    }


@pytest.mark.parametrize(("method", "each"), [("joint", 3), ("stepwise", 12)])
def test_a_plan_sends_no_request_unasked(method: str, each: int, films: Path, tmp_path: Path) -> None:
    (tmp_path / "asks.yaml").write_text(yaml.safe_dump(asking("http://127.0.0.1:9/v1", method)))
    found = json.loads(longtake("plan", films, "-r", tmp_path / "asks.yaml", "--engine", "inline", "--json").stdout)
    assert found["quantities"]["requests"]["expected"] == 4 * each
    assert found["quantities"]["prompt tokens"] is None
    assert f"takes at least {each} requests" in found["notes"][0]
    assert "`--ask`" in found["notes"][0]


def test_a_plan_that_may_ask_counts_questions_and_captions(films: Path, tmp_path: Path) -> None:
    def script(ask: Ask) -> Reply:
        return Reply(json.dumps({"slideshow": "no"})) if ask.keys == ("slideshow",) else good(ask)

    with Server(script) as server:
        (tmp_path / "asks.yaml").write_text(yaml.safe_dump(asking(server.url)))
        arguments = ["plan", films, "-r", tmp_path / "asks.yaml", "--engine", "inline", "--json"]
        asked = ["--ask", "--allow-endpoint", f"127.0.0.1:{server.port}"]
        found = json.loads(longtake(*arguments, *asked, XDG_CONFIG_HOME=str(tmp_path)).stdout)
        assert found["quantities"]["requests"]["expected"] == len(server.asked) == 12
        # A thousand tokens are its unit; the server says 100 of each prompt.
        assert found["quantities"]["prompt tokens"]["expected"] == pytest.approx(1.2)
    assert found["kept"] == 4
