from dataclasses import replace

import cv2
import numpy as np
import pytest

from longtake.filters.base import Image, MeasureError, Motion, Score, standard_error
from longtake.filters.flow_dis import FlowDis, flow_field, mean_length
from longtake.filters.grayscale import grey
from tests.filters.pictures import HEIGHT, WIDTH, crop, noisy, photograph, resized, sample


def stored() -> FlowDis:
    """On the keyframes and their partners."""
    return FlowDis(pairs="stored")


def stars() -> Image:
    """The hardest for DIS: small bright points, alike everywhere."""
    return resized(photograph("hubble_deep_field"), 1260, 1099)


@pytest.mark.parametrize(("right", "down"), [(40, 0), (-60, 20), (80, 0), (0, 100), (120, 0), (-150, -30)])
@pytest.mark.parametrize("scene", ["photographs", "stars"])
def test_known_pans(scene: str, right: int, down: int) -> None:
    picture = None if scene == "photographs" else stars()
    # The window moves one way, what is in it the other.
    a = noisy(crop(150 + max(0, right), 110 + max(0, down), picture=picture), 2, 1)
    b = noisy(crop(150 + max(0, right) - right, 110 + max(0, down) - down, picture=picture), 2, 2)
    flow = flow_field(a, b)
    assert flow.shape == (HEIGHT, WIDTH, 2)
    assert flow.dtype == np.float32
    assert mean_length(flow) == pytest.approx(np.hypot(right, down), rel=0.05)
    assert np.median(flow[..., 0]) == pytest.approx(right, abs=1)
    assert np.median(flow[..., 1]) == pytest.approx(down, abs=1)


def test_known_zoom() -> None:
    picture = crop(600, 60)
    zoom = cv2.getRotationMatrix2D((WIDTH / 2, HEIGHT / 2), 0, 1.08)
    zoomed: Image = cv2.warpAffine(picture, zoom, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REFLECT_101).astype(np.uint8)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    expected = 0.08 * np.hypot(x - WIDTH / 2, y - HEIGHT / 2).mean()
    assert mean_length(flow_field(picture, zoomed)) == pytest.approx(expected, rel=0.07)


def test_nothing_moves() -> None:
    photo = crop(0)
    assert mean_length(flow_field(photo, photo)) == 0.0
    assert mean_length(flow_field(photo, noisy(photo, 2, 3))) < 1.0


def test_an_earlier_pair_leaves_no_trace() -> None:
    # OpenCV's object keeps a start that it was once given.
    a, b, far = crop(500), crop(530), crop(350)
    alone = flow_field(a, b)
    flow_field(a, far)
    assert np.array_equal(flow_field(a, b), alone)


def test_score_is_scaled_to_half_a_second_and_to_960() -> None:
    frames = [crop(200), crop(140), crop(600), crop(540)]  # Each partner is 60 px to the right of its keyframe.
    (full,) = stored().measure([sample(frames)])
    assert isinstance(full, Score)
    assert len(full.detail) == 2
    assert full.value == pytest.approx(60, rel=0.05)
    (slow,) = stored().measure([sample(frames, gap=0.6)])
    assert isinstance(slow, Score)
    assert slow.value == pytest.approx(full.value * 0.5 / 0.6)
    for width, height in ((640, 360), (320, 180)):
        small = [resized(frame, width, height) for frame in frames]
        (score,) = stored().measure([sample(small)])
        assert isinstance(score, Score)
        assert score.value == pytest.approx(60, rel=0.05)


def test_pairs_of_the_pass() -> None:
    """Other pictures than the keyframes: the score is of these."""
    still = sample([crop(200)] * 10)
    steps = np.array([0, 0, 0, 60, 60, 60, 60, 60, 60, 60, 60, 60, 60, 60, 60])
    motion = Motion(
        np.stack([grey(crop(200))] * 15),
        np.stack([grey(crop(200 - step)) for step in steps]),
        np.arange(15) + 0.5,
        np.arange(15) + 1.0,
    )
    (score,) = FlowDis().measure([replace(still, motion=motion)])
    assert isinstance(score, Score)
    assert score.detail == pytest.approx(steps, rel=0.05)
    assert score.value == pytest.approx(48, rel=0.05)
    assert score.standard_error == standard_error(score.detail)
    (stored_score,) = stored().measure([replace(still, motion=motion)])
    assert isinstance(stored_score, Score)
    assert stored_score.value == 0
    (error,) = FlowDis().measure([still])
    assert isinstance(error, MeasureError)
    assert "pairs: stored" in str(error)
    assert FlowDis().protocol == "dis/fast480+phase240,15pairs,per0.5s@960/mean"
    assert FlowDis().on_stored.protocol == "dis/fast480+phase240,keyframe-partner,per0.5s@960/mean"


def test_a_tall_frame() -> None:
    turned = [np.ascontiguousarray(np.rot90(frame)) for frame in (crop(200), crop(120))]
    flow = flow_field(*turned)
    assert np.median(flow[..., 1]) == pytest.approx(-80, abs=1)
    assert mean_length(flow) == pytest.approx(80, rel=0.05)


def test_grey_frames_give_the_same_field() -> None:
    a, b = crop(200), crop(160)
    assert np.array_equal(flow_field(a, b), flow_field(grey(a), grey(b)))


def test_what_cannot_be_measured_is_an_error() -> None:
    photo = crop(0)
    (error,) = stored().measure([sample([photo, photo], gap=0.0)])
    assert isinstance(error, MeasureError)
    assert "not later" in str(error)
    with pytest.raises(MeasureError, match="at least 32"):
        flow_field(photo[:20], photo[:20])
    with pytest.raises(MeasureError, match="one size"):
        flow_field(photo, photo[:100])
