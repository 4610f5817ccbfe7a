"""Marks go to other tools and come back: nothing is lost, and what does not belong is refused as a whole."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from longtake.curation.cli.main import app
from longtake.curation.cli.marks import Format as Names
from longtake.curation.errors import SetupError
from longtake.curation.looking.studio.exchange import (
    Format,
    Imported,
    items,
    read_marks,
    write_marks,
)
from longtake.curation.looking.studio.marks import FOLDER, Mark, Marks
from longtake.curation.workspace import Workspace
from longtake.manifests.frames import StoredStrip, frames_writer
from tests.curation.tables import CLIPS, clip_id, fill

WHEN = datetime(2026, 3, 4, 5, 6, 7, 89, tzinfo=UTC)
MADE = [
    Mark("Ada L.", WHEN, clip_id("a"), "good", 'crowd, "loud"\n=1+1;☂\r\nend'),
    Mark("Ada L.", WHEN + timedelta(microseconds=1), clip_id("b"), "bad"),
    Mark("bob@example.org", WHEN, clip_id("a"), "bad", "dull"),
]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return fill(tmp_path / "workspace")


def out(workspace: Workspace, how: Format, path: Path) -> Path:
    write_marks(workspace, items(workspace, Marks(workspace, "x").newest()), how, path)
    return path


def other(tmp_path: Path) -> Workspace:
    return fill(tmp_path / "another")


@pytest.mark.parametrize("how", get_args(Format))
def test_a_round_trip_loses_nothing(tmp_path: Path, workspace: Workspace, how: Format) -> None:
    Marks(workspace, "x").put(MADE)
    path, there = out(workspace, how, tmp_path / "out"), other(tmp_path)
    assert read_marks(there, how, path, "whoever") == Imported(3, 0)
    assert Marks(there, "x").newest() == sorted(MADE, key=lambda mark: (mark.clip, mark.who))
    assert read_marks(there, how, path, "whoever") == Imported(0, 3)
    assert len(Marks(there, "x").everything()) == 3


TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)
MARKS = st.builds(
    Mark,
    who=st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=20),
    when=st.datetimes(datetime(2000, 1, 1), timezones=st.just(UTC)),
    clip=st.sampled_from([clip_id(letter) for letter in CLIPS]),
    mark=st.sampled_from(["good", "bad"]),
    note=st.none() | TEXTS.map(str.strip).filter(bool),
)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Workspace]:
    folder = tmp_path_factory.mktemp("two")
    return fill(folder / "one"), fill(folder / "other")


@settings(deadline=None, max_examples=20)
@given(st.lists(MARKS, max_size=6, unique_by=lambda mark: (mark.who, mark.clip)), st.sampled_from(get_args(Format)))
def test_any_marks_come_back(two: tuple[Workspace, Workspace], made: list[Mark], how: Format) -> None:
    here, there = two
    for workspace in two:
        shutil.rmtree(Path(workspace.path, FOLDER), ignore_errors=True)
    if made:
        Marks(here, "x").put(made)
    path = Path(here.path, f"out-{how}")
    assert read_marks(there, how, out(here, how, path), "whoever").new == len(made)
    assert Marks(there, "x").newest() == Marks(here, "x").newest() == sorted(made, key=lambda m: (m.clip, m.who))


def test_a_newer_mark_stays_above_an_older_one_that_comes_in(tmp_path: Path, workspace: Workspace) -> None:
    Marks(workspace, "x").put(MADE)
    path, there = out(workspace, "csv", tmp_path / "out.csv"), other(tmp_path)
    newer = replace(MADE[0], when=WHEN + timedelta(days=1), mark="bad", note=None)
    Marks(there, "x").put([newer])
    assert read_marks(there, "csv", path, "x") == Imported(3, 0)
    assert newer in Marks(there, "x").newest()


def test_a_mark_that_was_changed_in_a_table_is_a_new_one(tmp_path: Path, workspace: Workspace) -> None:
    Marks(workspace, "x").put(MADE)
    path = edited(out(workspace, "csv", tmp_path / "out.csv"), "csv", '"bad","dull"', '"good","better so"')
    assert read_marks(workspace, "csv", path, "x") == Imported(1, 2)
    changed = Marks(workspace, "x").newest()[1]
    assert (changed.who, changed.mark, changed.note) == ("bob@example.org", "good", "better so")
    assert changed.when > datetime.now(UTC) - timedelta(minutes=5)


def test_a_mark_that_was_changed_in_fiftyone_is_of_who_brings_it(tmp_path: Path, workspace: Workspace) -> None:
    Marks(workspace, "x").put(MADE)
    path = edited(out(workspace, "fiftyone", tmp_path / "out"), "fiftyone", '"label": "good"', '"label": "bad"')
    assert read_marks(workspace, "fiftyone", path, "Eve") == Imported(1, 2)
    found = {mark.who: mark.mark for mark in Marks(workspace, "x").newest() if mark.clip == clip_id("a")}
    assert found == {"Ada L.": "good", "bob@example.org": "bad", "Eve": "bad"}


# ── what is refused ──────────────────────────────────────────────────────────────────────────────────────────────────


def edited(path: Path, how: Format, old: str, new: str) -> Path:
    file = path / "samples.json" if how == "fiftyone" else path
    content = file.read_bytes()  # Python would change the line ends of a text.
    assert old.encode() in content
    file.write_bytes(content.replace(old.encode(), new.encode()))
    return path


@pytest.mark.parametrize("how", get_args(Format))
def test_clips_that_are_not_there_are_named_and_nothing_is_stored(
    tmp_path: Path, workspace: Workspace, how: Format
) -> None:
    Marks(workspace, "x").put(MADE)
    path = edited(out(workspace, how, tmp_path / "out"), how, clip_id("b"), "f00d")
    there = other(tmp_path)
    with pytest.raises(SetupError, match=r"f00d is no clip of .*another; nothing was stored$"):
        read_marks(there, how, path, "x")
    assert Marks(there, "x").newest() == []


@pytest.mark.parametrize("how", get_args(Format))
def test_other_choices_are_refused_by_name(tmp_path: Path, workspace: Workspace, how: Format) -> None:
    Marks(workspace, "x").put([MADE[1]])
    path = edited(out(workspace, how, tmp_path / "out"), how, '"bad"', '"so-so"')
    there = other(tmp_path)
    with pytest.raises(SetupError, match=r"a mark is good or bad, not 'so-so' of .*; nothing was stored$"):
        read_marks(there, how, path, "x")
    assert Marks(there, "x").newest() == []


@pytest.mark.parametrize("how", get_args(Format))
def test_files_of_other_things_are_refused(tmp_path: Path, workspace: Workspace, how: Format) -> None:
    path = tmp_path / "samples.json"
    for content in (
        b"",
        b"{}",
        b'[{"data": 5}]',
        b"\xff\xfe",
        b'{"samples": [{}]}',
        b'[{"annotations": [{"result": 3}]}]',
    ):
        path.write_bytes(content)
        if (how, content) == ("label-studio", b'[{"data": 5}]'):  # This task has no annotations.
            continue
        with pytest.raises(SetupError, match="holds no marks as"):
            read_marks(workspace, how, path, "x")
    with pytest.raises(SetupError, match=r"cannot read .*No such file"):
        read_marks(workspace, how, tmp_path / "gone", "x")


def test_raters_times_and_notes_are_checked(tmp_path: Path, workspace: Workspace) -> None:
    path = tmp_path / "marks.csv"
    for when, who, note, said in (
        ("2026-01-01T00:00:00", "ada", "", "no time zone"),
        ("yesterday", "ada", "", "Invalid isoformat"),
        (WHEN.isoformat(), "x" * 65, "", "a rater's name"),
        (WHEN.isoformat(), "ada", "x" * 2001, "at most 2000"),
    ):
        path.write_text(f"clip,who,when,mark,note\n{clip_id('a')},{who},{when},good,{note}\n", encoding="utf-8")
        with pytest.raises(SetupError, match=f"the mark of line 2 cannot be used: .*{said}"):
            read_marks(workspace, "csv", path, "x")
    assert Marks(workspace, "x").newest() == []


# ── each format as its tool has it ───────────────────────────────────────────────────────────────────────────────────


def test_a_table_of_a_spreadsheet(tmp_path: Path, workspace: Workspace) -> None:
    path = tmp_path / "marks.csv"
    path.write_text(f"mark,clip\ngood,{clip_id('a')}\n,{clip_id('b')}\n", encoding="utf-8-sig")
    assert read_marks(workspace, "csv", path, "Eve") == Imported(1, 0)
    (mark,) = Marks(workspace, "x").newest()
    assert (mark.who, mark.mark, mark.note) == ("Eve", "good", None)
    assert abs(datetime.now(UTC) - mark.when) < timedelta(minutes=5)


def test_tasks_bring_their_film_and_a_picture(tmp_path: Path, workspace: Workspace) -> None:
    with frames_writer(workspace.path, "v1") as writer:
        writer.write_strip(clip_id("a"), StoredStrip(b"a jpeg", [1.0]))
    Marks(workspace, "x").put(MADE)
    tasks = json.loads(out(workspace, "label-studio", tmp_path / "tasks.json").read_text())
    assert [task["data"]["clip_id"] for task in tasks] == [clip_id("a"), clip_id("b")]
    first = tasks[0]["data"]
    assert first["strip"] == "data:image/jpeg;base64,YSBqcGVn"
    assert (first["video"], first["start"], first["end"]) == ("/videos/[red]v1[/red].mp4", 0.0, 15.0)
    # The interface of the docs shows what there is, and asks for what is read.
    page = (Path(__file__).parents[3] / "docs" / "report-and-studio.md").read_text(encoding="utf-8")
    interface = page.partition("```xml\n")[2].partition("```")[0]
    tags = {element.get("name"): element for element in ElementTree.fromstring(interface) if element.get("name")}
    assert {element.get("value", "$")[1:] for element in tags.values()} - {""} <= set(first)
    assert {choice.get("value") for choice in tags["mark"]} == {"good", "bad"}
    for task in tasks:
        for annotation in task["annotations"]:
            for result in annotation["result"]:
                assert tags[result["from_name"]].get("toName") == result["to_name"]


def test_what_people_answer_in_label_studio_is_theirs(tmp_path: Path, workspace: Workspace) -> None:
    """As Label Studio's JSON export has it: `completed_by`, `updated_at`, cancelled annotations, results in any order."""

    def annotation(mark: str, **more: Any) -> dict[str, Any]:
        choice = {"from_name": "mark", "to_name": "video", "type": "choices", "value": {"choices": [mark]}}
        return {"id": 1, "updated_at": "2026-05-06T07:08:09.000001Z", "result": [choice], **more}

    Marks(workspace, "x").put(MADE[:1])
    tasks = json.loads(out(workspace, "label-studio", tmp_path / "tasks.json").read_text())
    ours = tasks[0]["annotations"][0]
    changed = json.loads(json.dumps(ours))
    changed["result"][0]["value"]["choices"] = [
        "bad"
    ]  # The rater and time of the exported mark do not hold for the changed one.
    changed |= {"completed_by": {"id": 7, "email": "eve@example.org"}, "updated_at": "2026-05-06T07:08:09Z"}
    note = {"from_name": "note", "to_name": "video", "type": "textarea", "value": {"text": ["dark", "and still"]}}
    tasks[0]["annotations"] = [
        changed,
        annotation("good", completed_by=3),
        annotation("bad", was_cancelled=True),
        {"result": [note]},  # A note alone is no mark.
        {**annotation("bad"), "result": [note, *annotation("bad")["result"]]},
    ]
    path = tmp_path / "export.json"
    path.write_text(json.dumps(tasks))
    there = other(tmp_path)
    assert read_marks(there, "label-studio", path, "Ada") == Imported(3, 0)
    found = {mark.who: mark for mark in Marks(there, "x").newest()}
    assert {who: (mark.mark, mark.note) for who, mark in found.items()} == {
        "eve@example.org": ("bad", MADE[0].note and MADE[0].note.replace("\r\n", "\r\n")),
        "Label Studio user 3": ("good", None),
        "Ada": ("bad", "dark\nand still"),
    }
    assert found["Label Studio user 3"].when == datetime(2026, 5, 6, 7, 8, 9, 1, tzinfo=UTC)


def test_tags_of_fiftyone_are_marks(tmp_path: Path, workspace: Workspace) -> None:
    Marks(workspace, "x").put(MADE[:1])
    path = out(workspace, "fiftyone", tmp_path / "out") / "samples.json"
    known = json.loads(path.read_text())
    (sample,) = known["samples"]
    sample |= {"tags": ["kept", "bad"], "last_modified_at": {"$date": "2026-11-26T05:06:40.702Z"}}
    path.write_text(json.dumps(known))
    there = other(tmp_path)
    assert read_marks(there, "fiftyone", path.parent, "Eve") == Imported(2, 0)
    tagged = Marks(there, "x").newest()[1]
    assert (tagged.who, tagged.mark) == ("Eve", "bad")
    assert tagged.when == datetime(2026, 11, 26, 5, 6, 40, 702000, tzinfo=UTC)
    sample["tags"] = ["good", "bad"]
    path.write_text(json.dumps(known))
    with pytest.raises(SetupError, match="not 'good and bad' of clip"):
        read_marks(there, "fiftyone", path.parent, "Eve")


def test_a_folder_of_something_else_is_not_replaced(tmp_path: Path, workspace: Workspace) -> None:
    Marks(workspace, "x").put(MADE)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("three years of work")
    with pytest.raises(SetupError, match="is there already, and is no FiftyOne dataset"):
        out(workspace, "fiftyone", mine)
    assert (mine / "thesis.txt").exists()
    out(workspace, "fiftyone", tmp_path / "new")
    out(workspace, "fiftyone", tmp_path / "new")  # The export replaces a dataset that it wrote itself.


# ── the command ──────────────────────────────────────────────────────────────────────────────────────────────────────


def run(*arguments: object) -> tuple[int, str]:
    found = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return found.exit_code, " ".join(found.output.split())


def test_the_command_there_and_back(tmp_path: Path, workspace: Workspace) -> None:
    assert [name.value for name in Names] == list(get_args(Format))
    Marks(workspace, "x").put(MADE)
    path, there = tmp_path / "marks.csv", other(tmp_path)
    assert run("marks", "export", workspace.path, "-o", path) == (0, f"{path}: 3 marks, 2 clips")
    assert run("marks", "import", there.path, path) == (0, "3 marks stored, 0 were there already")
    path.write_text(f"clip,mark\n{clip_id('a')},maybe\nf00d,good\n")
    code, said = run("marks", "import", there.path, path)
    assert code == 3
    assert said == f"error: {path}: a mark is good or bad, not 'maybe' of line 2; nothing was stored"


def test_kept_clips_go_along_to_be_marked(tmp_path: Path, workspace: Workspace) -> None:
    Marks(workspace, "x").put(MADE[1:2])  # Clip b is rejected by pretrain.
    path = tmp_path / "marks.csv"
    assert run("marks", "export", workspace.path, "--tier", "pretrain", "-o", path) == (0, f"{path}: 1 marks, 2 clips")
    with open(path, encoding="utf-8", newline="") as file:
        rows = {row["clip"]: row for row in csv.DictReader(file)}
    assert {clip: row["mark"] for clip, row in rows.items()} == {clip_id("a"): "", clip_id("b"): "bad"}
    assert read_marks(other(tmp_path), "csv", path, "x") == Imported(1, 0)
    code, said = run("marks", "export", workspace.path, "--tier", "nonsense", "-o", path)
    assert (code, said) == (3, "error: the recipe paper has no tier 'nonsense': it has pretrain, finetune")
