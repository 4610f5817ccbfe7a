"""`artifact_keyframes`: in how many keyframes there is something over the picture."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from longtake.filters import artifacts, registry, text_boxes
from longtake.filters.base import Sample, Score
from longtake.settings import SettingsError

HEIGHT, WIDTH = 180, 320


def still_scene() -> Sample:
    """Five keyframes and partners of one grey wall that differ in a level; nobody could tell a mark from it."""
    wall = np.clip(np.random.default_rng(1).normal(120, 12, (HEIGHT, WIDTH, 1)), 0, 255).astype(np.uint8)
    frames = np.stack([wall + np.uint8(i) for i in range(10)]).repeat(3, axis=3)
    times = np.arange(0, 15, 3, dtype=np.float64)
    return Sample(frames[::2], frames[1::2], times, np.arange(0.5, 15, 3, dtype=np.float64))


def score_of(name: str, sample: Sample, **settings: object) -> Score:
    filter_ = registry.build(name, settings)
    (score,) = filter_.measure([sample])
    assert isinstance(score, Score)
    return score


def test_a_title_in_two_keyframes_of_five(monkeypatch: pytest.MonkeyPatch) -> None:
    sample = still_scene()
    box = np.array([[[20, 20], [220, 20], [220, 36], [20, 36]]], np.int32)
    titled = [sample.keyframes[1].tobytes(), sample.keyframes[2].tobytes()]
    nothing = np.zeros((0, 4, 2), np.int32)
    monkeypatch.setattr(artifacts, "model_hash", lambda: "0" * 12)
    monkeypatch.setattr(artifacts, "text_boxes", lambda image: box if image.tobytes() in titled else nothing)
    area = score_of("artifacts", sample)
    assert area.value == pytest.approx(200 * 16 / (HEIGHT * WIDTH), abs=0.01)
    share = score_of("artifact_keyframes", sample)
    assert (share.value, share.detail) == (0.4, (0.0, 1.0, 1.0, 0.0, 0.0))
    assert score_of("artifact_keyframes", sample, area=0.1).value == 0
    unknown = score_of("artifact_keyframes", sample, not_known="null")
    assert math.isnan(unknown.value)


def test_bars_are_in_all_keyframes() -> None:
    sample = still_scene()
    barred = np.concatenate([sample.keyframes, sample.partners])
    barred[:, :20] = barred[:, -20:] = 0
    sample = replace(sample, keyframes=barred[:5], partners=barred[5:])
    share = score_of("artifact_keyframes", sample, backend="borders", not_known="ignore")
    assert (share.value, share.detail) == (1.0, (1.0,) * 5)
    assert score_of("artifact_keyframes", still_scene(), backend="borders", not_known="ignore").value == 0


def test_its_protocol_tells_the_area_and_the_scan_measures_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifacts, "model_hash", lambda: "0" * 12)
    filter_ = registry.build("artifact_keyframes", {"area": 0.05})
    assert filter_.protocol == registry.build("artifacts", {}).protocol.replace("/max", ",over0.05/mean")
    assert filter_.lower_bound is not None
    bound = registry.build("artifacts", {"backend": "borders", "not_known": "ignore", "reduce": "mean"}).protocol
    assert filter_.lower_bound.protocol == bound.replace("/mean", ",over0.05/mean")
    with pytest.raises((SettingsError, registry.UnknownFilter)):
        registry.build("artifact_keyframes", {"area": 1.0})


def test_two_filters_look_for_text_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []

    def detected(image: np.ndarray) -> text_boxes.Boxes:
        looked.append(image.shape[0])
        return np.ones((1, 4, 2), np.int32)

    monkeypatch.setattr(text_boxes, "_detected", detected)
    monkeypatch.setattr(text_boxes, "_known", {})
    monkeypatch.setattr(text_boxes, "_REMEMBERED", 2)
    pictures = [np.full((size, 30, 3), 7, np.uint8) for size in (10, 20, 30)]
    text_boxes.text_boxes(pictures[0])[:] = 0  # A caller may write to the boxes that it was given.
    assert text_boxes.text_boxes(pictures[0]).all()
    for picture in pictures:
        text_boxes.text_boxes(picture)
    assert looked == [10, 20, 30]
    assert len(text_boxes._known) == 1
