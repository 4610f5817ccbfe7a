"""Words repeated over the whole picture, of a known area, and scenes that repeat themselves."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from longtake.filters.base import Image
from longtake.filters.grayscale import grey
from longtake.filters.lattices import lattice
from longtake.filters.marks import Seen, reduced, seen
from longtake.filters.overlaid_text import beside
from longtake.filters.tiles import parts, tiled
from longtake.filters.translucent import mean_of
from tests.filters.pictures import HEIGHT, WIDTH, as_jpeg, crop, noisy, resized

Ink = npt.NDArray[np.float32]  # The share of each px that letters cover, [h, w].
Mask = npt.NDArray[np.bool_]
POINTS = 0.02  # Share of the area.


def words(word: str, pitch: tuple[int, int], lean: float = 0.0, *, bricks: bool = True) -> tuple[Ink, Mask]:
    """A word every so many px (right, down) of a sheet that leans by so many degrees, and the boxes around the words.

    bricks: every other row is shifted by half a pitch.
    """
    sheet = np.zeros((3 * HEIGHT, 3 * WIDTH), np.uint8)
    boxes = np.zeros_like(sheet)
    (width, height), below = cv2.getTextSize(word, cv2.FONT_HERSHEY_DUPLEX, 1.1, 3)
    one = np.zeros((height + 2 * below + 8, width + 16), np.uint8)
    cv2.putText(one, word, (8, height + 4), cv2.FONT_HERSHEY_DUPLEX, 1.1, 255, 3, cv2.LINE_AA)
    rows, columns = np.flatnonzero(one.any(axis=1)), np.flatnonzero(one.any(axis=0))
    one = one[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    for row, y in enumerate(range(15, len(sheet) - one.shape[0], pitch[1])):
        for x in range(20 + (row % 2) * bricks * pitch[0] // 2, sheet.shape[1] - one.shape[1], pitch[0]):
            window = slice(y, y + one.shape[0]), slice(x, x + one.shape[1])
            sheet[window], boxes[window] = one, 255
    turn = cv2.getRotationMatrix2D((1.5 * WIDTH, 1.5 * HEIGHT), lean, 1.0)
    turn[:, 2] -= WIDTH, HEIGHT
    ink, mask = (cv2.warpAffine(one, turn, (WIDTH, HEIGHT)) for one in (sheet, boxes))
    return ink.astype(np.float32) / 255, mask > 127


def under(frames: Sequence[Image], ink: Ink, opacity: float, colour: float = 255.0) -> list[Image]:
    """Frames under a mark, after noise and coding."""
    share = (opacity * ink)[..., None]
    mixed = [np.rint(frame * (1 - share) + colour * share).astype(np.uint8) for frame in frames]
    return [as_jpeg(noisy(frame, 1.0, i), 88) for i, frame in enumerate(mixed)]


def shaken() -> list[Image]:
    """A hand-held take: every frame is elsewhere, up and down too."""
    rng = np.random.default_rng(3)
    return [crop(int(x), int(y)) for x, y in zip(rng.integers(0, 1900, 10), rng.integers(20, 200, 10), strict=True)]


def tripod(x: int = 1164) -> list[Image]:
    """As sharp as film is: the photographs are enlarged, and their grain with them."""
    return [np.asarray(cv2.GaussianBlur(crop(x, 110), (0, 0), 1.5), np.uint8)] * 10


def look(frames: Sequence[Image]) -> Seen:
    return seen([grey(frame) for frame in frames])


LEANING = ("SAMPLE", (270, 120), 30.0)
LEVEL = ("preview", (260, 100), 0.0)


@pytest.mark.parametrize(("word", "pitch", "lean"), [LEANING, LEVEL, ("DEMO COPY", (320, 90), -40.0)])
@pytest.mark.parametrize("scene", ["moving", "still"])
def test_white_words_at_a_quarter_of_opacity(word: str, pitch: tuple[int, int], lean: float, scene: str) -> None:
    ink, boxes = words(word, pitch, lean)
    found = look(under(shaken() if scene == "moving" else tripod(), ink, 0.25))
    assert found.known == (scene == "moving")
    assert found.mask.mean() == pytest.approx(boxes.mean(), abs=POINTS)
    assert (found.mask & boxes).sum() > 0.85 * boxes.sum()


def test_words_that_stand_in_straight_rows() -> None:
    ink, boxes = words("alamo", (190, 110), 25.0, bricks=False)
    assert look(under(tripod(970), ink, 0.3)).mask.mean() == pytest.approx(boxes.mean(), abs=POINTS)


@pytest.mark.parametrize(("colour", "opacity"), [(0.0, 0.2), (0.0, 0.35), (50.0, 0.4)])
@pytest.mark.parametrize("scene", ["moving", "still"])
def test_dark_words(colour: float, opacity: float, scene: str) -> None:
    ink, boxes = words(*LEANING)
    found = look(under(shaken() if scene == "moving" else tripod(), ink, opacity, colour))
    assert found.known == (scene == "moving")
    assert found.mask.mean() == pytest.approx(boxes.mean(), abs=POINTS)


def test_white_words_with_a_dark_outline_over_a_scene_that_stands_still() -> None:
    ink, boxes = words(*LEANING)
    wide = np.asarray(cv2.dilate(ink, np.ones((5, 5), np.uint8)), np.float32)
    around = np.asarray(cv2.dilate(boxes.astype(np.uint8), np.ones((5, 5), np.uint8)), np.float32)
    share = 0.4 * wide[..., None]
    white = (255 * ink / np.maximum(wide, 1e-6))[..., None]
    frames = [np.rint(frame * (1 - share) + white * share).astype(np.uint8) for frame in tripod()]
    found = look([as_jpeg(noisy(frame, 1.0, i), 88) for i, frame in enumerate(frames)])
    assert found.mask.mean() == pytest.approx(around.mean(), abs=POINTS)


@pytest.mark.parametrize("opacity", [0.25, 0.4])
@pytest.mark.parametrize("colour", [0.0, 255.0])
@pytest.mark.parametrize("seen_by", ["tilt", "lens", "nothing"])
def test_a_printed_picture_under_words_that_a_camera_sees_has_no_watermark(
    seen_by: str, colour: float, opacity: float
) -> None:
    """The words are on a poster, before a camera that is turned by half a degree each way, or whose lens is off by 1 % at the
    rim. Without a camera they are over the picture."""
    ink, boxes = words(*LEANING)
    share = (opacity * ink)[..., None]
    poster = np.rint(tripod()[0] * (1 - share) + colour * share).astype(np.uint8)
    y, x = (np.asarray(one, np.float32) for one in np.mgrid[0:HEIGHT, 0:WIDTH])
    right, down = x / (WIDTH / 2) - 1, (y - HEIGHT / 2) / (WIDTH / 2)
    if seen_by == "tilt":
        far = 1 + np.tan(np.radians(0.5)) * (right + down) / 2  # The picture is as wide as it is far away.
    else:
        far = 1 - (0.01 if seen_by == "lens" else 0.0) * (right**2 + down**2)
    at = [np.asarray(one, np.float32) for one in ((right / far + 1) * WIDTH / 2, down / far * WIDTH / 2 + HEIGHT / 2)]
    photo = np.asarray(cv2.remap(poster, at[0], at[1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT), np.uint8)
    small = [reduced(grey(as_jpeg(noisy(photo, 1.0, i), 88))) for i in range(10)]
    found = tiled(small, mean_of(small))
    assert found is not None
    assert found.mask.mean() == pytest.approx(boxes.mean(), abs=POINTS)
    assert found.is_sure == (seen_by == "nothing")


@pytest.mark.parametrize("joined", range(1 << 4))
def test_two_words_count_though_they_hang_together_in_some_copies(joined: int) -> None:
    """Copies at (0, 0), (110, 0), (0, 110) and (110, 110) px, whose words are apart or joined."""
    on = np.zeros((220, 220), np.bool_)
    for copy, (x, y) in enumerate([(0, 0), (110, 0), (0, 110), (110, 110)]):
        on[y + 50 : y + 60, x + 5 : x + 45] = on[y + 50 : y + 60, x + 55 : x + 85] = True
        on[y + 54 : y + 56, x + 45 : x + 55] = bool(joined >> copy & 1)
    labels, own = parts(on, np.diag([110.0, 110.0]), np.array([108.0, 110.0]))
    shown = np.zeros((110, 110), np.bool_)
    for label in own:
        rows, columns = np.nonzero(labels == label)
        shown[rows % 110, columns % 110] = True
    assert shown[50:60, 5:45].all()
    assert shown[50:60, 55:85].all()


def test_a_lattice_is_measured_to_a_tenth_of_a_pixel() -> None:
    ink, _ = words("SAMPLE", (250, 130), bricks=False)
    mean = 40 + 200 * resized((255 * ink).astype(np.uint8), 480, 270).astype(np.float32) / 255
    steps = np.dstack([np.gradient(mean, axis=1), np.gradient(mean, axis=0)]).astype(np.float32)
    basis = lattice(np.clip(steps, -5, 5))
    assert basis is not None
    np.testing.assert_allclose(np.sort(np.abs(basis), axis=1), [[0, 125], [0, 65]], atol=0.1)


def test_copies_that_are_not_there_do_not_count() -> None:
    """A grid of words that leaves the right third of the picture free."""
    ink, boxes = words("SAMPLE", (190, 90), bricks=False)
    ink[:, 585:], boxes[:, 585:] = 0, False
    assert look(under(shaken(), ink, 0.4)).mask.mean() == pytest.approx(boxes.mean(), abs=POINTS)


@pytest.mark.parametrize(("first", "opacity", "then"), [(5, 0.5, 0.0), (1, 0.95, 0.06)])
def test_words_that_are_in_some_of_the_frames_are_no_watermark(first: int, opacity: float, then: float) -> None:
    """Nor are those of which next to nothing stays."""
    ink, _ = words(*LEANING)
    frames = [*under(tripod()[:first], ink, opacity), *under(tripod()[first:], ink, then)]
    small = [reduced(grey(frame)) for frame in frames]
    assert tiled(small, mean_of(small)) is None


# --- scenes that repeat themselves


def lit(albedo: npt.NDArray[np.float32]) -> Image:
    """A wall [h, w], its share of reflected light, under light that falls off to a corner."""
    y, x = np.mgrid[0 : albedo.shape[0], 0 : albedo.shape[1]].astype(np.float32)
    light = 60 + 130 * (x / albedo.shape[1]) * (0.4 + 0.6 * y / albedo.shape[0])
    grain = cv2.GaussianBlur(np.random.default_rng(1).normal(0, 0.15, albedo.shape).astype(np.float32), (0, 0), 2)
    return np.repeat(np.clip(light * (albedo + grain), 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def leaning(wall: Image) -> Image:
    """A wall as a camera sees it, to which no wall is level: drawn lines to a fraction of a px are cards."""
    turn = cv2.getRotationMatrix2D((WIDTH / 2, HEIGHT / 2), 3.0, 1.15)
    return np.asarray(cv2.warpAffine(wall, turn, (WIDTH, HEIGHT)), np.uint8)


def wallpaper(paint: float) -> Image:
    """Words on a wall that reflect so many times as much light as the wall."""
    ink, _ = words(*LEVEL)
    return leaning(lit(np.asarray(0.8 * (1 + (paint - 1) * ink), np.float32)))


def facade() -> Image:
    """Windows in a plastered wall, and what they mirror: each something else."""
    rng = np.random.default_rng(2)
    wall = np.full((HEIGHT, WIDTH), 0.8, np.float32)
    for y in range(20, HEIGHT - 70, 90):
        for x in range(15, WIDTH - 50, 76):
            wall[y : y + 56, x : x + 40] = rng.uniform(0.05, 0.65)
    return leaning(lit(wall))


def bricks() -> Image:
    rng = np.random.default_rng(4)
    wall = np.full((HEIGHT, WIDTH), 1.1, np.float32)
    for row, y in enumerate(range(0, HEIGHT, 54)):
        for x in range(-(row % 2) * 70, WIDTH, 140):
            wall[y + 4 : y + 50, max(0, x + 4) : x + 136] = rng.uniform(0.5, 0.8)
    return leaning(lit(wall))


SCENES = {"pale words": wallpaper(1.3), "dark words": wallpaper(0.7), "windows": facade(), "bricks": bricks()}


@pytest.mark.parametrize("scene", SCENES)
def test_a_wall_that_repeats_itself_is_no_watermark(scene: str) -> None:
    """Words on a wall are marks that may be paint, and are left out where nothing moves."""
    frames = [as_jpeg(noisy(SCENES[scene], 1.0, i), 88) for i in range(10)]
    small = [reduced(grey(frame)) for frame in frames]
    found = tiled(small, mean_of(small))
    if "words" in scene:
        assert found is not None
        assert not found.is_sure
        assert look(frames).mask.mean() <= POINTS
    else:
        assert found is None


def test_things_in_front_of_a_wall_hide_its_pattern() -> None:
    """Dark words on a wall with shadows, exactly from the front: without the things they pass for a watermark."""
    ink, _ = words(*LEVEL)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    shadows = np.where((y - 0.5 * x) % 150 < 70, 0.5, 1.0).astype(np.float32)
    wall = lit(np.asarray(0.8 * (1 - 0.3 * ink) * shadows, np.float32))
    thing = wall.copy()
    cv2.circle(thing, (250, 300), 190, (150, 90, 60), -1, cv2.LINE_AA)
    sure = []
    for picture in (wall, thing):
        small = [reduced(grey(as_jpeg(noisy(picture, 1.0, i), 88))) for i in range(10)]
        found = tiled(small, mean_of(small))
        assert found is not None
        sure.append(found.is_sure)
    assert sure == [True, False]


def test_a_pan_over_a_wall_that_repeats_itself() -> None:
    wide = np.concatenate([SCENES["windows"], SCENES["windows"]], axis=1)
    frames = [as_jpeg(noisy(crop(61 * i, 0, picture=wide), 1.0, i), 88) for i in range(10)]
    assert look(frames).mask.mean() <= POINTS


def test_a_slow_pan_over_words_on_a_wall() -> None:
    """A pattern that moves by a tenth of its period leaves edges of its own in the mean of all frames."""
    wall = SCENES["pale words"]
    frames = [as_jpeg(noisy(crop(20 + 2 * i, 10, 900, 500, wall), 1.0, i), 88) for i in range(10)]
    small = [reduced(grey(frame)) for frame in frames]
    assert tiled(small, mean_of(small)) is None


def test_boxes_around_tiled_words_count_no_second_time() -> None:
    copies = np.zeros((HEIGHT, WIDTH), np.bool_)
    copies[100:130, 200:360] = True
    boxes = np.array(
        [[(x, y), (x + 180, y), (x + 180, y + 44), (x, y + 44)] for x, y in ((190, 93), (190, 300), (330, 120))],
        np.int32,
    )
    assert beside(boxes, None) is boxes
    assert beside(boxes, copies).tolist() == boxes[1:].tolist()
    assert beside(boxes[:0], copies).shape == (0, 4, 2)
