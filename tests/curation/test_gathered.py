"""Lists of more films than fit into memory: what is put aside and joined again is what was read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from longtake.curation import gathered
from longtake.curation.errors import SetupError
from longtake.curation.gathered import Found
from longtake.curation.inputs import gather

FILMS = [f"https://films.example/{letter}.mp4" for letter in "abcdef"]
ROW = st.fixed_dictionaries(
    {"url": st.sampled_from(FILMS)},
    optional={
        "start": st.sampled_from([0, 20]),
        "caption": st.sampled_from(["one", "two"]),
        "sub_captions": st.sampled_from([list("12345"), list("abcde")]),
        "licence": st.sampled_from(["CC0", "CC-BY"]),
    },
)


def read(path: Path, held: int, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Any], int]:
    """The rows by URI, and how many videos the report tells of."""
    monkeypatch.setattr(gathered, "HELD", held)
    found = gather([str(path)])
    rows = found.table.to_pylist()
    assert len({row["video_id"] for row in rows}) == len(rows)
    assert found.table.num_rows == len(rows)  # The table can be read again.
    return {row["uri"]: row for row in rows}, found.report.videos


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(ROW, min_size=1, max_size=12))
def test_what_is_put_aside_and_joined_is_what_was_read(
    rows: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "list.jsonl"
    for row in rows:
        if "start" in row:
            row["end"] = row["start"] + 15
        elif "caption" in row or "sub_captions" in row:
            row |= {"start": 40, "end": 60}
    path.write_text("\n".join(map(json.dumps, rows)))
    whole, count = read(path, 1000, monkeypatch)
    parts, again = read(path, 0, monkeypatch)
    # A row that contradicts an earlier one is reported; of several such rows, the first.
    errors = {uri for uri in whole if "#row=" in uri}
    assert {uri: row["error"] for uri, row in parts.items() if "licence" in (row["error"] or "")} == {
        uri: row["error"] for uri, row in whole.items() if "licence" in (row["error"] or "")
    }
    assert {uri for uri in parts if "#row=" in uri} <= errors
    assert bool(errors) == any("#row=" in uri for uri in parts)
    if not errors:
        assert parts == whole
        assert again == count


@pytest.mark.parametrize("held", [0, 1000])
def test_rows_that_contradict_each_other_are_reported_however_far_apart_they_are(
    held: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gathered, "HELD", held)
    path = tmp_path / "list.jsonl"
    clip = {"url": FILMS[0], "start": 0, "end": 15}
    rows: list[dict[str, Any]] = [
        clip | {"sub_captions": list("12345")},
        {"url": FILMS[1], "licence": "CC0"},
        {"url": FILMS[2]},
        clip | {"sub_captions": list("abcde")},
        {"url": FILMS[1], "licence": "MIT"},
        {"url": FILMS[2], "start": 9, "end": 3},
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    found = gather([str(path)])
    errors = [error for error in found.table["error"].to_pylist() if error is not None]
    assert sorted(found.report.bad) == sorted(errors)
    assert len(errors) == 3
    with pytest.raises(SetupError, match="3 inputs cannot be used"):
        gather([str(path)], strict=True)


def test_a_long_list_is_not_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathered, "HELD", 500)
    monkeypatch.setattr(gathered, "_ROWS", 100)
    held, joined = list[int](), list[int]()
    relieve, finish = Found.relieve, Found._finished

    def looked(self: Found) -> None:
        held.append(len(self.rows))
        relieve(self)

    def finished(self: Found, rows: Any, spans: Any) -> Any:
        joined.append(len(rows))
        return finish(self, rows, spans)

    monkeypatch.setattr(Found, "relieve", looked)
    monkeypatch.setattr(Found, "_finished", finished)
    count = 6000
    path = tmp_path / "list.txt"
    path.write_text("".join(f"s3://films/{i:08d}.mp4\n" for i in range(count)))
    found = gather([str(path)])
    tables = [table.num_rows for table in found.tables()]
    assert sum(tables) == count == found.report.videos
    assert max(tables) <= 100
    assert max(held) == 501
    assert max(joined) < 3 * count / 64  # The bound is for each file that others were put aside in.


def test_nothing_but_rows_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathered, "HELD", 0)
    path = tmp_path / "list.csv"
    path.write_text("url,start,end\nhttps://films.example/a.mp4,9,3\nhttps://films.example/b.mp4,x,3\n")
    found = gather([str(path)])
    assert found.report.videos == 0
    assert found.table["error"].null_count == 0
    with pytest.raises(SetupError, match="2 inputs cannot be used"):
        gather([str(path)], strict=True)
    assert isinstance(found.table, pa.Table)
