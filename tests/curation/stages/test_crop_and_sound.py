"""A film with a letterbox and with sound, from file to dataset: what is cut away, what is heard, and who says so."""

from __future__ import annotations

import io
import json
import tarfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from longtake.curation.cli.main import app
from longtake.curation.workspace import Workspace
from longtake.manifests.frames import read_frames
from tests.corpus import X264, Encoding, add_video, bars, pan

SIZE = (640, 360)
FPS, SECONDS, RATE = 12, 3, 44100
RECIPE: dict[str, Any] = {
    "name": "cut",
    "crop": "borders",
    "splitting": {"detector": "none", "min_seconds": 3, "window_seconds": 3},
    "filters": {
        "width": {},
        "height": {},
        "fps": {},
        "duration": {},
        "grayscale": {},
        "artifacts": {"backend": "borders"},
    },
    "tiers": {"pretrain": {"width": ">= 640", "height": ">= 240"}},
    "captioning": {"captioner": "descriptors"},
    "export": {
        "formats": ["parquet", "webdataset"],
        "fps": 12,
        "frames": 36,
        "preset": "ultrafast",
        "keep_audio": True,
    },
}


def letterboxed(path: Path, *, sound: bool) -> Path:
    how = Encoding(SIZE, FPS, options=(*X264.items(), ("crf", "20")))
    with av.open(str(path), "w") as out:
        video = add_video(out, how)
        audio: Any = out.add_stream("aac", rate=RATE, layout="stereo") if sound else None
        for number, picture in enumerate(bars(48, 48, size=SIZE).over(pan("street", (8, 2), size=SIZE, count=37))):
            frame = av.VideoFrame.from_ndarray(picture, format="yuv420p")
            frame.pts, frame.time_base, frame.color_range, frame.colorspace = number, Fraction(1, FPS), 1, 6
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        if audio is not None:
            wave = 0.1 * np.sin(2 * np.pi * 1000 * np.arange(RATE * SECONDS) / RATE)
            block = av.AudioFrame.from_ndarray(np.repeat(wave[None].astype("f4"), 2, axis=0), "fltp", "stereo")
            block.sample_rate, block.pts, block.time_base = RATE, 0, Fraction(1, RATE)
            out.mux(audio.encode(block))
            out.mux(audio.encode(None))
    return path


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cut")
    (folder / "films").mkdir()
    letterboxed(folder / "films" / "loud.mp4", sound=True)
    letterboxed(folder / "films" / "mute.mp4", sound=False)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    run(folder, "curate", str(folder / "films"), "-o", str(folder / "workspace"), "--engine", "inline")
    return folder / "workspace"


def run(folder: Path, command: str, *arguments: str) -> str:
    how = ["-r", str(folder / "recipe.yaml")] if command == "curate" else []
    result = CliRunner().invoke(app, [command, *arguments, *how])
    assert result.exit_code == 0, result.output
    return result.output


def test_the_table_tells_of_crop_and_sound(workspace: Path) -> None:
    table = pd.read_parquet(workspace / "dataset" / "pretrain" / "index.parquet").sort_values("uri")
    assert len(table) == 2
    crops = table[["crop_x", "crop_y", "crop_width", "crop_height"]]
    assert crops.to_numpy().tolist() == [[0, 48, 640, 264]] * 2
    assert table[["width", "height"]].to_numpy().tolist() == [[640, 264]] * 2
    assert table["source_height"].tolist() == [264.0] * 2
    assert table["audio"].tolist() == ["kept", "none"]
    loud = table.iloc[0]
    assert (loud["audio_rate"], loud["audio_channels"]) == (RATE, 2)
    assert loud["loudness"] == pytest.approx(-20, abs=0.2)
    assert loud["silence"] == pytest.approx(0, abs=0.05)
    assert np.isnan(table.iloc[1]["loudness"])
    for row in table.itertuples():
        with av.open(str(workspace / "dataset" / "pretrain" / row.path)) as clip:
            assert bool(clip.streams.audio) == (row.audio == "kept")
            assert (clip.streams.video[0].width, clip.streams.video[0].height) == (640, 264)


def test_captions_are_written_of_what_is_kept(workspace: Path) -> None:
    clips = Workspace(str(workspace)).clips.read().to_pylist()
    for clip in clips:
        stored = read_frames(str(workspace), clip["video_id"], [clip["clip_id"]])[clip["clip_id"]]
        with av.open(io.BytesIO(stored.keyframes[0])) as picture:
            frame = next(picture.decode(video=0))
            assert (frame.width, frame.height) == (640, 264)


def test_the_tars_hold_the_same(workspace: Path) -> None:
    (path,) = (workspace / "dataset" / "pretrain").rglob("*.tar")
    with tarfile.open(path) as tar:
        rows = [json.load(tar.extractfile(m)) for m in tar if m.name.endswith(".json")]  # type: ignore[arg-type]
    assert sorted(row["audio"] for row in rows) == ["kept", "none"]
    assert {row["crop_height"] for row in rows} == {264}


def test_card_and_show_say_so(workspace: Path) -> None:
    card = " ".join((workspace / "dataset" / "pretrain" / "README.md").read_text().split())
    assert "2 of 2 clips show a part of their video's picture" in card
    assert "kept 1, none 1" in card
    assert "BS.1770" in card
    (clip, *_) = Workspace(str(workspace)).clips.read(["clip_id"])["clip_id"].to_pylist()
    told = run(workspace.parent, "show", str(workspace), clip)
    assert "crop: 640×264 px of its picture, from (0, 48) on" in told
    assert "crop_x" not in told


def test_another_recipe_does_not_read_scores_of_the_crop(workspace: Path) -> None:
    (workspace.parent / "whole.yaml").write_text(yaml.safe_dump({**RECIPE, "crop": None}))
    told = json.loads(
        run(workspace.parent, "stats", str(workspace), "-r", str(workspace.parent / "whole.yaml"), "--json")
    )
    assert told["tiers"]["pretrain"]["undecided"] == 2
