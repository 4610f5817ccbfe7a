from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longtake.filters.artifacts import Artifacts, Borders
from longtake.filters.bars import bars
from longtake.filters.base import Image, MeasureError, Needs, Sample, Score
from longtake.filters.grayscale import grey
from longtake.filters.marks import Seen, seen, static_marks
from longtake.filters.overlaid_text import judged
from tests.filters.pictures import HEIGHT, WIDTH, as_jpeg, crop, noisy, pan, resized, sample

CORPUS = Path(__file__).resolve().parents[3] / "shared" / "corpus" / "videos"


def boxed(frames: list[Image], top: int, bottom: int, left: int, right: int, colour: int = 0) -> list[Image]:
    """Frames with bars painted over their edges."""
    out = []
    for frame in frames:
        image = np.full_like(frame, colour)
        inner = (slice(top, frame.shape[0] - bottom), slice(left, frame.shape[1] - right))
        image[inner] = frame[inner]
        out.append(image)
    return out


def dimmed(frames: list[Image], factor: float) -> list[Image]:
    return [np.rint(frame * factor).astype(np.uint8) for frame in frames]


def tripod() -> list[Image]:
    """A static shot: noise, and a small object that walks through it."""
    frames = []
    for i in range(10):
        frame = noisy(crop(200), 2, i)
        cv2.circle(frame, (80 + 80 * i, 400), 40, (200, 30, 30), -1)
        frames.append(frame)
    return frames


def share(frames: list[Image]) -> float:
    (score,) = Borders(not_known="ignore").measure([sample(frames)])
    assert isinstance(score, Score)
    return score.value


# --- bars


@pytest.mark.parametrize(
    "sides", [(70, 70, 0, 0), (0, 0, 120, 120), (40, 60, 0, 0), (30, 30, 90, 90), (0, 52, 0, 0), (0, 0, 0, 8)]
)
@pytest.mark.parametrize("colour", [0, 16, 255])
def test_known_bars(sides: tuple[int, int, int, int], colour: int) -> None:
    frames = [as_jpeg(frame) for frame in boxed(pan(), *sides, colour)]
    found = bars([grey(frame) for frame in frames])
    assert np.abs(np.subtract(found, sides)).max() <= 2
    top, bottom, left, right = sides
    expected = 1 - (HEIGHT - top - bottom) * (WIDTH - left - right) / (HEIGHT * WIDTH)
    assert share(frames) == pytest.approx(expected, abs=0.01)


@settings(deadline=None, max_examples=15)
@given(st.integers(3, 100), st.integers(3, 100), st.integers(3, 180), st.integers(3, 180))
def test_any_bars(top: int, bottom: int, left: int, right: int) -> None:
    frames = boxed([crop(100 * i, width=480, height=270) for i in range(10)], top, bottom, left, right)
    found = bars([grey(frame) for frame in frames])
    assert np.abs(np.subtract(found, (top, bottom, left, right))).max() <= 2


def test_bars_after_scaling() -> None:
    frames = [resized(frame, 640, 360) for frame in boxed(pan(), 70, 70, 0, 0)]
    top, bottom, left, right = bars([grey(frame) for frame in frames])
    assert top == pytest.approx(70 * 360 / 540, abs=2)
    assert bottom == pytest.approx(70 * 360 / 540, abs=2)
    assert (left, right) == (0, 0)


def test_bars_of_a_static_shot_and_of_a_dark_one() -> None:
    assert bars([grey(frame) for frame in boxed(tripod(), 60, 60, 0, 0)]) == (60, 60, 0, 0)
    dark = [noisy(frame, 1, i) for i, frame in enumerate(boxed(dimmed(pan(), 0.25), 60, 60, 0, 0))]
    assert np.abs(np.subtract(bars([grey(frame) for frame in dark]), (60, 60, 0, 0))).max() <= 2


def test_a_fade_from_black_keeps_its_bars_and_gets_no_more() -> None:
    frames = boxed(pan(), 60, 60, 0, 0)
    frames = [np.rint(frame * min(1.0, i / 5)).astype(np.uint8) for i, frame in enumerate(frames)]
    assert bars([grey(frame) for frame in frames]) == (60, 60, 0, 0)


def test_a_picture_without_bars_has_none() -> None:
    assert share(pan()) == 0.0


@pytest.mark.parametrize("level", [0, 120, 255])
def test_an_empty_frame_has_no_bars(level: int) -> None:
    assert share([noisy(np.full((HEIGHT, WIDTH, 3), level, dtype=np.uint8), 1, i) for i in range(10)]) == 0.0


def test_a_dark_scene_is_no_bar() -> None:
    planet = []
    for i in range(10):
        frame = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
        disc = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
        cv2.circle(disc, (WIDTH // 2, HEIGHT // 2), 230, 255, -1)
        frame[disc > 0] = crop(100 * i)[disc > 0]
        planet.append(frame)
    assert bars([grey(frame) for frame in planet]) == (0, 0, 0, 0)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    vignette = np.clip(1.6 - 2.4 * np.hypot((x - WIDTH / 2) / WIDTH, (y - HEIGHT / 2) / HEIGHT), 0, 1)[..., None]
    night = [noisy(np.rint(frame * vignette * 0.4).astype(np.uint8), 1, i) for i, frame in enumerate(pan())]
    assert bars([grey(frame) for frame in night]) == (0, 0, 0, 0)


def test_a_flat_sky_above_an_uneven_skyline_is_no_bar() -> None:
    frames = []
    for i in range(10):
        frame = crop(20 + 90 * i)
        x = np.arange(WIDTH) + 90 * i
        skyline = (150 + 40 * np.sin(x / 60) + 25 * np.sin(x / 17)).astype(int)
        frame[np.arange(HEIGHT)[:, None] < skyline[None, :]] = 235
        frames.append(frame)
    assert share(frames) == 0.0


# --- static marks


def with_logo(frames: list[Image], alpha: float = 1.0) -> tuple[list[Image], npt.NDArray[np.bool_]]:
    """Frames with a logo of 200×60 px, top right, and where it is."""
    logo = np.full((60, 200, 3), (220, 40, 40), dtype=np.uint8)
    cv2.putText(logo, "NEWS", (20, 45), cv2.FONT_HERSHEY_SIMPLEX, 1.6, (255, 255, 255), 6, cv2.LINE_AA)
    where = np.zeros((HEIGHT, WIDTH), dtype=np.bool_)
    where[30:90, 720:920] = True
    out = []
    for frame in frames:
        image = frame.copy()
        image[30:90, 720:920] = np.rint((1 - alpha) * image[30:90, 720:920] + alpha * logo)
        out.append(image)
    return out, where


def iou(a: npt.NDArray[np.bool_], b: npt.NDArray[np.bool_]) -> float:
    return float((a & b).sum() / (a | b).sum())


def test_an_opaque_logo_is_found_where_it_is() -> None:
    frames, where = with_logo(pan())
    frames = [as_jpeg(noisy(frame, 2, i)) for i, frame in enumerate(frames)]
    assert iou(seen([grey(frame) for frame in frames]).mask, where) > 0.75
    assert share(frames) == pytest.approx(where.mean(), rel=0.25)


def test_a_logo_in_a_letterboxed_film_adds_to_the_bars() -> None:
    frames, _ = with_logo(boxed(pan(), 60, 60, 0, 0))
    expected = (120 * WIDTH + 30 * 200) / (HEIGHT * WIDTH)  # The upper half of the logo lies on the bar.
    assert share(frames) == pytest.approx(expected, rel=0.15)


def test_strong_letters_without_a_ground_are_found() -> None:
    frames = pan()
    for frame in frames:
        cv2.putText(frame, "CHANNEL 5", (60, 480), cv2.FONT_HERSHEY_SIMPLEX, 1.5, (0, 0, 0), 9, cv2.LINE_AA)
        cv2.putText(frame, "CHANNEL 5", (60, 480), cv2.FONT_HERSHEY_SIMPLEX, 1.5, (255, 255, 255), 4, cv2.LINE_AA)
    mask = static_marks([grey(frame) for frame in frames]).mask
    rows, columns = np.nonzero(mask)
    assert columns.min() >= 55
    assert columns.max() <= 360
    assert rows.min() >= 435
    assert rows.max() <= 495
    assert mask.sum() > 0.4 * 260 * 45


def test_a_drawn_frame_does_not_swallow_the_picture() -> None:
    frames = pan()
    for frame in frames:
        cv2.rectangle(frame, (60, 60), (900, 480), (255, 255, 0), 12)
    mask = static_marks([grey(frame) for frame in frames]).mask
    assert 0.5 * 12 * 2520 < mask.sum() < 2.5 * 12 * 2520
    assert not mask[150:400, 150:800].any()


@pytest.mark.parametrize("frames", [pan(), pan(17), pan(60)], ids=["fast", "slow", "middle"])
def test_a_moving_picture_has_no_marks(frames: list[Image]) -> None:
    assert share([noisy(frame, 2, i) for i, frame in enumerate(frames)]) < 0.001


def test_a_tripod_shot_has_no_marks() -> None:
    assert share(tripod()) == 0.0
    assert share(with_logo(tripod())[0]) == 0.0  # The logo cannot be distinguished from the scene.


def test_a_flat_sky_that_stays_is_no_mark() -> None:
    frames = pan()
    for frame in frames:
        frame[:180] = (120, 170, 230)
        frame[180:200] = 90  # The horizon is level, and so is the pan.
    assert not static_marks([grey(frame) for frame in frames]).mask.any()


# --- the filters


def test_detail_is_one_value_per_keyframe_and_the_worst_counts() -> None:
    frames, where = with_logo(pan())
    (score,) = Borders().measure([sample(frames)])
    assert isinstance(score, Score)
    assert len(score.detail) == 5
    assert len(set(score.detail)) == 1
    assert Borders().reduce == Artifacts().reduce == "max"
    assert Borders().protocol == "borders/bars10+panels480.7+marks480.13/max"
    assert where.mean() > 0


def test_stored_marks_are_believed() -> None:
    marks = np.zeros((HEIGHT, WIDTH), dtype=np.bool_)
    marks[: HEIGHT // 4] = True
    (score,) = Borders().measure([sample(pan(), marks=marks)])
    assert score == Score(0.25, (0.25,) * 5)
    (error,) = Borders().measure([sample(pan(), marks=marks[:100])])
    assert isinstance(error, MeasureError)


# Text is sought in small frames: the network's time goes with their area.
def small_pan() -> list[Image]:
    return [crop(1500 + 45 * i, 300, 480, 270) for i in range(10)]


def subtitled(frames: list[Image], which: range) -> tuple[list[Image], float]:
    """Frames, some with a subtitle, and the share of the area within its extent."""
    ink = np.zeros((270, 480), dtype=np.uint8)
    cv2.putText(ink, "NEVER SAY GOODBYE", (60, 240), cv2.FONT_HERSHEY_SIMPLEX, 1.0, 255, 2, cv2.LINE_AA)
    outline = cv2.dilate(ink, np.ones((3, 3), np.uint8)) > 0
    out = []
    for i, frame in enumerate(frames):
        image = frame.copy()
        if i in which:
            image[outline] = 0
            image[ink > 128] = 255
        out.append(image)
    rows, columns = np.nonzero(ink)
    return out, float((rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1) / ink.size)


def with_sign(frames: list[Image], speed: int) -> list[Image]:
    """Frames with a shop sign that moves along with the scene."""
    sign = np.full((50, 230, 3), 245, dtype=np.uint8)
    cv2.putText(sign, "BAKERY SHOP", (10, 36), cv2.FONT_HERSHEY_SIMPLEX, 1.0, (20, 20, 120), 2, cv2.LINE_AA)
    out = []
    for i, frame in enumerate(frames):
        image = frame.copy()
        x = 440 - speed * i
        part = image[40:90, max(0, x) : max(0, x + 230)]
        part[:] = sign[:, max(0, -x) : max(0, -x) + part.shape[1]]
        out.append(image)
    return out


@pytest.fixture(scope="module")
def artifacts() -> Artifacts:
    pytest.importorskip("rapidocr")
    return Artifacts()


def test_a_subtitle_over_a_moving_picture_counts_where_it_is_shown(artifacts: Artifacts) -> None:
    frames, area = subtitled(small_pan(), range(2, 6))  # The subtitle lies on keyframes 1 and 2 and their partners.
    (score,) = artifacts.measure([sample([as_jpeg(frame) for frame in frames])])
    assert isinstance(score, Score)
    assert [value > 0.01 for value in score.detail] == [False, True, True, False, False]
    assert score.value == max(score.detail)
    assert 0.9 * area < score.value < 1.9 * area  # The boxes of the detector are generous.


def test_a_sign_in_the_scene_does_not_count(artifacts: Artifacts) -> None:
    frames = with_sign(small_pan(), 45)
    from longtake.filters.text_boxes import text_boxes

    assert len(text_boxes(frames[4])) > 0  # The text is seen, and found to move.
    (score,) = artifacts.measure([sample(frames)])
    assert isinstance(score, Score)
    assert score.value < 0.002


def test_whose_text_it_is_in_a_tripod_shot_is_not_known_and_the_recipe_decides(artifacts: Artifacts) -> None:
    still = small_pan()[0]
    frames, area = subtitled([noisy(still, 2, i) for i in range(10)], range(10))
    (score,) = artifacts.measure([sample(frames)])
    assert isinstance(score, Score)
    assert score.value == pytest.approx(area, abs=0.02)
    (null,) = Artifacts(not_known="null").measure([sample(frames)])
    assert isinstance(null, Score)
    assert np.isnan(null.value)
    assert null.known is None
    assert null.detail == (0.0,) * 5  # The detail is the least that the score can be.
    (ignored,) = Artifacts(not_known="ignore").measure([sample(frames)])
    assert ignored == Score(0.0, (0.0,) * 5)


def test_a_scan_that_cannot_see_marks_never_says_0() -> None:
    (score,) = Borders().measure([sample(tripod())])
    assert isinstance(score, Score)
    assert score.known is None
    letterboxed = Borders().annotate(sample(boxed(tripod(), 60, 60, 0, 0)))
    assert not letterboxed.marks_known
    (score,) = Borders().measure([letterboxed])
    assert isinstance(score, Score)
    assert score.known is None
    assert score.detail == pytest.approx([120 / HEIGHT] * 5, abs=0.01)  # The detail is the least that the score can be.
    assert len({Borders().protocol, Borders(not_known="ignore").protocol}) == 2


def test_text_on_a_bar_is_counted_once(artifacts: Artifacts) -> None:
    frames, _ = subtitled(boxed(small_pan(), 0, 70, 0, 0), range(10))
    marks = np.zeros((270, 480), dtype=np.bool_)
    marks[200:] = True
    (score,) = artifacts.measure([sample(frames, marks=marks)])
    assert isinstance(score, Score)
    assert score.value == pytest.approx(70 / 270, abs=0.01)


def test_borders_is_a_lower_bound(artifacts: Artifacts) -> None:
    bound = artifacts.lower_bound
    assert isinstance(bound, Borders)
    assert bound.name == artifacts.name
    assert bound.reduce == artifacts.reduce
    assert bound.needs is Needs.SAMPLE
    frames, _ = subtitled(boxed(small_pan(), 20, 20, 0, 0), range(10))
    (low,), (high,) = bound.measure([sample(frames)]), artifacts.measure([sample(frames)])
    assert isinstance(low, Score)
    assert isinstance(high, Score)
    assert all(a <= b for a, b in zip(low.detail, high.detail, strict=True))


def test_the_protocol_names_the_model(artifacts: Artifacts) -> None:
    from longtake.filters.text_boxes import model_hash

    assert model_hash() in artifacts.protocol
    assert artifacts.protocol.startswith("rapidocr/bars10+panels480.7+marks480.13+overlay.14,")


def scrolled(step: int, carried: bool) -> tuple[list[npt.NDArray[np.uint8]], list[npt.NDArray[np.int32]]]:
    """Keyframes, then partners, with a line of letters that goes `step` px to the left from each to its partner, over a pan the
    other way or (carried) as a part of it; and the box of the line in each keyframe."""
    places = [300, 270, 240, 210, 180]
    frames, boxes = [], []
    for later in (0, 1):
        for k, place in enumerate(places):
            image = crop(1500 + 90 * k + later * (step if carried else -12), 300, 480, 270)
            at = (place - later * step - 100, 200)
            for colour, thick in ((0, 5), (255, 2)):
                cv2.putText(image, "ALL THE NEWS", at, cv2.FONT_HERSHEY_SIMPLEX, 0.8, (colour,) * 3, thick, cv2.LINE_AA)
            frames.append(grey(image))
            if not later:
                left, right = at[0], at[0] + 190
                boxes.append(np.array([[(left, 178), (right, 178), (right, 206), (left, 206)]], np.int32))
    return frames, boxes


@pytest.mark.parametrize("carried", [False, True])
def test_letters_that_scroll_are_put_over_a_scene_that_does_not_go_with_them(carried: bool) -> None:
    frames, boxes = scrolled(18, carried)
    kept = judged(frames, boxes, Seen(np.zeros((270, 480), dtype=np.bool_), known=True))
    assert [len(lines.overlaid) for lines in kept] == [0 if carried else 1] * 5


@pytest.mark.parametrize("carried", [False, True])
def test_letters_that_scroll_on_a_plate_in_a_scene_that_stands_still(carried: bool) -> None:
    """The plate's level edge is the same wherever one looks along it: it does not say that the scene goes with the letters."""
    frames, boxes = [], []
    for later in (0, 1):
        for k, place in enumerate((300, 270, 240, 210, 180)):
            left = place - 18 * later
            image = crop(1500 - 30 * k + 18 * later if carried else 1500, 300, 480, 270)
            image[172:212] = 16
            cv2.putText(image, "ALL THE NEWS", (left, 200), cv2.FONT_HERSHEY_SIMPLEX, 0.8, (255,) * 3, 2, cv2.LINE_AA)
            frames.append(grey(image))
            if not later:
                box = [(left, 178), (left + 180, 178), (left + 180, 206), (left, 206)]
                boxes.append(np.array([box], np.int32))
    kept = judged(frames, boxes, Seen(np.zeros((270, 480), dtype=np.bool_), known=False))
    assert [len(lines.overlaid) for lines in kept] == [0 if carried else 1] * 5


@pytest.mark.parametrize("carried", [False, True])
def test_a_line_that_wanders_is_put_over_a_scene_and_a_sign_takes_its_wall_along(carried: bool) -> None:
    frames, boxes = [], []
    for later in (0, 1):
        for k, (x, y) in enumerate([(40, 60), (230, 130), (120, 220), (250, 70), (60, 170)]):
            left, low = x + later * (-9, 7, 8, -6, 5)[k], y + later * (16, -18, 15, 19, -17)[k]
            image = (
                crop(1700 - left, 400 - low, 480, 270) if carried else crop(1500 + 90 * k + 12 * later, 300, 480, 270)
            )
            for colour, thick in ((0, 6), (255, 2)):
                cv2.putText(image, "ALL THE NEWS", (left, low), cv2.FONT_HERSHEY_SIMPLEX, 0.8, (colour,) * 3, thick)
            frames.append(grey(image))
            if not later:
                right, top, bottom = left + 193, low - 25, low + 9
                boxes.append(np.array([[(left, top), (right, top), (right, bottom), (left, bottom)]], np.int32))
    kept = judged(frames, boxes, Seen(np.zeros((270, 480), dtype=np.bool_), known=True))
    assert [len(lines.overlaid) for lines in kept] == [0 if carried else 1] * 5


def test_no_boxes_are_kept_where_none_were_found() -> None:
    frames = [grey(frame) for frame in small_pan()]
    none = np.zeros((0, 4, 2), dtype=np.int32)
    kept = judged(frames, [none] * 5, Seen(np.zeros((270, 480), dtype=np.bool_), known=True))
    assert [len(lines.overlaid) + len(lines.unknown) for lines in kept] == [0] * 5


# --- real film


def film(name: str, start: float, end: float) -> Sample:
    """The sample of a stretch of a real clip."""
    import av

    if not (CORPUS / name).exists():
        pytest.skip(f"no {name}")
    span = (end - start) / 5
    wanted = [start + span * (i + 0.5) + later for i in range(5) for later in (0.0, 0.5)]
    frames: list[Image] = []
    with av.open(str(CORPUS / name)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "SLICE"
        stream.codec_context.thread_count = 1
        for frame in container.decode(stream):
            while len(frames) < len(wanted) and float(frame.time or 0) >= wanted[len(frames)] - 1e-3:
                scale = min(1.0, 960 / max(frame.width, frame.height))
                size = (round(frame.width * scale), round(frame.height * scale))
                frames.append(frame.reformat(*size, format="rgb24").to_ndarray().astype(np.uint8))
            if len(frames) == len(wanted):
                break
    return sample(frames)


@pytest.mark.parametrize(
    ("name", "start", "end", "expected"),
    [
        ("multi/cosmos_sintel_30s.mp4", 20, 23, (57, 57, 0, 0)),  # The bars were measured by eye in an image viewer.
        ("gray/moviepy_chaplin.mp4", 0, 6, (0, 0, 72, 72)),
        ("dark/planet_1080p_30s.mov", 0, 4, (0, 0, 0, 0)),
        ("long/carnd_night_1866x638.mp4", 0, 5, (0, 0, 0, 0)),
        ("dark/media_black_1080p_362s.mp4", 0, 4, (0, 0, 0, 0)),
    ],
)
def test_bars_of_real_film(name: str, start: float, end: float, expected: tuple[int, int, int, int]) -> None:
    clip = film(name, start, end)
    found = bars([grey(frame) for frame in (*clip.keyframes, *clip.partners)])
    assert np.abs(np.subtract(found, expected)).max() <= 2
