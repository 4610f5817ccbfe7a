"""What a user hands in: files, folders, globs and lists become one row per video, and what cannot be read says so."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtake.curation.errors import SetupError
from longtake.curation.inputs import read_inputs, seconds
from longtake.manifests import ids
from longtake.manifests.schemas import INPUTS

ODD_NAMES = [
    "with space.mp4",
    "quo'te\".mp4",
    "new\nline.mp4",
    "Grüße 東京 🎬.mp4",
    "-dash.mp4",
    "50%[1].mp4",
    "a,b;c.mp4",
]


def touch(folder: Path, *names: str) -> list[str]:
    paths = [folder / name for name in names]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return [str(path) for path in paths]


def uris(*items: str, uri_column: str | None = None) -> list[str]:
    found: list[str] = read_inputs(items, uri_column)["uri"].to_pylist()
    return found


def spans(*items: str) -> list[list[tuple[float, float, str | None, list[str] | None]]]:
    return [
        [(s["start"], s["end"], s["caption"], s["sub_captions"]) for s in row]
        for row in read_inputs(items)["spans"].to_pylist()
    ]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


# ── files, folders, globs ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_row_has_the_schema_of_the_manifest_and_an_id_of_its_uri(here: Path) -> None:
    (path,) = touch(here, "a.mp4")
    table = read_inputs(["a.mp4"])
    assert table.schema == INPUTS
    assert table.to_pylist() == [{"video_id": ids.video_id(path), "uri": path, "licence": None, "spans": []}]


def test_a_folder_gives_its_videos_in_order_and_nothing_else(here: Path) -> None:
    touch(
        here, "v/b.MP4", "v/a.mkv", "v/deep/er/c.webm", "v/notes.txt", "v/cover.jpg", "v/.hidden.mp4", "v/.cache/d.mp4"
    )
    (here / "linked").symlink_to(here / "v" / "deep")
    (here / "v" / "link").symlink_to(here / "linked")
    names = [os.path.relpath(uri, here / "v") for uri in uris("v")]
    assert names == ["a.mkv", "b.MP4", "deep/er/c.webm", "link/er/c.webm"]


def test_a_folder_that_links_to_itself_ends(here: Path) -> None:
    (path,) = touch(here, "v/a.mp4")
    (here / "v" / "loop").symlink_to(here / "v")
    assert uris("v") == [path]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_are_names_however_they_are_given(here: Path, name: str) -> None:
    (path,) = touch(here, f"v/{name}")
    assert uris(f"v/{name}") == uris("v") == uris(path) == uris(f"file://{path}") == [path]
    (here / "list.jsonl").write_text(json.dumps({"path": f"v/{name}"}))
    pq.write_table(pa.table({"path": [f"v/{name}"]}), here / "list.parquet")
    quoted = name.replace('"', '""')
    (here / "list.csv").write_text(f'path\n"v/{quoted}"\n')
    assert uris("list.jsonl") == uris("list.parquet") == uris("list.csv") == [path]


def test_a_name_that_is_not_utf8_is_named(here: Path) -> None:
    try:
        Path(os.fsdecode(b"\xff\xfe.mp4")).write_bytes(b"x")
    except OSError:
        pytest.skip("this filesystem has no such names")
    with pytest.raises(SetupError, match=r"not UTF-8 .*rename"):
        read_inputs(["."])


def test_globs(here: Path) -> None:
    a, b, c = touch(here, "v/a.mp4", "v/b.mp4", "v/deep/c.mp4")
    assert uris("v/*.mp4") == [a, b]
    assert uris("v/**/*.mp4") == [a, b, c]
    with pytest.raises(SetupError, match=r"v/\*\.mkv: there is no video in it"):
        read_inputs(["v/*.mkv"])


def test_what_is_not_there_is_a_row_that_will_be_an_error(here: Path) -> None:
    assert uris("nowhere.mp4") == [str(here / "nowhere.mp4")]


def test_the_same_video_is_one_row_however_often_it_comes(here: Path) -> None:
    a, b = touch(here, "v/a.mp4", "v/b.mp4")
    (here / "list.txt").write_text("v/b.mp4\n./v/../v/a.mp4\n")
    assert uris("v/a.mp4", "v", "v/*.mp4", "list.txt", "./v//b.mp4") == [a, b]


def test_nothing_to_read_is_an_error(here: Path) -> None:
    (here / "empty").mkdir()
    touch(here, "words/notes.md")
    for item in ("empty", "words", "", "  "):
        with pytest.raises(SetupError, match="there is no video in it"):
            read_inputs([item])
    assert read_inputs([]).num_rows == 0


# ── lists ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_relative_paths_are_relative_to_their_list(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = [str(here / "data" / "v" / "a.mp4"), str(here / "up.mp4"), "/abs/c.mp4", "s3://bucket/d.mp4"]
    (here / "data").mkdir()
    (here / "data" / "list.txt").write_text("# a comment\nv/a.mp4\n\n  ../up.mp4  \n/abs/c.mp4\ns3://bucket/d.mp4\n")
    assert uris("data/list.txt") == wanted
    monkeypatch.chdir(here / "data")
    assert uris("list.txt") == wanted


def test_every_kind_of_list_says_the_same(here: Path) -> None:
    rows = [
        {"uri": "a.mp4", "start": "1.5", "end": "0:00:20.25", "caption": "one, two", "licence": "CC0"},
        {"uri": "a.mp4", "start": "30", "end": "45", "caption": "", "licence": ""},
        {"uri": "b.mp4", "start": "", "end": "", "caption": "", "licence": ""},
    ]
    header = list(rows[0])
    for name, mark in (("list.csv", ","), ("list.tsv", "\t")):
        lines = [mark.join(f'"{row[key]}"' for key in header) for row in rows]
        (here / name).write_text("\ufeff" + mark.join(header) + "\r\n" + "\r\n".join(lines) + "\r\n", newline="")
    (here / "list.jsonl").write_text("\n\n".join(json.dumps(row) for row in rows) + "\n")
    pq.write_table(pa.Table.from_pylist(rows), here / "list.parquet")
    for name in ("list.csv", "list.tsv", "list.jsonl", "list.parquet"):
        table = read_inputs([name])
        assert table["uri"].to_pylist() == [str(here / "a.mp4"), str(here / "b.mp4")], name
        assert table["licence"].to_pylist() == ["CC0", None]
        assert spans(name) == [[(1.5, 20.25, "one, two", None), (30.0, 45.0, None, None)], []], name


def test_numbers_stay_numbers_and_names_that_look_like_them_stay_names(here: Path) -> None:
    (here / "list.csv").write_text("file,begin,stop\n007,0,15\nNA,15,1:00:00\n")
    assert uris("list.csv") == [str(here / "007"), str(here / "NA")]
    assert spans("list.csv") == [[(0, 15, None, None)], [(15, 3600, None, None)]]
    pq.write_table(pa.table({"Video": ["a.mp4"], "Start_Time": [2], "End_Time": [17.5]}), here / "list.parquet")
    assert spans("list.parquet") == [[(2, 17.5, None, None)]]


def test_a_clip_that_is_listed_twice_is_one_clip(here: Path) -> None:
    (here / "list.csv").write_text("uri,start,end\na.mp4,0,15\na.mp4,0:00,15.0001\na.mp4,0,16\n")
    assert spans("list.csv") == [[(0, 15, None, None), (0, 16, None, None)]]


def test_panda_70m_as_it_is_published(here: Path) -> None:
    """One row per video: Python lists as text, times as H:MM:SS.fff."""
    (here / "panda.csv").write_text(
        "videoID,url,timestamp,caption,matching_score\n"
        "u-_-1,https://www.youtube.com/watch?v=u-_-1,"
        "\"[['0:00:17.083', '0:00:23.100'], ['0:01:00.000', '0:01:15.500']]\","
        '"[\'A man\'\'s dog, in ""the"" rain.\', ""It\'s a car.""]","[0.5, 0.25]"\n'.replace("man''s", "man")
    )
    table = read_inputs(["panda.csv"])
    assert table["uri"].to_pylist() == ["https://www.youtube.com/watch?v=u-_-1"]
    assert spans("panda.csv") == [
        [(17.083, 23.1, 'A man dog, in "the" rain.', None), (60.0, 75.5, "It's a car.", None)]
    ]
    assert read_inputs(["panda.csv"], "videoID")["uri"].to_pylist() == [str(here / "u-_-1")]


def test_panda_like_lists_with_a_row_per_clip_and_real_lists(here: Path) -> None:
    pairs = [["0:00:01", "0:00:16"], [20, 35.5]]
    rows: list[dict[str, Any]] = [
        {"videoID": "a.mp4", "timestamp": pairs, "caption": ["x", "y"]},
        {"videoID": "b.mp4", "timestamps": [["1", "17"]]},
        {"videoID": "c.mp4", "start": 0, "end": 15, "caption": "all", "sub_captions": ["1", "2", "3", "4", "5"]},
        {"videoID": "c.mp4", "start": 15, "end": 30, "sub_captions": '["1", "2", "3", "4", "5"]'},
    ]
    (here / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))
    five = ["1", "2", "3", "4", "5"]
    assert spans("list.jsonl") == [
        [(1, 16, "x", None), (20, 35.5, "y", None)],
        [(1, 17, None, None)],
        [(0, 15, "all", five), (15, 30, None, five)],
    ]


def test_a_column_can_be_named(here: Path) -> None:
    (here / "list.csv").write_text("uri,proxy\na.mp4,small/a.mp4\n")
    assert uris("list.csv", uri_column="Proxy") == [str(here / "small" / "a.mp4")]


BAD_LISTS: list[tuple[str, str | bytes, str]] = [
    ("l.csv", "", "there is no video in it"),
    ("l.csv", "uri\n", "there is no video in it"),
    ("l.csv", "name,size\na,1\n", r"no column of URIs \(uri, url, path, .*\); its columns: name, size"),
    ("l.csv", "uri,start,end\na.mp4,1,2,3\n", "row 1 has more cells than there are columns"),
    ("l.csv", 'uri\n"a.mp4\n', "cannot be read: unexpected end of data"),
    ("l.csv", b"uri\n\xff\xfe\n", "cannot be read: .*utf-8"),
    ("l.csv", "uri,start,end\n,1,2\n", "row 1: the URI is empty"),
    ("l.csv", "uri,start,end\na.mp4,5,5\n", r"row 1: the clip ends \(5\) before it starts \(5\)"),
    ("l.csv", "uri,start,end\na.mp4,1,\n", r"row 1: a clip needs both, start \(1\) and end \(None\)"),
    ("l.csv", "uri,start,end\na.mp4,soon,2\n", r"row 1: 'soon' is no time; write seconds or HH:MM:SS.fff"),
    ("l.csv", "uri,start,end\na.mp4,nan,2\n", "'nan' is no time"),
    ("l.csv", "uri,start,end\na.mp4,-1,2\n", "'-1' is no time"),
    ("l.csv", "uri,timestamp\na.mp4,__import__('os').abort()\n", "row 1: not a list"),
    ("l.csv", 'uri,timestamp\na.mp4,"[[1, 2, 3]]"\n', r"write \[\[start, end\]"),
    ("l.csv", 'uri,timestamp,caption\na.mp4,"[[1, 2]]","[]"\n', r"as many captions \(0\) as clips"),
    ("l.jsonl", '{"uri": "a.mp4"}\n{"uri": \n', "line 2 is not JSON"),
    ("l.jsonl", '["a.mp4"]\n', "line 1 is not a JSON object"),
    ("l.jsonl", "[" * 100_000, "line 1 is not JSON"),
    ("l.jsonl", '{"uri": "a.mp4", "start": 0, "end": 1, "sub_captions": "no"}', "row 1: not a list: 'no'"),
    ("l.parquet", b"PAR1 but no", r"l\.parquet: this list cannot be read"),
    ("l.parquet", b"", "this list cannot be read"),
    ("l.txt", "# nothing\n\n", "there is no video in it"),
]


@pytest.mark.parametrize(("name", "content", "message"), BAD_LISTS)
def test_a_list_that_cannot_be_used_says_which_and_why(
    here: Path, name: str, content: str | bytes, message: str
) -> None:
    (here / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SetupError, match=message) as caught:
        read_inputs([name])
    assert str(caught.value).startswith(name)


def test_a_list_that_is_not_there_is_no_video(here: Path) -> None:
    with pytest.raises(SetupError, match=r"videos\.csv: there is no such list"):
        read_inputs(["videos.csv"])
    touch(here, "dir.csv/a.mp4")  # a folder may be called so
    assert uris("dir.csv") == [str(here / "dir.csv" / "a.mp4")]
    (here / "one.txt").write_text("1.mp4\n")
    (here / "two.txt").write_text("2.mp4\n")
    assert uris("*.txt") == [str(here / "1.mp4"), str(here / "2.mp4")]


# ── remote ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    fs = fsspec.filesystem("memory")
    for name in ("/v/a.mp4", "/v/deep/b.mkv", "/v/notes.md"):
        fs.pipe_file(name, b"x")
    yield fs
    fs.rm("/v", recursive=True)


def test_remote_folders_globs_and_lists(memory: fsspec.AbstractFileSystem) -> None:
    a, b = "memory:///v/a.mp4", "memory:///v/deep/b.mkv"
    assert uris("memory://v") == uris("memory://v/") == uris("memory://v/**") == [a, b]
    assert uris("memory://v/*.mp4") == [a]
    assert uris("memory://v/a.mp4") == ["memory://v/a.mp4"]
    memory.pipe_file("/v/list.csv", b"path,start,end\na.mp4,1,20\ns3://else/c.mp4,,\n")
    assert uris("memory://v/list.csv") == ["memory://v/a.mp4", "s3://else/c.mp4"]
    assert spans("memory://v/list.csv") == [[(1, 20, None, None)], []]
    with pytest.raises(SetupError, match="there is no video in it"):
        read_inputs(["memory://v/*.avi"])


def test_remote_faults_name_the_address(memory: fsspec.AbstractFileSystem) -> None:
    with pytest.raises(SetupError, match=r"memory://v/no\.csv: this list cannot be read"):
        read_inputs(["memory://v/no.csv"])
    with pytest.raises(SetupError, match=r"nosuch://x/\*\.mp4: cannot be listed"):
        read_inputs(["nosuch://x/*.mp4"])


def test_web_addresses_are_never_patterns() -> None:
    signed = "https://example.org/v/a[1].mp4?sig=*abc"
    assert uris(signed, "https://example.org/watch?v=1") == [signed, "https://example.org/watch?v=1"]


# ── times ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@given(st.integers(0, 99), st.integers(0, 59), st.integers(0, 59), st.integers(0, 999))
def test_clock_times_are_seconds(hours: int, minutes: int, whole: int, thousandths: int) -> None:
    expected = hours * 3600 + minutes * 60 + whole + thousandths / 1000
    assert seconds(f"{hours}:{minutes:02}:{whole:02}.{thousandths:03}", "x") == pytest.approx(expected, abs=1e-9)
    assert seconds(f"{hours * 60 + minutes}:{whole:02}.{thousandths:03}", "x") == pytest.approx(expected, abs=1e-9)
    assert seconds(expected, "x") == expected


@given(st.text(max_size=12) | st.none() | st.booleans() | st.floats())
def test_any_other_thing_is_a_time_or_a_setup_error(value: object) -> None:
    try:
        found = seconds(value, "x")
    except SetupError:
        return
    assert 0 <= found < float("inf")
