"""What a user hands in: files, folders, globs and lists become one row per video, and what cannot be read says so."""

from __future__ import annotations

import gzip
import json
import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtake.curation.access import Access, Reach
from longtake.curation.errors import BadRow, SetupError
from longtake.curation.inputs import InputReport, gather, read_inputs
from longtake.curation.list_times import seconds
from longtake.curation.lists import ListRules
from longtake.manifests import ids
from longtake.manifests.folder import local_path
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
    assert table.to_pylist() == [
        {
            "video_id": ids.video_id(path),
            "uri": path,
            "licence": None,
            "spans": [],
            "needs_access": False,
            "error": None,
            "bytes": os.stat(path).st_size,
            "modified": datetime.fromtimestamp(os.stat(path).st_mtime, UTC),
            "sha256": None,
            "removed": None,
        }
    ]


def test_a_folder_gives_its_videos_in_order_and_nothing_else(here: Path) -> None:
    touch(
        here, "v/b.MP4", "v/a.mkv", "v/deep/er/c.webm", "v/notes.txt", "v/cover.jpg", "v/.hidden.mp4", "v/.cache/d.mp4"
    )
    (here / "linked").symlink_to(here / "v" / "deep")
    (here / "v" / "link").symlink_to(here / "linked")
    names = [os.path.relpath(uri, here / "v") for uri in uris("v")]
    assert names == ["a.mkv", "b.MP4", "deep/er/c.webm"]


def test_containers_that_are_read_are_known_by_their_other_endings_too(here: Path) -> None:
    """Cameras, recorders and players name MP4, MOV, AVI, Matroska, Ogg and streams in these ways."""
    endings = ["divx", "f4v", "m1v", "m2t", "m2v", "mk3d", "nut", "ogm", "qt", "rm", "rmvb", "tp", "trp"]
    made = touch(here, *(f"a.{ending}" for ending in endings))
    assert uris(".") == made


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


def test_a_name_that_is_not_utf8_is_stored_as_a_uri(here: Path) -> None:
    name = os.fsdecode(b"\xff\xfe.mp4")
    try:
        (here / name).write_bytes(b"x")
    except OSError:
        pytest.skip("this filesystem has no such names")
    (uri,) = uris(".")
    assert uri == f"file://{here}/%FF%FE.mp4"
    assert local_path(uri) == here / name
    (here / "list.txt").write_bytes(b"# ours\n\xff\xfe.mp4\n")
    (here / "list.csv").write_bytes(b"path\n\xff\xfe.mp4\n")
    (here / "list.jsonl").write_text(json.dumps({"path": name}))
    assert uris("list.txt", "list.csv", "list.jsonl", uri, name) == [uri]


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
    (
        "l.csv",
        "a.mp4,0,2\nb.mp4,0,2\n",
        r"its first line holds a film \(a.mp4\) .*: write a line above it .*uri,start,end;",
    ),
    ("l.tsv", "s3://b/a\tx\ns3://b/c\ty\n", r"its first line holds a film \(s3://b/a\)"),
    ("l.csv", "uri,Caption,caption\na,1,2\n", "the column caption comes twice in it"),
    ("l.csv", "name\0" * 1000, r"its columns: name.*…; --uri-column names another one"),
    ("l.csv", "Start Time,start_time,path\n1,2,a\n", "the column start_time comes twice in it"),
    ("l.csv", gzip.compress(b"path\na.mp4\n", mtime=0), r"it is compressed \(gzip\): unpack it"),
    ("l.csv", b"PK\x03\x04 of a spreadsheet", "it is an archive or a spreadsheet"),
    ("l.csv.gz", gzip.compress(b"path\na.mp4\n", mtime=0), "a compressed list is not read: unpack it"),
    ("l.xlsx", b"PK\x03\x04 of a spreadsheet", "a spreadsheet is not read: save it as CSV"),
    ("l.json", "", "there is no video in it"),
    ("l.json", "[]", "there is no video in it"),
    ("l.json", '[{"path": "a.mp4"},', "this list cannot be read: it is not JSON"),
    ("l.json", '{\n"videos": ["a.mp4"]\n}', "it holds no array of objects"),
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


BAD_ROWS: list[tuple[str, str, str]] = [
    ("uri,start,end", "a.mp4,1,2,3", r"it has more cells \(4\) than there are columns \(3\)"),
    ("uri", '"a.mp4', "a quote opens in it and is never closed"),
    ("uri", '"a"b.mp4', "it is no line of a table"),
    ("uri,start,end", ",1,2", "the URI is empty"),
    ("uri,start,end", "a.mp4,5,5", r"the clip ends \(5\) before it starts \(5\)"),
    ("uri,start,end", "a.mp4,5,4", r"the clip ends \(4\) before it starts \(5\)"),
    ("uri,start,end", "a.mp4,5,5.0001", "shorter than a millisecond"),
    ("uri,start,end", "a.mp4,1,", r"a clip needs both, start \(1\) and end \(None\)"),
    ("uri,start,end", "a.mp4,soon,2", "'soon' is no time; write seconds or HH:MM:SS.fff"),
    ("uri,start,end", "a.mp4,nan,2", "'nan' is no time"),
    ("uri,start,end", "a.mp4,-1,2", "'-1' is no time"),
    ("uri,start,end", "a.mp4,00:00:-1,2", "'00:00:-1' is no time"),
    ("uri,start,end", "a.mp4,1_0,20", "'1_0' is no time"),
    ("uri,start,end", "a.mp4,00:00:01:12,00:00:05:00", "counts frames after its last colon: give --list-fps"),
    ("uri,start_frame,end_frame", "a.mp4,0,30", "frame 0 of an unknown rate: give --list-fps"),
    ("uri,start_ms,end_ms", "a.mp4,x,30", "'x' is no number of milliseconds"),
    ("uri,timestamp", "a.mp4,__import__('os').abort()", "not a list"),
    ("uri,timestamp", 'a.mp4,"[[1, 2, 3]]"', r"write the clips as \[\[start, end\], …\], not as \[\[1, 2, 3\]\]"),
    ("uri,timestamp,caption", 'a.mp4,"[[1, 2]]","[]"', r"as many captions \(0\) as clips \(1\)"),
    ("uri,timestamp,caption", 'a.mp4,"[[1, 2], [2, 3]]",one', "not a list: 'one'"),
    ("uri,segments", 'a.mp4,"[{""start"": 1}]"', r"a clip needs both, start \(1\)"),
    ("uri,segments", 'a.mp4,"[{""caption"": ""x""}]"', "each clip needs a start and an end"),
    ("uri,start,end", "a.mp4,0,1e99", "no film is as long as to 1e99"),
    ("uri,start,end", "a.mp4,0,1e309", "'1e309' is no time"),
    ("uri,start_ms,end_ms", "a.mp4,0,1e12", "no film is as long as to 1e12"),
    ("uri,start,end", "a.mp4,00:00:01;12,00:00:05;00", "counts frames after its last colon: give --list-fps"),
    ("uri,start,end,fps", "a.mp4,00:00:01;12,00:00:05;00,25", "as only 29.97 and 59.94 frames a second do, not 25"),
    ("uri,start,end,fps", "a.mp4,00:00:01;12,00:00:05;00,30", "as only 29.97 and 59.94 frames a second do, not 30"),
    ("uri,sub_captions", "a.mp4,\"['a', None]\"", "the sub-captions hold 'None', which is no text"),
    ("uri", "http://[bad/a.mp4", "it is no address: its host or its port cannot be"),
    ("uri", "https://h:99999/a.mp4", "it is no address: its host or its port cannot be"),
    ("uri", "https://", "it is no address: no host is named in it"),
    ("uri", "s3:///a.mp4", "it is no address: no bucket is named in it"),
    ("uri,start,end,sub_captions", "a.mp4,0,1,no", "not a list: 'no'"),
    ("uri", "file://elsewhere/a.mp4", r"names a file of another machine \(elsewhere\)"),
    ("uri", "sftp://h/a.mp4", "the scheme sftp:// is not allowed in a list; --allow-scheme sftp allows it"),
    ("uri", "simplecache::https://h/a.mp4", "a chain of addresses"),
    ("uri", "zip://a.mp4::https://h/a.zip", "a chain of addresses"),
    ("uri", "http://127.0.0.1/a.mp4", "127.0.0.1 is an address of this machine or its network; --allow-private"),
    ("uri", "http://[::1]:80/a.mp4", "is an address of this machine or its network"),
    ("uri", "https://169.254.169.254/latest", "is an address of this machine or its network"),
    ("uri", "http://localhost/a.mp4", "is an address of this machine or its network"),
]


@pytest.mark.parametrize(("header", "row", "why"), BAD_ROWS)
def test_one_bad_row_is_an_error_row_and_the_rest_goes_on(
    here: Path, header: str, row: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LONGTAKE_ALLOW_PRIVATE", raising=False)
    (here / "l.csv").write_text(f"{header}\nb.mp4\n{row}\nc.mp4\n")
    result = gather(["l.csv"])
    rows = result.table.to_pylist()
    assert [row["uri"] for row in rows] == [str(here / "b.mp4"), f"{here}/l.csv#row=2", str(here / "c.mp4")]
    assert [row["error"] is None for row in rows] == [True, False, True]
    assert re.search(why, rows[1]["error"])
    assert rows[1]["error"].startswith("l.csv, row 2: ")
    assert (result.report.rows, result.report.videos, result.report.bad) == (3, 2, [rows[1]["error"]])
    with pytest.raises(SetupError, match=why):
        gather(["l.csv"], strict=True)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('{"uri": ', "it is not JSON"),
        ('["a.mp4"]', "it is not a JSON object"),
        ("[" * 100_000, "it is not JSON"),
        ('{"uri": null}', "the URI is empty"),
        ('{"uri": NaN}', "the URI is empty"),
        ('{"uri": true}', "'True' is no URI"),
        ('{"title": "a"}', "there is no URI in it"),
        ('{"uri": "a\\ud800.mp4"}', "is no UTF-8"),
        ('{"uri": "https://h/\\ud800.mp4"}', "is no UTF-8"),
        ('{"uri": "a.mp4", "caption": "\\udfff"}', "the caption .* is no UTF-8"),
        ('{"uri": "a\\u0000.mp4"}', "a zero byte"),
        ('{"uri": "a.mp4", "start": NaN, "end": 3}', "nan is no time"),
    ],
)
def test_one_bad_line_of_json_is_an_error_row_and_the_rest_goes_on(here: Path, line: str, why: str) -> None:
    (here / "l.jsonl").write_text(f'{{"uri": "b.mp4"}}\n{line}\n{{"uri": "c.mp4"}}\n')
    rows = read_inputs(["l.jsonl"]).to_pylist()
    assert [row["error"] is None for row in rows] == [True, False, True]
    assert re.search(why, rows[1]["error"])


def test_strict_names_every_bad_row(here: Path) -> None:
    (here / "l.csv").write_text("uri,start,end\n" + "a.mp4,2,1\n" * 30)
    with pytest.raises(SetupError, match="30 inputs cannot be used, nothing was begun") as caught:
        gather(["l.csv"], strict=True)
    assert all(f"row {n}:" in str(caught.value) for n in range(1, 31))


def test_a_stray_quote_spoils_its_own_line_only(here: Path) -> None:
    (here / "l.csv").write_text('uri,caption\na.mp4,"never closed\nb.mp4,fine\nc.mp4,"two\nlines"\n5" d.mp4,inch\n')
    rows = read_inputs(["l.csv"]).to_pylist()
    assert [(Path(row["uri"]).name, row["error"] is None) for row in rows] == [
        ("l.csv#row=1", False), ("b.mp4", True), ("c.mp4", True), ('5" d.mp4', True),
    ]  # fmt: skip
    assert rows[2]["spans"][0]["caption"] == "two\nlines"


def test_spaces_before_a_quote_are_no_part_of_a_cell(here: Path) -> None:
    """As people write tables by hand, with a space behind each comma."""
    (here / "l.csv").write_text(
        'path, start, "end", caption\n"a, b.mp4", 0, 5, "a man, a dog"\nc.mp4,\t1, 5,  "two\nlines"\n'
        'd.mp4, 0, 5, "plain"\ne.mp4, 0, 5, the "quoted" word\nf.mp4, 0, 5, 5" of rain\n'
        'g.mp4, 0, 5, "so" to say\n'
    )
    assert listed("l.csv") == [
        ("a, b.mp4", 0, 5, ["a man, a dog"]), ("c.mp4", 1, 5, ["two\nlines"]), ("d.mp4", 0, 5, ["plain"]),
        ("e.mp4", 0, 5, [' the "quoted" word']), ("f.mp4", 0, 5, [' 5" of rain']),
        ("g.mp4", 0, 5, [' "so" to say']),
    ]  # fmt: skip
    spaced = touch(here, "  lead.mp4")
    (here / "l.csv").write_text("caption,path\nx,  lead.mp4\n")
    assert uris("l.csv") == spaced


def test_a_list_that_is_not_there_is_no_video(here: Path) -> None:
    with pytest.raises(SetupError, match=r"videos\.csv: there is no such list"):
        read_inputs(["videos.csv"])
    touch(here, "dir.csv/a.mp4")  # A folder may have such a name.
    assert uris("dir.csv") == [str(here / "dir.csv" / "a.mp4")]
    (here / "one.txt").write_text("1.mp4\n")
    (here / "two.txt").write_text("2.mp4\n")
    assert uris("*.txt") == [str(here / "1.mp4"), str(here / "2.mp4")]


def listed(*items: str, fps: float | None = None) -> list[tuple[Any, ...]]:
    """(name of the film, start, end, its captions) of every clip in lists, and (name,) of a film without clips."""
    found: list[tuple[Any, ...]] = []
    for row in gather(items, ListRules(fps=fps)).table.to_pylist():
        assert row["error"] is None, row["error"]
        name = Path(row["uri"]).name
        found += [(name,)] if not row["spans"] else []
        for span in row["spans"]:
            assert span["captions"] is None or span["caption"] == span["captions"][0]
            texts = span["captions"] or [text for text in [span["caption"]] if text is not None]
            found.append((name, span["start"], span["end"], texts))
    return found


def test_clips_in_milliseconds_frames_and_lengths(here: Path) -> None:
    for header, row in (
        ("start_ms,end_ms", "1500,4000"),
        ("start_frame,end_frame", "36,96"),
        ("start,duration", "1.5,2.5"),
        ("start,end", "00:00:01:12,00:00:04:00"),
        ("start_s,end_s", "1.5,0:04"),
        ("start,end,duration", "1.5,4,999"),
        ("start_frame,duration_frames,fps", "45,75,30"),
        ("start_frame,end_frame,fps", "45,120,30/1"),
    ):
        (here / "l.csv").write_text(f"path,{header}\na.mp4,{row}\n")
        assert listed("l.csv", fps=24) == [("a.mp4", 1.5, 4.0, [])], header


def test_names_of_columns_however_their_words_are_parted(here: Path) -> None:
    for header in (
        "Video Path,Start Time,End Time",
        "video-path,start (s),end (s)",
        "videoPath,startTime,endTime",
        "File Name,clip_start,clip_end",
        "path,t0,t1",
    ):
        (here / "l.csv").write_text(f"{header}\na.mp4,1.5,4\n")
        assert listed("l.csv") == [("a.mp4", 1.5, 4.0, [])], header
        assert not gather(["l.csv"]).report.unread, header
    (here / "l.csv").write_text("video_id,start\nabc,1\n")
    with pytest.raises(SetupError, match="no column of URIs"):
        read_inputs(["l.csv"])


def test_clips_of_a_film_in_one_cell_however_they_are_written(here: Path) -> None:
    two = [("a.mp4", 0.5, 3.0, ["x"]), ("a.mp4", 3.0, 4.0, ["y"])]
    forms: list[tuple[dict[str, Any], list[tuple[Any, ...]]]] = [
        ({"timestamp": [0.5, 3.0], "caption": "x"}, two[:1]),
        ({"timestamp": "[0.5, 3.0]", "caption": ["x"]}, two[:1]),
        ({"timestamp": "['0:00:00.500', '0:00:03.000']", "caption": "x"}, two[:1]),
        ({"timestamp": [[0.5, 3.0]], "caption": "x"}, two[:1]),
        ({"timestamps": [[0.5, 3.0], [3.0, 4.0]], "sentences": ["x", "y"]}, two),
        ({"segments": [{"start": 0.5, "end": 3.0, "text": "x"}, {"start_ms": 3000, "end_ms": 4000, "text": "y"}]}, two),
        ({"segments": [{"start_frame": 15, "end_frame": 90, "text": "x"}], "fps": 30}, two[:1]),
    ]
    for form, wanted in forms:
        (here / "l.jsonl").write_text(json.dumps({"path": "a.mp4", **form}))
        assert listed("l.jsonl") == wanted, form


def test_json_as_an_array_and_in_lines_under_either_name(here: Path) -> None:
    records = [{"path": "a.mp4", "start": 1, "end": 3}, {"path": "b.mp4"}]
    for name in ("l.json", "l.jsonl"):
        for text in (json.dumps(records), json.dumps(records, indent=1), "\n".join(map(json.dumps, records))):
            (here / name).write_text("\ufeff\n" + text)
            assert listed(name) == [("a.mp4", 1.0, 3.0, []), ("b.mp4",)], (name, text)
    (here / "l.json").write_text(json.dumps([records[0], "b.mp4", records[1]]))
    assert [row["error"] and row["error"].split(": ")[1] for row in read_inputs(["l.json"]).to_pylist()] == [
        None, "it is not a JSON object", None,
    ]  # fmt: skip


def test_tables_as_spreadsheets_write_them(here: Path) -> None:
    (here / "l.csv").write_text("sep=;\r\n;path;start;end;\r\n0;a.mp4;1;3;;\r\n1;b.mp4;1;3;;9\r\n", newline="")
    first, second = gather(["l.csv"]).table.to_pylist()
    assert (first["error"], first["spans"][0]["end"]) == (None, 3.0), "cells without a text are no cells too many"
    assert "more cells (6) than there are columns (5)" in second["error"]
    assert not gather(["l.csv"]).report.unread, "a column without a name says nothing"


def test_parquet_of_bytes_of_no_number_and_of_two_columns_of_one_name(here: Path) -> None:
    columns = {"path": [b"a.mp4"], "caption": [b"Gr\xc3\xbc\xc3\x9fe"], "licence": [float("nan")]}
    pq.write_table(pa.table(columns), here / "l.parquet")
    (row,) = read_inputs(["l.parquet"]).to_pylist()
    assert (row["spans"][0]["caption"], row["licence"]) == ("Grüße", None)
    pq.write_table(pa.table({"path": ["a.mp4"], "caption": [[{"text": "x"}]]}), here / "l.parquet")
    assert "is no text" in str(read_inputs(["l.parquet"])["error"][0])
    pq.write_table(pa.table([["a.mp4"], ["b.mp4"]], names=["path", "Path"]), here / "l.parquet")
    with pytest.raises(SetupError, match="the column path comes twice in it"):
        read_inputs(["l.parquet"])


def test_captions_without_times_are_of_the_whole_film(here: Path) -> None:
    (here / "l.csv").write_text("video,caption,score\na.mp4,one,1\na.mp4,two,2\na.mp4,one,3\nb.mp4,,4\n")
    (here / "m.jsonl").write_text('{"path": "c.mp4", "id": 7, "text": ["x", "y"]}\n')
    assert listed("l.csv", "m.jsonl") == [
        ("a.mp4", 0.0, None, ["one", "two"]),
        ("b.mp4",),
        ("c.mp4", 0.0, None, ["x", "y"]),
    ]
    assert gather(["l.csv"]).report.unread == {"l.csv": ["score"]}


def test_names_that_only_later_lines_of_json_have_are_told_as_unread(here: Path) -> None:
    """A list may name clips in a way of its own, but not in its first line: they would be lost in silence."""
    lines = [
        '{"path": "a.mp4"}',
        '{"path": "a.mp4", "parts": [{"start": 1, "end": 3}]}',
        '{"path": "b.mp4", "Clip": 1}',
    ]
    (here / "l.jsonl").write_text("\n".join([*lines, *(f'{{"path": "c.mp4", "x{n}": 1}}' for n in range(300))]))
    unread = gather(["l.jsonl"]).report.unread["l.jsonl"]
    assert unread[:2] == ["parts", "Clip"]
    assert len(unread) == 100


def test_times_as_subtitles_have_them(here: Path) -> None:
    (here / "l.csv").write_text('video,start,end\na.mp4,"00:00:01,500","00:01:04,250"\n')
    assert listed("l.csv") == [("a.mp4", 1.5, 64.25, [])]
    # One comma alone may mean one second and a half, or fifteen.
    (here / "m.csv").write_text('video,start,end\na.mp4,"1,5","4,5"\n')
    (bad,) = gather(["m.csv"]).report.bad
    assert "'1,5' is no time" in bad


@pytest.mark.parametrize("between", [";", "\t"])
def test_a_decimal_comma_is_read_where_something_else_parts_the_columns(here: Path, between: str) -> None:
    """As spreadsheets write numbers in most of Europe. 1,500 may be one and a half or fifteen hundred."""
    head, ending = "path;start;end;fps", ".csv" if between == ";" else ".tsv"
    for name, rows in (
        ("good", ["a.mp4;0,5;4,25;29,97", "b.mp4;0,500;12,0625;", "c.mp4;0:01,5;00:00:02,500;"]),
        ("bad", ["d.mp4;1,500;4;", "e.mp4;-0,5;4;"]),
    ):
        (here / f"{name}{ending}").write_text("\n".join([head, *rows]).replace(";", between))
    assert listed(f"good{ending}") == [("a.mp4", 0.5, 4.25, []), ("b.mp4", 0.5, 12.0625, []), ("c.mp4", 1.5, 2.5, [])]
    bad = gather([f"bad{ending}"]).report.bad
    assert ["'1,500' is no time" in bad[0], "'-0,5' is no time" in bad[1]] == [True, True]


def test_two_licences_for_one_film_make_it_an_error(here: Path) -> None:
    """The first one counted, and nobody was told."""
    (here / "l.csv").write_text(
        "path,start,end,licence\na.mp4,0,5,CC-BY\nb.mp4,0,5,CC0\na.mp4,5,9,\na.mp4,9,12,Proprietary\nb.mp4,5,9, cc0\n"
    )
    (here / "m.csv").write_text("path,licence\nb.mp4,MIT\n")
    found = gather(["l.csv"])
    rows = {Path(row["uri"]).name: row for row in found.table.to_pylist()}
    (told,) = found.report.bad
    assert told == rows["a.mp4"]["error"]
    assert told.startswith("l.csv, row 4: it gives ")
    assert "the licence 'Proprietary', and an earlier row gives it 'CC-BY'" in told
    assert (rows["b.mp4"]["error"], rows["b.mp4"]["licence"]) == (None, "CC0")
    assert "m.csv, row 1: it gives" in gather(["l.csv", "m.csv"]).report.bad[1]
    with pytest.raises(SetupError, match="nothing was begun"):
        gather(["l.csv"], strict=True)


def test_all_captions_of_a_clip_are_kept_in_order(here: Path) -> None:
    (here / "l.csv").write_text(
        "path,start,end,caption\na.mp4,1,5,b\na.mp4,6,9,z\na.mp4,0:01,5.0,a\na.mp4,1,5,\na.mp4,6,9,\"['y', 'x']\"\n"
        "a.mp4,10,20,[laughs] they say\n"
    )
    assert listed("l.csv") == [
        ("a.mp4", 1.0, 5.0, ["b", "a"]),
        ("a.mp4", 6.0, 9.0, ["z", "y", "x"]),
        ("a.mp4", 10.0, 20.0, ["[laughs] they say"]),
    ]


def test_a_row_of_the_whole_film_beside_clips_of_it_is_a_clip(here: Path) -> None:
    (here / "l.csv").write_text("path,start,end\na.mp4,,\na.mp4,1,5\nb.mp4,,\n")
    (here / "m.csv").write_text("path,start,end\nb.mp4,1,5\n")
    assert listed("l.csv") == [("a.mp4", 0.0, None, []), ("a.mp4", 1.0, 5.0, []), ("b.mp4",)]
    assert listed("l.csv", "m.csv")[2:] == [("b.mp4", 1.0, 5.0, [])], "the film of one list, and its clip in another"


def test_other_sub_captions_for_one_clip_are_an_error_row(here: Path) -> None:
    rows = [{"uri": "a.mp4", "start": 0, "end": 9, "sub_captions": list(five)} for five in ("abcde", "abcde", "fghij")]
    (here / "l.jsonl").write_text("\n".join(map(json.dumps, rows)))
    table = read_inputs(["l.jsonl"]).to_pylist()
    assert table[0]["spans"][0]["sub_captions"] == list("abcde")
    assert "row 3: an earlier row gives other sub-captions" in table[1]["error"]


def test_encodings_separators_and_line_ends(here: Path) -> None:
    text = 'path;start;end;caption\r\nGrüße.mp4;1;5;a, b\r\nb.mp4;2;6;"c;\r\nd"\r\n'
    wanted = [("Grüße.mp4", 1.0, 5.0, ["a, b"]), ("b.mp4", 2.0, 6.0, ["c;\r\nd"])]
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"):
        (here / "l.csv").write_bytes(text.encode(encoding))
        assert listed("l.csv") == wanted, encoding
    (here / "l.tsv").write_text(text.replace(",", "\\"), newline="")
    assert [row[:3] for row in listed("l.tsv")] == [row[:3] for row in wanted]
    (here / "l.txt").write_bytes("a b.mp4\r\n\r\nc.mp4".encode("utf-16"))
    assert listed("l.txt") == [("a b.mp4",), ("c.mp4",)]


def test_addresses_of_files(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (path,) = touch(here, "my video.mp4")
    monkeypatch.setenv("HOME", str(here))
    quoted = path.replace(" ", "%20")
    (here / "v").mkdir()
    (here / "v" / "l.txt").write_text(f"file://{quoted}\nfile://localhost{quoted}\nfile:{quoted}\n~/my video.mp4\n")
    assert uris("v/l.txt", f"file://{quoted}") == [path]
    (literal,) = touch(here, "50%20off.mp4")
    assert uris(f"file://{literal}") == [literal], "the name as it is written is there, and the decoded one is not"
    spaced = touch(here, "  lead.mp4", "trail.mp4 ", "#1.mp4")
    (here / "l.txt").write_text("  lead.mp4\ntrail.mp4 \n#1.mp4\n# no file\n")
    assert uris("l.txt") == spaced
    assert gather(["l.txt"]).report.comments == 1


# ── what is left out, and said ───────────────────────────────────────────────────────────────────────────────────────


def lines(report: InputReport) -> str:
    return "\n".join(report.lines())


def test_each_file_comes_once_and_loops_end(here: Path) -> None:
    a, b = touch(here, "loop/a/a.mp4", "loop/b/b.mp4")
    (here / "loop/a/to_b").symlink_to("../b")
    (here / "loop/b/to_a").symlink_to("../a")
    (here / "loop/c").symlink_to(".")
    (here / "loop/a/again.mp4").symlink_to("a.mp4")
    os.link(a, here / "loop/b/hard.mp4")
    dangling, itself = here / "loop/dangling.mp4", here / "loop/self.mp4"
    dangling.symlink_to("nowhere.mp4")
    itself.symlink_to("self.mp4")
    result = gather(["loop", "loop/b", "loop/b/hard.mp4", "loop/**/*.mp4"])
    assert sorted(result.table["uri"].to_pylist()) == [a, b, str(dangling), str(itself)]
    assert "left out, another name of a file that is read already: " in lines(result.report)
    assert uris("loop/b/hard.mp4") == [str(here / "loop/b/hard.mp4")]


def test_a_folder_that_cannot_be_listed_is_said_and_counted(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (good,) = touch(here, "v/ok/ok.mp4", "v/locked/lost.mp4")[:1]
    scandir = os.scandir

    def refuse(path: Any) -> Any:
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    result = gather(["v"])
    assert result.table["uri"].to_pylist() == [str(here / "v/locked"), good]
    assert result.table["error"].to_pylist()[0] == f"{here}/v/locked: this folder cannot be listed: Permission denied"
    assert "cannot be used, and become error rows: 1" in lines(result.report)


def test_what_a_folder_holds_besides_is_counted(here: Path) -> None:
    touch(here, "v/a.mp4", "v/no_ext", "v/b.mp4.part", "v/c.jpg", "v/.d.mp4", "v/.e/f.mp4")
    report = gather(["v"]).report
    assert (report.videos, report.files, report.folders) == (1, 1, 1)
    assert report.endings == {"none": 1, ".part": 1, ".jpg": 1}
    assert report.left_out["hidden"].count == 2
    assert lines(report).splitlines()[0] == "inputs: 1 video from 1 file in 1 folder"
    assert "left out, no video by its name: 3" in lines(report)


def a_workspace(place: Path) -> None:
    touch(place, "recipe.yaml", "videos/00000000000000000001-1-abcdef01.parquet")
    touch(place, "encoded/ab/one.mp4", "dataset/pretrain/clips/ab/one.mp4", "mine/film.mp4")


def test_workspaces_are_no_inputs(here: Path) -> None:
    (film,) = touch(here, "v/film.mp4")
    a_workspace(here / "v/old")
    touch(here, "v/target/encoded/ab/two.mp4")  # The folder v/target has no recipe yet.
    for items in (["v"], ["v/**/*.mp4"], [film, *map(str, (here / "v").glob("*/encoded/*/*.mp4"))]):
        result = gather(items, workspace="v/target")
        assert result.table["uri"].to_pylist() == [film], items
        assert "v/old" in lines(result.report)
        assert "v/target" in lines(result.report)
    (here / "l.txt").write_text(f"{film}\nv/old/encoded/ab/one.mp4\n")
    result = gather(["l.txt"])
    assert result.table["uri"].to_pylist() == [film]
    assert "left out, made by a workspace: 1" in lines(result.report)
    (here / "link").symlink_to(here / "v/old/dataset")
    for item in ("v/old", "v/old/dataset/pretrain", "link", "v/old/encoded/ab/one.mp4"):
        with pytest.raises(SetupError, match=r"there is no video in it: left out, (a|made by a) workspace: 1"):
            gather([item])
    # Films that a user keeps beside the files of a workspace are the user's own.
    assert uris("v/old/mine") == [str(here / "v/old/mine/film.mp4")]


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
    memory.pipe_file("/w/[a].mp4", b"")
    memory.pipe_file("/w/a.mp4", b"")
    memory.pipe_file("/w/[1]/b.mp4", b"")
    assert uris("memory://w/[a].mp4") == ["memory://w/[a].mp4"], "it is a file, and no pattern"
    assert uris("memory://w/[ab].mp4") == ["memory:///w/a.mp4"]
    assert uris("memory://w/[1]") == ["memory:///w/[1]/b.mp4"]
    memory.pipe_file("/v/list.csv", b"path,start,end\na.mp4,1,20\ns3://else/c.mp4,,\n")
    assert uris("memory://v/list.csv") == ["memory://v/a.mp4", "s3://else/c.mp4"]
    assert spans("memory://v/list.csv") == [[(1, 20, None, None)], []]
    with pytest.raises(SetupError, match="there is no video in it"):
        read_inputs(["memory://v/*.avi"])


def test_what_is_no_address_stops_before_any_work() -> None:
    for uri in ("http://[bad/a.mp4", "https://", "http://h:x/a.mp4", "s3:///a.mp4", "gs://"):
        with pytest.raises(SetupError, match="it is no address"):
            read_inputs([uri])


def test_remote_faults_name_the_address(memory: fsspec.AbstractFileSystem) -> None:
    with pytest.raises(SetupError, match=r"memory://v/no\.csv: this list cannot be read"):
        read_inputs(["memory://v/no.csv"])
    with pytest.raises(SetupError, match=r"nosuch://x/\*\.mp4: cannot be listed"):
        read_inputs(["nosuch://x/*.mp4"])


def test_workspaces_in_a_bucket_are_no_inputs(memory: fsspec.AbstractFileSystem) -> None:
    for name in ("ws/recipe.yaml", "ws/inputs/0-1.parquet", "ws/encoded/ab/x.mp4", "target/encoded/ab/y.mp4"):
        memory.pipe_file(f"/v/{name}", b"x")
    a, b = "memory:///v/a.mp4", "memory:///v/deep/b.mkv"
    for item in ("memory://v", "memory://v/**"):
        result = gather([item], workspace="memory://v/target")
        assert result.table["uri"].to_pylist() == [a, b], item
        assert "memory:///v/ws" in lines(result.report)
        assert "memory:///v/target" in lines(result.report)
    with pytest.raises(SetupError, match="there is no video in it: left out, made by a workspace: 1"):
        gather(["memory://v/ws/encoded/ab/x.mp4"])


def test_secrets_are_no_part_of_inputs(here: Path) -> None:
    signed = "https://me:hidden1@h/a.mp4?v=1&X-Amz-Signature=hidden2"
    (here / "l.csv").write_text(
        f"url,start,end\n{signed},1,5\nhttps://h/b.mp4?token=hidden3,5,1\nftp://me:hidden4@h/c.mp4,,\n"
    )
    access = Access(Reach())
    result = gather(
        [signed, "https://h/d.mp4?mine=hidden5", "l.csv"], None, Access(Reach(secret_keys=frozenset({"mine"})))
    )
    assert "hidden" not in f"{result.table.to_pylist()} {lines(result.report)}"
    assert result.table["needs_access"].to_pylist() == [True, True, False, False]
    result = gather(["l.csv"], None, access)
    assert "hidden" not in repr(access)
    assert access.source("https://h/a.mp4?v=1").access is not None
    renewed = signed.replace("hidden", "renewed")
    assert uris(renewed) == ["https://h/a.mp4?v=1"]


def test_web_addresses_are_never_patterns() -> None:
    signed = "https://example.org/v/a[1].mp4?sig=*abc"
    assert uris(signed, "https://example.org/watch?v=1") == [signed.partition("?")[0], "https://example.org/watch?v=1"]


# ── times ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@given(st.integers(0, 99), st.integers(0, 59), st.integers(0, 59), st.integers(0, 999))
def test_clock_times_are_seconds(hours: int, minutes: int, whole: int, thousandths: int) -> None:
    expected = hours * 3600 + minutes * 60 + whole + thousandths / 1000
    assert seconds(f"{hours}:{minutes:02}:{whole:02}.{thousandths:03}") == pytest.approx(expected, abs=1e-9)
    assert seconds(f"{hours * 60 + minutes}:{whole:02}.{thousandths:03}") == pytest.approx(expected, abs=1e-9)
    assert seconds(expected) == expected


@given(st.integers(0, 9), st.integers(0, 59), st.integers(0, 59), st.integers(0, 23))
def test_time_codes_count_frames(hours: int, minutes: int, whole: int, frames: int) -> None:
    code = f"{hours:02}:{minutes:02}:{whole:02}:{frames:02}"
    with pytest.raises(BadRow, match="--list-fps"):
        seconds(code)
    assert seconds(code, 24) == pytest.approx(hours * 3600 + minutes * 60 + whole + frames / 24)
    slow = 24000 / 1001
    assert seconds(code, slow) == pytest.approx((hours * 3600 + minutes * 60 + whole + frames / 24) * 1.001)
    with pytest.raises(BadRow, match="the last one is 23"):
        seconds("00:00:01:24", 24)


def test_time_codes_that_drop_numbers_keep_up_with_the_clock() -> None:
    ntsc = 30000 / 1001
    assert seconds("00:00:59;29", ntsc) == pytest.approx(1799 / ntsc)
    assert seconds("00:01:00;02", ntsc) == pytest.approx(1800 / ntsc), "the numbers 0 and 1 of this minute are dropped"
    assert seconds("00:10:00;00", ntsc) == pytest.approx(17982 / ntsc), "none is dropped in a tenth minute"
    assert seconds("01:00:00;00", 29.97) == pytest.approx(3600, abs=0.01)
    assert seconds("01:00:00;00", 59.94) == pytest.approx(3600, abs=0.01)


@given(st.text(max_size=12) | st.none() | st.booleans() | st.floats())
def test_any_other_thing_is_a_time_or_a_bad_row(value: object) -> None:
    try:
        found = seconds(value)
    except BadRow:
        return
    assert 0 <= found < float("inf")
