"""The export stage on real clips: the contract with Presto (design, section 9), and the right frames in them."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from numpy.typing import NDArray
from typer.testing import CliRunner

from longtake.curation.cli.main import app
from longtake.curation.clip_table import clip_scores
from longtake.curation.errors import RowError
from longtake.curation.looking.report.page import write_report
from longtake.curation.reading.cutting import EncodedClip
from longtake.curation.stages import export as stage
from longtake.curation.stages.datasets import counting, finish
from longtake.curation.workspace import Workspace
from longtake.manifests import schemas
from tests.corpus import CASES, SMALL, Corpus, Encoding, film, pan
from tests.curation.faulty_server import faulty_server
from tests.curation.reading import test_paff as paff
from tests.curation.tables import fill
from tests.curation.tables import recipe as by_hand
from tests.curation.workbench import videos

Grey = NDArray[np.float64]

# The recipe that `embedded` exports by. No costly filter has looked at its clips.
RECIPE: dict[str, Any] = {
    "name": "plain",
    "splitting": {"detector": "none", "dissolves": False, "longer": "faster"},
    "filters": {"width": {}, "height": {}, "fps": {}, "duration": {}, "grayscale": {}},
    "tiers": {
        "pretrain": {"height": ">= 720", "duration": ">= 15"},
        "finetune": {"height": ">= 720", "duration": "[15, 15.5]"},
    },
    "captioning": {"captioner": "sidecar"},
    "export": {"preset": "ultrafast", "crf": 20},
}
NAMES = ("pan_right", "long_take")
FRAMES, FPS = 450, 30


def export(workspace: Path, recipe: Path, *arguments: str | Path) -> None:
    result = CliRunner().invoke(
        app, ["curate", *map(str, arguments), "-o", str(workspace), "-r", str(recipe), "--engine", "inline"]
    )
    assert result.exit_code == 0, result.output


def write_recipe(path: Path, **export_settings: Any) -> Path:
    path.write_text(yaml.safe_dump({**RECIPE, "export": {**RECIPE["export"], **export_settings}}))
    return path


@pytest.fixture(scope="module")
def workspace(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """pan_right (16 s), and the first and last clip of long_take (15 s and 17 s), from a list with captions."""
    folder = tmp_path_factory.mktemp("export")
    spans = [("pan_right", 0.0, 16.0), ("long_take", 0.0, 15.0), ("long_take", 30.0, 47.0)]
    rows = [
        {
            "path": str(corpus[name]), "start": start, "end": end, "licence": "CC0-1.0",
            "caption": f"{name} from {start:g}",
            "sub_captions": [f"{name} from {start:g}, part {part}" for part in range(1, 6)],
        }
        for name, start, end in spans
    ]  # fmt: skip
    pd.DataFrame(rows).to_json(folder / "list.jsonl", orient="records", lines=True)
    export(folder / "workspace", write_recipe(folder / "recipe.yaml"), folder / "list.jsonl")
    return folder / "workspace"


@pytest.fixture(scope="module")
def table(workspace: Path) -> pd.DataFrame:
    return pd.read_parquet(workspace / "dataset" / "pretrain" / "index.parquet")


def decoded(path: Path, numbers: list[int]) -> dict[int, Grey]:
    """Some of the frames, at a quarter of the size."""
    with av.open(str(path)) as source:
        return {n: small(frame) for n, frame in enumerate(source.decode(video=0)) if n in numbers}


def small(frame: av.VideoFrame) -> Grey:
    return frame.reformat(320, 180, "gray").to_ndarray().astype(np.float64)


def nearest(path: Path, times: list[float]) -> list[Grey]:
    """The source's frames nearest to `times` (ascending)."""
    found: list[Grey] = []
    with av.open(str(path)) as source:
        before: tuple[float, av.VideoFrame] | None = None
        for frame in source.decode(video=0):
            assert frame.time is not None
            while len(found) < len(times) and frame.time >= times[len(found)]:
                wanted = times[len(found)]
                closer = before if before and wanted - before[0] <= frame.time - wanted else (frame.time, frame)
                found.append(small(closer[1]))
            before = (frame.time, frame)
    assert before is not None
    # The times behind the last frame show this frame.
    return [*found, *(small(before[1]) for _ in times[len(found) :])]


def difference(a: Grey, b: Grey) -> float:
    return float(np.abs(a - b).mean())


def test_the_table_loads_as_the_trainer_reads_it(workspace: Path, table: pd.DataFrame) -> None:
    folder = workspace / "dataset" / "pretrain"
    assert len(table) == 3
    assert table["path"].str.fullmatch(r"clips/[0-9a-f]{2}/[0-9a-f]+\.mp4").all()
    assert table["clip_id"].is_unique
    assert (table["num_frames"] == FRAMES).all()
    assert (table["fps"] == FPS).all()
    assert (table["height"] / table["width"]).between(0.375, 0.844).all()
    assert (table["verdict"] == "kept").all()
    assert (table["licence"] == "CC0-1.0").all()
    for row in table.itertuples():
        name = Path(row.uri).stem
        assert row.caption == f"{name} from {row.start:g}"
        keys = [str(45 + 90 * part) for part in range(5)]
        assert row.cap == {k: f"{name} from {row.start:g}, part {i}" for i, k in enumerate(keys, 1)}
        assert list(row.cap) == keys
    shards = sorted((folder / "shards").glob("*.parquet"))
    assert len({pq.read_schema(shard).field("cap").type for shard in shards}) == 1
    pd.testing.assert_frame_equal(pd.read_parquet(folder / "shards"), table)


def test_each_clip_decodes_to_exactly_450_frames_at_30_per_second(workspace: Path, table: pd.DataFrame) -> None:
    for row in table.itertuples():
        with av.open(str(workspace / "dataset" / "pretrain" / row.path)) as source:
            stream = source.streams.video[0]
            assert stream.average_rate == FPS
            assert (stream.width, stream.height) == (row.width, row.height)
            times = [frame.time for frame in source.decode(video=0)]
        assert len(times) == row.num_frames == FRAMES
        assert all(abs(b - a - 1 / FPS) < 1e-3 for a, b in pairwise(times) if a is not None and b is not None)


def test_all_of_a_long_clip_is_shown_faster(table: pd.DataFrame) -> None:
    pace = dict(zip(table["caption"], table["pace"], strict=True))
    assert pace == pytest.approx(
        {"pan_right from 0": 16 / 15, "long_take from 0": 1.0, "long_take from 30": 17 / 15}, abs=0.01
    )


def test_a_clip_that_is_shown_faster_is_told_of(workspace: Path) -> None:
    told = "Shown faster than they were filmed: 2 of 3 clips, up to 1.13 times (splitting.longer: faster"
    card = (workspace / "dataset" / "pretrain" / "README.md").read_text()
    assert told in card
    result = CliRunner().invoke(app, ["stats", str(workspace)])
    assert told in result.output.replace("\n", " ")
    assert told.encode() in write_report(Workspace(str(workspace)), Workspace(str(workspace)).recipe())


def test_nothing_else_is_ever_sped_up(tmp_path: Path) -> None:
    """A shot of 47 s, and a clip of the list of 15.9 s: what is left out is counted."""
    shot, listed = tmp_path / "shot.mp4", tmp_path / "listed.mp4"
    for path, seconds in ((shot, 47), (listed, 16)):
        film(path, pan("road", (2, 0), (0, 0), SMALL, 12 * seconds), Encoding(size=SMALL, fps=12))
    recipe = {
        **RECIPE,
        "splitting": {"detector": "none"},
        "tiers": {"pretrain": {"duration": ">= 15"}},
        "captioning": {"captioner": "descriptors"},
        "export": {"max_height": 180, "preset": "ultrafast", "crf": 30},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    rows = [{"path": str(listed), "start": 0.0, "end": 15.9}]
    pd.DataFrame(rows).to_json(tmp_path / "list.jsonl", orient="records", lines=True)
    export(tmp_path / "workspace", tmp_path / "recipe.yaml", tmp_path / "list.jsonl", shot)
    made = Workspace(str(tmp_path / "workspace"))
    clips = pd.read_parquet(tmp_path / "workspace" / "clips")
    assert sorted((clips["end"] - clips["start"]).round(6)) == [15, 15, 15, 15.9]
    exports = pd.read_parquet(tmp_path / "workspace" / "exports")
    assert (exports["pace"] == 1).all()
    assert sorted(exports["seconds_left_out"]) == pytest.approx([0, 0, 0, 0.9])
    assert sorted(made.videos.read()["seconds_left_out"].to_pylist()) == pytest.approx([0, 2], abs=0.01)
    output = CliRunner().invoke(app, ["stats", str(tmp_path / "workspace")]).output.replace("\n", " ")
    assert "Left out at the ends of shots that are longer than their clips: 2.0 s (splitting.longer: windows" in output
    assert "Longer than 450 frames, so that their end is left out: 1 of 4 clips, 0.9 s together" in output
    assert "further video stream" not in output


def test_the_frames_are_those_of_the_source_at_their_times(workspace: Path, table: pd.DataFrame) -> None:
    """Cameras move all the time, so that a frame of another moment is another picture."""
    for row in table.itertuples():
        assert CASES[Path(row.uri).stem].truth.velocity
        numbers = [0, 45, 135, 225, 315, 405, FRAMES - 1]
        frames = decoded(workspace / "dataset" / "pretrain" / row.path, numbers)
        times = [row.start + number * row.pace / FPS for number in numbers]
        last_shown = times[-1] + row.pace / FPS
        assert last_shown == pytest.approx(row.end, abs=0.05), "nothing is left out at the end"
        later = [time + 0.15 for time in times[:-1]]
        asked = sorted([*times, *later])
        shown = dict(zip(asked, nearest(Path(row.uri), asked), strict=True))  # The film is decoded once.
        for number, right in zip(numbers, times, strict=True):
            assert difference(frames[number], shown[right]) < 4, (row.caption, number)
        for number, wrong in zip(numbers, later, strict=False):
            assert difference(frames[number], shown[wrong]) > 8, (row.caption, number)


def test_checksums_and_card(workspace: Path) -> None:
    for tier, clips in (("pretrain", 3), ("finetune", 1)):
        folder = workspace / "dataset" / tier
        listed = subprocess.run(
            ["sha256sum", "--check", "SHA256SUMS"], cwd=folder, check=True, capture_output=True, text=True
        ).stdout.splitlines()
        there = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and p.name != "SHA256SUMS"}
        assert {line.removesuffix(": OK") for line in listed} == there
        card = (folder / "README.md").read_text()
        assert "CC0-1.0" in card
        assert "duration" in card
        assert len(pd.read_parquet(folder / "index.parquet")) == clips
    first, second = (
        {p.stem: p for p in (workspace / "dataset" / t / "clips").rglob("*.mp4")} for t in ("pretrain", "finetune")
    )
    assert all(path.samefile(first[name]) for name, path in second.items()), "a clip in two tiers takes its space once"


def test_what_does_not_count_as_a_score_is_not_exported_as_one(tmp_path: Path) -> None:
    """A lower bound, or a score under a protocol that is not the recipe's."""
    made = fill(tmp_path / "workspace")
    scores = clip_scores(made, by_hand())
    table = counting(scores, by_hand(), np.ones(scores.table.num_rows, bool)).to_pandas().set_index("clip_id")
    has = {
        name: {clip_id[0] for clip_id in table.index[table[f"score {name}"].notna()]} for name in ("psnr", "artifacts")
    }
    # The psnr of j has an old protocol; g and h have lower bounds only, from borders.
    assert has == {"psnr": set("abdeghi"), "artifacts": set("abeij")}


def test_webdataset_is_a_second_format_of_the_same(workspace: Path, table: pd.DataFrame) -> None:
    before = {path: path.stat().st_mtime_ns for path in (workspace / "encoded").rglob("*.mp4")}
    recipe = write_recipe(workspace.parent / "tars.yaml", formats=["parquet", "webdataset"], clips_per_tar=2)
    export(workspace, recipe)
    folder = workspace / "dataset" / "pretrain"
    tars = sorted((folder / "webdataset").glob("*.tar"))
    assert len(tars) == 2
    found: dict[str, set[str]] = {}
    for path in tars:
        with tarfile.open(path) as tar:
            for member in tar:
                key, _, ending = member.name.rpartition("/")[2].partition(".")
                found.setdefault(key, set()).add(ending)
                if ending == "mp4":
                    stream = tar.extractfile(member)
                    clip = table.set_index("clip_id").loc[key, "path"]
                    assert stream is not None
                    assert stream.read() == (folder / str(clip)).read_bytes()
    assert set(found) == set(table["clip_id"])
    assert all({"mp4", "json"} <= endings for endings in found.values())
    assert {path: path.stat().st_mtime_ns for path in (workspace / "encoded").rglob("*.mp4")} == before
    pd.testing.assert_frame_equal(pd.read_parquet(folder / "index.parquet"), table)


@pytest.mark.parametrize("captioner", ["descriptors", "openai"])
def test_another_captioners_captions_are_not_exported(
    workspace: Path, table: pd.DataFrame, captioner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No gate looks at captions here: what is kept stays kept, and goes without. Where it cannot be told whose they are
    (`openai` without a model), they are believed, and the card says so."""
    monkeypatch.delenv("LONGTAKE_CAPTION_MODEL", raising=False)
    recipe = workspace.parent / "another.yaml"
    recipe.write_text(yaml.safe_dump({**RECIPE, "captioning": {"captioner": captioner}}))
    result = CliRunner().invoke(app, ["export", str(workspace), "-r", str(recipe), "--engine", "inline"])
    assert result.exit_code == 0, result.output
    folder = workspace / "dataset" / "pretrain"
    found = pd.read_parquet(folder / "index.parquet")
    assert found["clip_id"].tolist() == table["clip_id"].tolist()
    believed = captioner == "openai"
    assert found["caption"].isna().all() != believed
    assert ("has no model" in (folder / "README.md").read_text()) == believed


@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_an_encoded_file_that_is_gone_or_cut_is_made_anew(
    workspace: Path, table: pd.DataFrame, tmp_path: Path, damage: str
) -> None:
    """A file that was gone ended every later export; one that was cut stayed in the dataset."""
    copy = Path(shutil.copytree(workspace, tmp_path / "workspace"))
    clip = table["clip_id"][0]
    (file,) = (copy / "encoded").rglob(f"{clip}.mp4")
    whole = file.read_bytes()
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(whole[:1000])
    result = CliRunner().invoke(app, ["export", str(copy), "--engine", "inline"])
    assert result.exit_code == 0, result.output
    assert "export: 1 rows to compute" in result.output
    folder = copy / "dataset" / "pretrain"
    found = pd.read_parquet(folder / "index.parquet").set_index("clip_id")
    assert sorted(found.index) == sorted(table["clip_id"])
    assert (folder / found["path"][clip]).read_bytes() == whole
    assert subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=folder, check=False).returncode == 0


SHORT = {
    **RECIPE,
    "splitting": {"detector": "none", "dissolves": False, "min_seconds": 2, "window_seconds": 2},
    "tiers": {"any": {}},
    "captioning": {"captioner": "descriptors"},
    "export": {"preset": "ultrafast", "fps": None, "frames": None},
}


@pytest.mark.parametrize("as_long", [False, True])
def test_no_clip_is_cut_out_of_another_film_than_the_one_that_was_scanned(tmp_path: Path, as_long: bool) -> None:
    """Its file was replaced between scan and export, by one as long or not: the dataset showed the new film under captions of the
    old one. The end of the run says of a clip why it was not cut, and which command scans its film again."""
    (path,) = videos(tmp_path / "films", 1)
    other = videos(tmp_path / "others", 3)[2].read_bytes()
    path.write_bytes(path.read_bytes() + bytes(max(0, len(other) - path.stat().st_size)))
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(SHORT))
    workspace = tmp_path / "workspace"
    export(workspace, tmp_path / "recipe.yaml", path.parent, "--until", "caption")
    size = path.stat().st_size
    path.write_bytes(other + bytes(size - len(other) if as_long else 3))
    assert (path.stat().st_size == size) == as_long
    done = CliRunner().invoke(app, ["export", str(workspace), "--engine", "inline"])
    rows = Workspace(str(workspace)).exports.read().to_pylist()
    assert {(row["status"], row["error_kind"]) for row in rows} == {("error", "changed")}
    assert all("has changed since it was scanned" in row["error"] for row in rows)
    told = done.output.replace("\n", "")
    assert "not encoded: 2 clips (changed 2)" in told
    assert f"longtake curate LIST_OR_FOLDER -o {workspace}" in told
    assert "(one of 2): its file has changed since it was scanned" in told
    export(workspace, tmp_path / "recipe.yaml", path.parent)
    rows = Workspace(str(workspace)).exports.read().to_pylist()
    assert [row["status"] for row in rows] == ["ok", "ok"]


@pytest.mark.parametrize("says", ["ETag", "Last-Modified", "S3"])
def test_a_film_of_the_same_size_behind_an_address_of_a_list_is_noticed(
    tmp_path: Path, says: str, request: pytest.FixtureRequest
) -> None:
    """A list names it, so that no listing says when it was written."""
    (path,) = videos(tmp_path / "films", 1)
    other = videos(tmp_path / "others", 3)[2].read_bytes()
    path.write_bytes(path.read_bytes() + bytes(max(0, len(other) - path.stat().st_size)))
    film = path.read_bytes()
    other += bytes(len(film) - len(other))
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(SHORT))
    workspace, listed = tmp_path / "workspace", tmp_path / "list.txt"

    def exported() -> set[tuple[str, str | None]]:
        again = ["--retry-errors", "--allow-private"]
        CliRunner().invoke(app, ["export", str(workspace), "--engine", "inline", *again], catch_exceptions=False)
        rows = Workspace(str(workspace)).exports.read().to_pylist()
        assert len(rows) == 2
        return {(row["status"], row["error_kind"]) for row in rows}

    with faulty_server(path.parent) as server:
        server.says = {says}
        place = str(path)
        if says == "S3":
            request.getfixturevalue("s3")
            place = "s3://place/film.mp4"

        def put(content: bytes, minute: int) -> None:
            with fsspec.open(place, "wb") as file:
                file.write(content)
            if says != "S3":
                os.utime(path, (0, 1_700_000_000 + 60 * minute))

        put(film, 0)
        listed.write_text(place if says == "S3" else f"{server.url}/{path.name}")
        export(workspace, tmp_path / "recipe.yaml", listed, "--until", "caption", "--allow-private")
        put(other, 1)
        if says == "S3":
            time.sleep(1.1)  # Its times are whole seconds.
            put(other, 1)
        assert exported() == {("error", "changed")}
        put(film, 2)
        assert exported() == {("ok", None)}


def test_clips_that_a_film_has_no_more_are_not_said_to_be_missing(tmp_path: Path) -> None:
    """A film that was scanned anew is shorter than before: each later run said that one of its clips was not encoded."""
    (path,) = videos(tmp_path / "films", 1)
    (other,) = videos(tmp_path / "others", 1, frames=50)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(SHORT))
    workspace = tmp_path / "workspace"
    export(workspace, tmp_path / "recipe.yaml", path.parent, "--until", "caption")
    shutil.copyfile(other, path)
    done = CliRunner().invoke(app, ["export", str(workspace), "--engine", "inline"])
    told = done.output.replace("\n", "")
    assert "not encoded: 2 clips (changed 2)" in told
    again = CliRunner().invoke(app, ["curate", str(path.parent), "-o", str(workspace), "--engine", "inline"])
    assert again.exit_code == 0, again.output
    rows = Workspace(str(workspace)).exports.read().to_pylist()
    assert sorted(row["status"] for row in rows) == ["error", "ok"]
    assert "not encoded" not in again.output


def test_clips_are_cut_out_of_a_film_that_was_copied_back(tmp_path: Path) -> None:
    """Its time of writing is another one, and its content is the same."""
    (path,) = videos(tmp_path / "films", 1)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(SHORT))
    workspace = tmp_path / "workspace"
    export(workspace, tmp_path / "recipe.yaml", path.parent, "--until", "caption")
    path.write_bytes(path.read_bytes())
    os.utime(path, (0, 0))
    done = CliRunner().invoke(app, ["export", str(workspace), "--engine", "inline"])
    assert done.exit_code == 0, done.output
    assert [row["status"] for row in Workspace(str(workspace)).exports.read().to_pylist()] == ["ok", "ok"]


def test_a_dataset_stays_where_a_file_is_gone_and_its_source_is_away(workspace: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(workspace, tmp_path / "workspace"))
    (file,) = (copy / "encoded").rglob(f"{pd.read_parquet(copy / 'exports')['clip_id'][0]}.mp4")
    file.unlink()
    target = Workspace(str(copy))
    counted: dict[str, str] = {}
    finish(target, target.recipe(), counted)
    assert "not encoded 1" in counted["pretrain"]


@pytest.mark.parametrize(
    "place", ["dataset", "dataset/pretrain", "dataset/pretrain/clips", "dataset/pretrain/README.md"]
)
def test_a_link_in_place_of_a_dataset_is_refused_before_any_work(tmp_path: Path, place: str) -> None:
    """Nothing is encoded, and where the link leads everything stays as it was."""
    target = fill(tmp_path / "workspace")
    known = [{"video_id": video, "uri": "/a.mp4"} for video in set(target.clips.read()["video_id"].to_pylist())]
    target.inputs.append(pa.Table.from_pylist(known, schema=schemas.INPUTS))
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "aa").mkdir(parents=True)
    for name in ("mine.mp4", "README.md", "aa/mine.mp4"):
        (elsewhere / name).write_text("mine")
    link = Path(target.path, place)
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(elsewhere / "README.md" if place.endswith(".md") else elsewhere)
    result = CliRunner().invoke(app, ["export", target.path, "--engine", "inline"])
    assert result.exit_code == 3, result.output
    message = result.output.replace("\n", "")
    assert f"{link} is a symbolic link to {elsewhere}" in message
    assert not target.exports.rows()
    assert sorted(p.relative_to(elsewhere).as_posix() for p in elsewhere.rglob("*")) == [
        "README.md", "aa", "aa/mine.mp4", "mine.mp4",
    ]  # fmt: skip
    assert (elsewhere / "README.md").read_text() == "mine"


@pytest.mark.parametrize(("told", "since"), [(None, float("inf")), (0.0, 0.0), (7.5, 7.5)])
def test_an_export_knows_from_when_on_its_film_holds_fields(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: float | None, since: float
) -> None:
    asked: dict[str, Any] = {}

    def cut(*places: Any, **more: Any) -> EncodedClip:
        asked.update(more)
        return EncodedClip(30, 64, 48, 30.0, 1, "")

    monkeypatch.setattr(stage, "cut_clip", cut)
    row = {"uri": str(tmp_path / "film.avi"), "start": 0.0, "end": 1.0, "fields_since": told}
    settings = {"fps": 30.0, "frames": 30, "max_height": None, "preset": "ultrafast", "crf": 18.0, "keep_audio": False}
    with pytest.raises(RowError, match=r"clip\.mp4"):  # Nothing was written.
        stage.encode_clip(row, str(tmp_path / "ws"), "clip.mp4", settings)
    assert asked["fields_since"] == since
    assert "fields_since" in stage._OF_CLIPS


@pytest.mark.parametrize("suffix", ["ts", "mkv", "mp4"])
def test_a_clip_at_the_rate_of_its_film_has_the_rate_that_the_scan_counted(tmp_path: Path, suffix: str) -> None:
    """Each packet of such a film is a field, and containers count packets: a clip of it had 50 frames a second, each twice."""
    paff.film(tmp_path / f"film.{suffix}", [True] * paff.FRAMES)
    rules = {
        **RECIPE,
        "splitting": {"detector": "none", "dissolves": False, "min_seconds": 2.0, "window_seconds": 2.0},
        "tiers": {"any": {"width": ">= 1"}},
        "captioning": {"captioner": "descriptors"},
        "export": {"preset": "ultrafast", "fps": None, "frames": None},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(rules))
    export(tmp_path / "ws", tmp_path / "recipe.yaml", tmp_path / f"film.{suffix}")
    (clip,) = Workspace(str(tmp_path / "ws")).exports.read().to_pylist()
    assert clip["fps"] == pytest.approx(25, rel=0.01)
    assert clip["num_frames"] == 50
    with av.open(str(tmp_path / "ws" / clip["path"])) as container:
        shown = [frame.to_ndarray()[: paff.HEIGHT : 2].astype(int) for frame in container.decode(video=0)]
    assert max(np.abs(lines - paff.scene(2 * k)[0::2]).mean() for k, lines in enumerate(shown)) < 6
