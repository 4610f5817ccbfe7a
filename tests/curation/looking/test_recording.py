"""A clip as a recording, read back by Rerun's own reader."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from longtake.curation.cli.main import app
from longtake.curation.clip_table import rows_table
from longtake.curation.looking.recording import TIMELINE, moments
from longtake.curation.workspace import Workspace
from longtake.manifests import schemas
from longtake.manifests.frames import StoredFrames, frames_writer
from tests.curation.tables import clip_id, fill, recipe

TIMES = [1.5, 4.5, 7.5, 10.5, 13.5]


def picture(luma: int) -> bytes:
    return bytes(cv2.imencode(".jpg", np.full((36, 64, 3), luma, np.uint8))[1])


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """The clip a with its frames; b without."""
    found = fill(tmp_path / "workspace")
    row = {"clip_id": clip_id("a"), "video_id": "v1", "uri": "/v1.mp4", "start": 0.0, "end": 15.0, "status": "ok"}
    row |= {"has_frames": True, "scan_id": "scan", "width": 1920.0, "psnr": 8.0, "psnr_detail": [5.0, 7.0, 9.0, 11.0]}
    row |= {"protocols": json.dumps({name: recipe().built[name].protocol for name in ("width", "psnr")})}
    found.clips.append(rows_table([row], schemas.CLIPS, ["width", "psnr"]))
    keys, partners = [picture(20 * i) for i in range(5)], [picture(20 * i + 10) for i in range(5)]
    with frames_writer(found.path, "v1") as writer:
        writer.write(StoredFrames(clip_id("a"), keys, partners, TIMES, [time + 0.5 for time in TIMES], None))
    return found


def run(*arguments: object) -> tuple[int, str]:
    found = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return found.exit_code, " ".join(found.output.split())


def read(path: Path) -> dict[str, list[tuple[float | None, Any]]]:
    """Entity → (seconds or None, what was logged), in the order of time."""
    from rerun.chunk import RrdReader

    found: dict[str, list[tuple[float | None, Any]]] = {}
    for chunk in RrdReader(str(path)).stream():
        table = chunk.to_record_batch()
        names = table.schema.names
        wanted = [name for name in names if name.rpartition(":")[2] in ("blob", "scalars", "text")]
        for row in table.to_pylist():
            when = row.get(TIMELINE)
            for name in wanted:
                value = row[name][0] if row[name] else None
                entity = str(chunk.entity_path).strip("/")
                found.setdefault(entity, []).append((None if when is None else when.total_seconds(), value))
    return {entity: sorted(rows, key=lambda row: row[0] or 0.0) for entity, rows in found.items()}


def test_a_recording_holds_frames_scores_and_captions(tmp_path: Path, workspace: Workspace) -> None:
    pytest.importorskip("rerun")
    path = tmp_path / "clip.rrd"
    code, said = run("rerun", workspace.path, "aaaa", "-o", path)
    assert (code, said) == (0, f"{path}: clip {clip_id('a')}; `rerun {path}` shows it")
    found = read(path)
    frames = found["frames/picture"]
    assert [when for when, _ in frames] == sorted([*TIMES, *(time + 0.5 for time in TIMES)])
    assert [bytes(blob) for _, blob in frames] == [picture(10 * i) for i in range(10)]
    assert found["scores/psnr/measured"] == [(3.0, 5.0), (6.0, 7.0), (9.0, 9.0), (12.0, 11.0)]
    assert found["scores/psnr/pretrain/at_least"] == [(0.0, 4.0), (15.0, 4.0)]
    assert found["scores/psnr/finetune/at_most"] == [(0.0, 10.0), (15.0, 10.0)]
    assert found["captions/now"] == [(3.0 * i, str(i + 1)) for i in range(5)]
    assert found["captions/overall"] == [(None, "A [red]herring[/red].")]
    ((when, told),) = found["clip"]
    assert when is None
    assert told.startswith(f"# {clip_id('a')}\n\n`/v1.mp4`, 0.00 to 15.00 s")
    assert "- finetune: **kept**" in told
    assert "| psnr | 8 |" in told


def test_a_clip_that_cannot_be_shown_says_why(tmp_path: Path, workspace: Workspace) -> None:
    pytest.importorskip("rerun")
    assert run("rerun", workspace.path, "bbbb", "-o", tmp_path / "b.rrd")[0] == 0
    found = read(tmp_path / "b.rrd")
    assert "frames/picture" not in found
    ((_, why),) = found["frames/why"]
    assert why.startswith("No picture of this clip is stored, and its source is not there.")


def test_without_rerun_the_command_says_what_to_install(
    tmp_path: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rerun", None)
    code, said = run("rerun", workspace.path, "aaaa", "-o", tmp_path / "clip.rrd")
    assert code == 3
    assert said == "error: a recording needs Rerun, which is not installed: pip install 'longtake[rerun]'"
    assert not (tmp_path / "clip.rrd").exists()


def test_values_have_the_moments_at_which_they_were_measured() -> None:
    assert moments(5, TIMES, 0, 15).tolist() == TIMES
    assert moments(4, TIMES, 0, 15).tolist() == [3, 6, 9, 12]
    assert moments(15, TIMES, 0, 15).tolist() == [i + 0.5 for i in range(15)]
    assert moments(0, [], 0, 15).tolist() == []
