"""Long films as rows of work: pieces by any worker, joined to what one scan of the whole gives, whatever happens meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from longtake.curation.errors import SetupError, VideoError
from longtake.curation.forgetting import forget
from longtake.curation.pipeline import RunResult, run
from longtake.curation.reading import seams
from longtake.curation.recipe import Recipe
from longtake.curation.stages import scan as module
from longtake.curation.stages.pieces import JOIN, NUMBER, TASK
from longtake.curation.stages.scan import scan_row
from longtake.curation.stages.stage import Options
from longtake.curation.workspace import Workspace
from tests.curation.reading.test_pieces import Film, recipe, short_pieces  # noqa: F401  (pieces of 16 s)

OF_THE_RUN = ("cpu_seconds", "scan_id", "host")
Item = tuple[str, int | None]


@dataclass
class Here:
    """In place of a sandbox: its jobs in this process, each of which a test may keep from being done."""

    done: list[Item] = field(default_factory=list)
    before: Callable[[Item], None] = lambda item: None

    def __call__(self, allowed: Any = None) -> Here:
        return self

    def run(self, function: Callable[..., Any], args: tuple[Any, ...], limits: Any) -> Any:
        row: Mapping[str, Any] = args[0]
        item = (row.get(TASK) or "film", row.get(NUMBER))
        self.before(item)
        made = function(*args)
        self.done.append(item)
        return made


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Here:
    found = Here()
    monkeypatch.setattr(module, "Sandbox", found)
    return found


class Nobody:
    def begin(self, stage: str, rows: int) -> None: ...

    def advance(self, report: Any) -> None: ...

    def end(self, stage: str, total: Any, seconds: float) -> None: ...


def scanned(place: Path, films: Path | None, by: Recipe | None = None, **options: Any) -> RunResult:
    how = Options(("scan",), all_scores=True, engine="inline", **options)
    given = [] if films is None else [str(films)]
    return run(Workspace(str(place), remembers=True), by or recipe(), given, how, Nobody())


def plain(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in OF_THE_RUN}


def require_whole(place: Path, path: Path, scratch: Path) -> None:
    """Rows, frames and folder are as of a scan in one go."""
    workspace = Workspace(str(place))
    (row,) = workspace.videos.read().to_pylist()
    (given,) = workspace.inputs.read().to_pylist()
    wanted = scan_row(given, str(scratch), recipe().model_dump(mode="json"), True)
    columns = row["clips"][0]
    wanted["clips"] = [{name: clip.get(name) for name in columns} for clip in wanted["clips"]]
    assert row["pieces"] > 1
    assert plain(row) == {name: wanted.get(name) for name in plain(row)}
    clips = workspace.clips.read(["clip_id", "scan_id"]).to_pylist()
    assert {clip["clip_id"] for clip in clips} == {clip["clip_id"] for clip in wanted["clips"]}
    assert {clip["scan_id"] for clip in clips} == {row["scan_id"]}
    (frames,) = [file for file in (place / "frames").rglob("*") if file.is_file()]
    (others,) = (scratch / "frames").rglob("*.parquet")
    assert pq.read_table(frames).equals(pq.read_table(others))
    assert not workspace.pieces.rows()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A film of three pieces: the second shot goes over the first seam, the last over the second."""
    (tmp_path / "films").mkdir()
    return Film((9.0, 6.0, 3.0, 17.0)).made(tmp_path / "films")


def test_pieces_are_joined_to_what_one_scan_gives(here: Here, path: Path, tmp_path: Path) -> None:
    result = scanned(tmp_path / "w", path)
    assert here.done == [("film", None), ("piece", 1), ("piece", 2)]
    assert result.errors == 0
    require_whole(tmp_path / "w", path, tmp_path / "once")
    assert scanned(tmp_path / "w", path).stages["scan"].rows == 0


@pytest.mark.slow  # A film of 35 s is made and scanned twice.
@pytest.mark.parametrize("at", [("piece", 1), ("piece", 2)])
def test_a_piece_that_is_killed_is_scanned_again_alone(here: Here, path: Path, tmp_path: Path, at: Item) -> None:
    def kill(item: Item) -> None:
        if item == at:
            raise KeyboardInterrupt

    here.before = kill
    with pytest.raises(KeyboardInterrupt):
        scanned(tmp_path / "w", path)
    had, here.done = list(here.done), []
    here.before = lambda item: None
    scanned(tmp_path / "w", path)
    assert sorted(map(str, had + here.done)) == sorted(map(str, [("film", None), ("piece", 1), ("piece", 2)]))
    require_whole(tmp_path / "w", path, tmp_path / "once")


@pytest.mark.slow  # A film of 35 s is made and scanned twice.
def test_a_piece_that_fails_is_tried_again_alone(here: Here, path: Path, tmp_path: Path) -> None:
    def fail(item: Item) -> None:
        if item == ("piece", 1):
            raise VideoError("crash", "the decoder died")

    here.before = fail
    scanned(tmp_path / "w", path)
    (row,) = Workspace(str(tmp_path / "w")).videos.read().to_pylist()
    assert (row["status"], row["error_kind"]) == ("error", "crash")
    assert row["error"] == "in piece 2 of 3: the decoder died"
    here.done, here.before = [], lambda item: None
    assert scanned(tmp_path / "w", path).stages["scan"].rows == 0
    scanned(tmp_path / "w", path, retry_errors=True)
    assert here.done == [("piece", 1)]
    require_whole(tmp_path / "w", path, tmp_path / "once")


@pytest.mark.slow  # A film of 35 s is made and scanned twice.
def test_a_piece_whose_source_was_away_is_scanned_by_the_next_run(here: Here, path: Path, tmp_path: Path) -> None:
    def fail(item: Item) -> None:
        if item == ("piece", 2):
            raise VideoError("unreachable", "it broke off")

    here.before = fail
    result = scanned(tmp_path / "w", path)
    assert result.faults == 1
    assert Workspace(str(tmp_path / "w")).videos.rows() == 0
    here.done, here.before = [], lambda item: None
    scanned(tmp_path / "w", None)
    assert here.done == [("piece", 2)]
    require_whole(tmp_path / "w", path, tmp_path / "once")


@pytest.mark.slow  # A film of 35 s is made and scanned twice.
def test_pieces_that_do_not_fit_are_scanned_in_one_go(here: Here, path: Path, tmp_path: Path) -> None:
    """As where the file does not decode from its middle as it does from its beginning."""

    def spoil(item: Item) -> None:
        for file in (tmp_path / "w" / "frames").rglob("*-0.json"):
            found = seams.PieceScan.loaded(file.read_text())
            found.tail = "another"
            file.write_text(found.dumped())

    here.before = spoil
    scanned(tmp_path / "w", path)
    assert here.done == [("film", None), ("piece", 1), ("piece", 2), (JOIN, 0)]
    require_whole(tmp_path / "w", path, tmp_path / "once")


@pytest.mark.slow  # A film of 35 s is made and scanned twice.
def test_a_film_that_changes_between_its_pieces_is_begun_anew(here: Here, path: Path, tmp_path: Path) -> None:
    def kill(item: Item) -> None:
        if item == ("piece", 1):
            raise KeyboardInterrupt

    here.before = kill
    with pytest.raises(KeyboardInterrupt):
        scanned(tmp_path / "w", path)
    Film((11.0, 8.0, 16.0)).made(path.parent)
    here.done, here.before = [], lambda item: None
    scanned(tmp_path / "w", path)
    assert here.done == [("film", None), ("piece", 1), ("piece", 2)]
    require_whole(tmp_path / "w", path, tmp_path / "once")


def test_a_forgotten_film_leaves_no_piece(here: Here, path: Path, tmp_path: Path) -> None:
    def kill(item: Item) -> None:
        if item == ("piece", 2):
            raise KeyboardInterrupt

    here.before = kill
    with pytest.raises(KeyboardInterrupt):
        scanned(tmp_path / "w", path)
    workspace = Workspace(str(tmp_path / "w"))
    assert workspace.pieces.rows() == 2
    forget(workspace, [str(path)])
    assert workspace.pieces.rows() == 0
    assert not [file for file in (tmp_path / "w" / "frames").rglob("*") if file.is_file()]


@pytest.mark.slow  # A film of 35 s is made and scanned twice.
def test_parts_of_the_videos_scan_their_films_in_pieces(here: Here, path: Path, tmp_path: Path) -> None:
    for number in (1, 2):
        with suppress(SetupError):  # The film is of one part, and the other has nothing to do.
            scanned(tmp_path / "w", path, part=(number, 2))
    assert here.done == [("film", None), ("piece", 1), ("piece", 2)]
    require_whole(tmp_path / "w", path, tmp_path / "once")


def test_a_film_that_stays_whole_is_told(here: Here, tmp_path: Path) -> None:
    path = Film((24.0,), name="film.ts").made(tmp_path)
    result = scanned(tmp_path / "w", path)
    assert here.done == [("film", None)]
    (row,) = Workspace(str(tmp_path / "w")).videos.read().to_pylist()
    assert row["pieces"] == 1
    assert any("1 film longer than half an hour was read in one piece" in note for note in result.notes)
