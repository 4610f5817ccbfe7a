"""The command line: a small run inline, what every command prints and returns, and what is said of a fault."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from longtake.curation.cli.app import console, errors
from longtake.curation.cli.main import app
from longtake.curation.recipe import load_recipe
from longtake.curation.workspace import Workspace
from longtake.manifests.store import StoreError
from tests.corpus import Corpus
from tests.curation.tables import fill

# A recipe that needs no model: it measures only what the scan measures.
QUICK: dict[str, Any] = {
    "name": "quick",
    "filters": {
        "width": {}, "height": {}, "fps": {}, "duration": {}, "grayscale": {},
        "artifacts": {"backend": "borders"}, "psnr": {}, "flow": {"backend": "dis"},
    },
    "tiers": {
        "pretrain": {
            "width": ">= 1280", "height": ">= 720", "duration": ">= 15", "grayscale": "[20, 180]",
            "artifacts": "<= 0.05", "psnr": "[4, 20]", "flow": ">= 40",
        },
        "still": {"width": ">= 1280", "height": ">= 720", "duration": ">= 15", "flow": "<= 1"},
    },
    "export": {"fps": 10, "frames": 30, "max_height": 180, "preset": "ultrafast"},
}  # fmt: skip
VIDEOS = ("pan_left", "too_low", "too_short", "empty", "garbage")
ODD = "[red]not there[red].mp4"


def longtake(*arguments: object, code: int = 0) -> Result:
    result = CliRunner(env={"COLUMNS": "160", "TERM": "dumb"}).invoke(app, [str(a) for a in arguments])
    assert result.exit_code == code, f"{result.exit_code}: {result.output} {result.exception!r}"
    return result


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    for shown in (console, errors):
        monkeypatch.setattr(shown, "_width", 160)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "quick.yaml"
    path.write_text(yaml.safe_dump(QUICK))
    return path


@pytest.fixture(scope="module")
def curated(corpus: Corpus, recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A workspace made by `longtake curate --engine inline`, and what that printed."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "more.txt").write_text(ODD)  # The name stands in a file, since it would be a pattern as an argument.
    videos = [corpus[name] for name in VIDEOS]
    done = longtake("curate", *videos, folder / "more.txt", "-r", recipe, "-o", folder / "w", "--engine", "inline")
    return folder / "w", done.stdout


@pytest.fixture
def by_hand(tmp_path: Path) -> str:
    return fill(tmp_path / "workspace").path


# ── a run ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_run_ends_with_counts_the_funnel_and_where_the_result_is(curated: tuple[Path, str]) -> None:
    workspace, printed = curated
    assert "videos: 6 = 3 ok + 3 errors (empty 1, missing 1, not_video 1)" in printed
    assert "clips: 3 = 3 ok + 0 errors" in printed
    assert "pretrain: 1 kept, 2 rejected" in printed
    assert "pretrain: the funnel" in printed
    assert f"dataset: {workspace}/dataset/pretrain (1 clips)" in printed
    assert len(list((workspace / "dataset" / "pretrain").rglob("*.mp4"))) == 1


def test_every_video_ends_as_one_row_that_names_its_fault(curated: tuple[Path, str]) -> None:
    rows = Workspace(str(curated[0])).videos.read().to_pylist()
    kinds = {Path(row["uri"]).name: row["error_kind"] for row in rows}
    assert kinds == {
        "pan_left.mp4": None, "too_low.mp4": None, "too_short.mp4": None,
        "empty.mp4": "empty", "garbage.mp4": "not_video", ODD: "missing",
    }  # fmt: skip


def test_again_there_is_nothing_to_compute_and_strict_looks_at_this_run(
    curated: tuple[Path, str], tmp_path: Path
) -> None:
    again = longtake("curate", "-o", curated[0], "--engine", "inline", "--strict")
    assert [line for line in again.stdout.splitlines() if "nothing to compute" in line] == [
        f"{stage}: nothing to compute" for stage in ("scan", "score", "caption", "export")
    ]
    longtake(
        "scan", tmp_path / "nowhere.mp4", "-o", tmp_path / "w", "--engine", "inline", code=1
    )  # Every video is an error.
    longtake("scan", "-o", tmp_path / "w", "--engine", "inline", "--retry-errors", "--strict", code=1)


def test_statistics_as_table_json_and_csv(curated: tuple[Path, str]) -> None:
    workspace = curated[0]
    data = json.loads(longtake("stats", workspace, "--json").stdout)
    assert data == json.loads(longtake("stats", "-o", workspace, "--json").stdout)
    assert data["videos"] == {
        "total": 6, "ok": 3, "error": 3, "error_kinds": {"empty": 1, "missing": 1, "not_video": 1}, "tone_mapped": 0,
    }  # fmt: skip
    pretrain = data["tiers"]["pretrain"]
    assert (pretrain["kept"], pretrain["rejected"], pretrain["error"]) == (1, 2, 0)
    # The clips too_low and too_short fail one gate each, and their other scores were never measured.
    for gate in ("height", "duration"):
        assert (pretrain["gates"][gate]["only_failure"], pretrain["gates"][gate]["only_failure_so_far"]) == (0, 1)
    assert set(data["stages"]) == {"scan", "score", "caption", "export"}
    assert data["stages"]["scan"]["rows"] == 6
    rows = list(csv.DictReader(io.StringIO(longtake("stats", workspace, "--csv").stdout)))
    assert {(row["tier"], row["gate"], row["failed"]) for row in rows} >= {("pretrain", "height", "1")}
    table = longtake("stats", workspace).stdout
    for words in ("each gate by itself", "scores", "nearly kept", "the last run of each stage", "fail this alone"):
        assert words in table
    assert "alone so far: no other gate failed it" in table
    assert "alone rejects them as far as they are measured" in table
    assert "nearly kept" not in longtake("stats", workspace, "--near", 0).stdout


def test_show_tells_one_clip_by_the_first_digits_of_its_id(curated: tuple[Path, str]) -> None:
    workspace = Workspace(str(curated[0]))
    clips = workspace.clips.read(["clip_id", "uri"]).to_pylist()
    kept = next(row["clip_id"] for row in clips if row["uri"].endswith("pan_left.mp4"))
    low = next(row["clip_id"] for row in clips if row["uri"].endswith("too_low.mp4"))
    known = json.loads(longtake("show", kept[:8], "-o", workspace.path, "--json").stdout)
    assert known["clip_id"] == kept
    assert known["tiers"]["pretrain"]["verdict"] == "kept"
    assert known["exported"]["num_frames"] == 30
    assert len(known["captions"]["sub_captions"]) == 5
    printed = longtake("show", low, "-o", workspace.path).stdout
    assert "pretrain: rejected" in printed
    assert "height 640 is outside >= 720 by 80" in printed


def test_tiers_decides_again_and_writes_only_when_told(curated: tuple[Path, str], tmp_path: Path) -> None:
    workspace = curated[0]
    before = {path: path.stat().st_mtime_ns for path in sorted(workspace.rglob("*"))}
    printed = longtake("tiers", workspace, "--set", "pretrain.height=>= 640", "--set", "pretrain.duration=off").stdout
    assert re.search(r"tiers\.pretrain\.height\s+>= 720\s+>= 640", printed)
    assert re.search(r"tiers\.pretrain\.duration\s+>= 15\s+–", printed)
    # A clip that fails no gate any more was never measured further.
    assert re.search(r"pretrain\s+1\s+1\s+\+0\s+−0\s+2", printed)
    assert "`longtake curate` measures it" in printed
    saved = tmp_path / "mine.yaml"
    longtake("tiers", workspace, "--set", "pretrain.height=>= 640", "--save", saved)
    assert str(load_recipe(saved).tiers["pretrain"]["height"]) == ">= 640"
    assert {path: path.stat().st_mtime_ns for path in sorted(workspace.rglob("*"))} == before
    longtake("tiers", workspace, "--save", tmp_path / "no" / "where.yaml", code=3)


def test_tiers_write_makes_it_the_workspaces_recipe(by_hand: str) -> None:
    longtake("tiers", by_hand, "--set", "pretrain.psnr=[1, 2]", "--write")
    assert str(Workspace(by_hand).recipe().tiers["pretrain"]["psnr"]) == "[1, 2]"


# ── what comes from outside ──────────────────────────────────────────────────────────────────────────────────────────


def test_markup_in_names_and_texts_is_shown_as_it_is(by_hand: str) -> None:
    assert "/videos/[red]v1[/red].mp4" in longtake("show", "aaaa", "-o", by_hand).stdout
    assert "A [red]herring[/red]." in longtake("show", "aaaa", "-o", by_hand).stdout
    assert "[bold]gone[/bold]" in longtake("show", "ffff", "-o", by_hand).stdout
    assert "[/nope]" in longtake("stats", "/tmp/[/nope]", code=3).stderr
    assert "'[/nope]'" in longtake("show", "[/nope]", "-o", by_hand, code=3).stderr
    assert "'[bold]x'" in longtake("recipe", "validate", "[bold]x", code=2).stderr


# ── exit codes, and words ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["stats"], 2, "give the workspace once: as an argument, or with -o"),
        (["stats", "a", "-o", "b"], 2, "give the workspace once"),
        (["stats", "a", "--json", "--csv"], 2, "--json or --csv, not both"),
        (["stats", "nowhere"], 3, "nowhere is not a workspace: .*`longtake curate` makes one"),
        (["tiers", "nowhere"], 3, "nowhere is not a workspace"),
        (["show", "abc", "-o", "nowhere"], 3, "nowhere is not a workspace"),
        (["stats", "nosuch://bucket"], 3, "nosuch://bucket"),
        (["stats", "{w}", "-r", "embeded"], 2, r"no recipe 'embeded'.*Did you mean 'embedded'\?"),
        (["tiers", "{w}", "--set", "pretrain.flow"], 2, r"--set 'pretrain\.flow': write TIER\.GATE="),
        (["tiers", "{w}", "--set", "pretrian.psnr=off"], 2, r"no tier 'pretrian'; did you mean 'pretrain'\?"),
        (["tiers", "{w}", "--set", "pretrain.flow=>= 3"], 2, "no filter of that name"),
        (["show", "abcdef", "-o", "{w}"], 3, "no clip is called 'abcdef' in .*workspace"),
        (["curate", "-o", "{w}/new", "--engine", "inline"], 3, "nothing to do: no videos were given"),
        (["curate", "x.mp4", "-o", "", "--engine", "inline"], 3, "the workspace has no name"),
        (["stats", " "], 3, "the workspace has no name"),
        (["curate", "{w}/empty.csv", "-o", "{w}/new", "--engine", "inline"], 3, r"empty\.csv: there is no such list"),
        (["curate", "x.mp4"], 2, "Missing option '--output'"),
        (["curate", "x.mp4", "-o", "w", "--until", "scoring"], 2, "scoring"),
        (["curate", "x.mp4", "-o", "w", "--workers", "0"], 2, "workers"),
        (["score", "{w}/new"], 3, "nothing to do"),
        (["recipe", "validate", "{w}/bad.yaml"], 2, r"line 2: spliting: unknown key; did you mean 'splitting'.*\n  line 3: "),
        (["recipe", "diff", "embedded", "nope"], 2, "no recipe 'nope'"),
        (["frobnicate"], 2, "No such command 'frobnicate'"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_and_returned(
    arguments: list[str], code: int, words: str, by_hand: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (Path(by_hand) / "bad.yaml").write_text("name: bad\nspliting: {}\nfilters: {width: {reduc: min}}\ntiers: {a: {}}\n")
    result = longtake(*(text.format(w=by_hand) for text in arguments), code=code)
    assert re.search(words, result.stderr, re.DOTALL), result.stderr
    assert result.stdout == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["workspace"]


@pytest.mark.parametrize("stage", ["scan", "score", "caption", "export", "curate"])
def test_a_stage_over_a_folder_that_is_no_workspace_writes_nothing(stage: str, tmp_path: Path) -> None:
    """A mistyped name made a folder, and a folder of films got the files of a run that failed."""
    (tmp_path / "films").mkdir()
    assert "nothing was written" in longtake(stage, "-o", tmp_path / "films", code=3).stderr
    assert "nothing was written" in longtake(stage, "-o", tmp_path / "mistyped", code=3).stderr
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["films"]


def test_a_broken_recipe_in_the_workspace_names_its_file(by_hand: str) -> None:
    (Path(by_hand) / "recipe.yaml").write_text("name: !!python/name:os.system")
    assert f"{by_hand}/recipe.yaml: not YAML" in longtake("stats", by_hand, code=2).stderr


def test_a_damaged_manifest_names_its_file_and_the_remedy(by_hand: str) -> None:
    part = next(Path(by_hand, "clips").glob("*.parquet"))
    part.write_bytes(part.read_bytes()[:-20])
    said = longtake("stats", by_hand, code=3).stderr
    assert part.name in said
    assert "Delete it" in said


@pytest.mark.parametrize(
    ("manifest", "remedy"),
    [
        ("inputs", "give its 1 videos to the next run once more"),
        ("forgotten", "give its 1 videos to `longtake forget` once more"),
        ("runs", "it holds only when earlier runs were"),
        ("videos", "computed again by the next run"),
    ],
)
def test_the_remedy_of_a_damaged_manifest_is_one(manifest: str, remedy: str, tmp_path: Path) -> None:
    """What a person gave is not computed by any run: inputs, and requests to forget a video."""
    part = tmp_path / manifest / "01795783800072255308-1-b73d3762.parquet"
    part.parent.mkdir()
    part.write_bytes(b"PAR1 and no more")
    with pytest.raises(StoreError, match=remedy) as caught:
        getattr(Workspace(str(tmp_path)), manifest).read()
    assert part.name in str(caught.value)


# ── help, recipes, doctor ────────────────────────────────────────────────────────────────────────────────────────────

COMMANDS = ["curate", "scan", "score", "caption", "export", "stats", "tiers", "show", "doctor"]
RECIPE_COMMANDS = ["list", "print", "validate", "diff", "schema"]


@pytest.mark.parametrize("command", [[c] for c in COMMANDS] + [["recipe", c] for c in RECIPE_COMMANDS])
def test_every_command_teaches_by_an_example(command: list[str]) -> None:
    text = longtake(*command, "--help").stdout
    assert f"  longtake {' '.join(command)}" in text.split("Examples:")[1]
    assert text == longtake(*command, "-h").stdout


def test_the_first_screen_names_every_command_and_a_first_run() -> None:
    text = longtake("--help").stdout
    assert all(re.search(rf"^  {name} ", text, re.MULTILINE) for name in [*COMMANDS, "recipe"])
    assert "longtake curate videos/ -o workspace" in text


def test_the_examples_in_help_can_be_parsed() -> None:
    """Every option that an example uses is one that its command has."""
    for command in COMMANDS:
        text = longtake(command, "--help").stdout
        options, examples = text.split("Examples:")
        for option in re.findall(r"(?<!\S)--?[a-z][a-z-]*", examples):
            assert re.search(rf"(?<![\w-]){option}(?![\w-])", options), f"{command}: {option}"


def test_recipes_can_be_listed_printed_validated_compared(tmp_path: Path) -> None:
    assert re.search(r"^embedded: .*\n", longtake("recipe", "list").stdout, re.MULTILINE)
    printed = tmp_path / "mine.yaml"
    printed.write_text(longtake("recipe", "print", "embedded").stdout)
    assert load_recipe(printed) == load_recipe("embedded")
    assert "embedded: good (13 filters, tiers pretrain, finetune)" in longtake("recipe", "validate", printed).stdout
    assert "the recipes are the same" in longtake("recipe", "diff", "embedded", printed).stdout
    changed = yaml.safe_load(printed.read_text())
    changed["tiers"]["pretrain"]["flow"], changed["filters"]["psnr"] = ">= 12.5", {"reduce": "every"}
    printed.write_text(yaml.safe_dump(changed, sort_keys=False))
    shown = longtake("recipe", "diff", "embedded", printed).stdout
    assert re.search(r"tiers\.pretrain\.flow\s+>= 32\s+>= 12\.5", shown)
    assert "to be measured again" not in shown
    changed["sampling"]["keyframes"] = 7
    printed.write_text(yaml.safe_dump(changed, sort_keys=False))
    assert "to be measured again: width, height" in longtake("recipe", "diff", "embedded", printed).stdout
    assert json.loads(longtake("recipe", "schema").stdout)["title"] == "Recipe"


def test_the_doctor_of_this_machine(by_hand: str) -> None:
    assert "filter psnr" in longtake("doctor", "-o", by_hand).stdout
    longtake("doctor", "-o", "nosuch://bucket", code=3)
