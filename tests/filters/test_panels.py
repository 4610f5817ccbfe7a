"""What editors put over a take, with exactly known areas; and scenery that is none of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt
import pytest

from longtake.filters.base import Image
from longtake.filters.blurred_grounds import blurred_ground
from longtake.filters.dividers import divided
from longtake.filters.grayscale import grey
from longtake.filters.marks import Seen, gradients, reduced, seen
from longtake.filters.panels import panels, seam_maps
from tests.filters.pictures import HEIGHT, WIDTH, as_jpeg, crop, noisy, pan, photograph, resized

Frames = list[Image]
POINTS = 0.02  # Share of the area.
CORPUS = Path(__file__).resolve().parents[3] / "shared" / "corpus" / "videos"


def look(frames: Frames) -> Seen:
    return seen([grey(noisy(frame, 1, i)) for i, frame in enumerate(frames)])


def other(i: int) -> Image:
    """A frame of another film: a slow move over another photograph."""
    picture = resized(photograph("rocket"), 1600, 1066)
    return picture[100 + 23 * i : 100 + 23 * i + HEIGHT, 50 + 31 * i : 50 + 31 * i + WIDTH]


def shaken(frames: int = 10) -> Frames:
    """A hand-held take: every frame elsewhere, up and down too."""
    rng = np.random.default_rng(3)
    return [
        crop(int(x), int(y)) for x, y in zip(rng.integers(0, 1900, frames), rng.integers(20, 200, frames), strict=True)
    ]


def with_plate(frames: Frames, share: float, colour: int, alpha: float) -> tuple[Frames, float]:
    """Frames with a rectangle of one colour over them, and the share of the area that it takes."""
    height = round((share * HEIGHT * WIDTH / 4) ** 0.5)
    window = (slice(36, 36 + height), slice(80, 80 + 4 * height))
    out = []
    for frame in frames:
        image = frame.copy()
        image[window] = np.rint((1 - alpha) * image[window] + alpha * colour)
        out.append(image)
    return out, 4 * height * height / (HEIGHT * WIDTH)


@pytest.mark.parametrize("share", [0.03, 0.06, 0.12])
@pytest.mark.parametrize(("colour", "alpha"), [(255, 1.0), (0, 1.0), (255, 0.25), (0, 0.5)])
def test_a_plate_of_known_area(share: float, colour: int, alpha: float) -> None:
    frames, area = with_plate(shaken(), share, colour, alpha)
    found = look(frames)
    assert found.known
    assert found.mask.mean() == pytest.approx(area, abs=POINTS)


def test_a_ticker_counts_by_its_band_though_its_text_moves() -> None:
    frames = shaken()
    for i, frame in enumerate(frames):
        frame[488:526] = 16
        cv2.putText(
            frame, "BREAKING NEWS FROM A STATION", (700 - 90 * i, 517), cv2.FONT_HERSHEY_SIMPLEX, 1.0, (255,) * 3, 2
        )
    assert look(frames).mask.mean() == pytest.approx(38 / HEIGHT, abs=POINTS)


@pytest.mark.parametrize("alpha", [1.0, 0.65])
@pytest.mark.parametrize("words", ["", "A DAY ABOVE THE STATION ROOF AND MORE"])
@pytest.mark.parametrize(("top", "bottom"), [(410, 450), (86, 130), (320, 395)])
def test_a_band_counts_without_the_picture_beyond_it(top: int, bottom: int, words: str, alpha: float) -> None:
    """Beyond the band lies a part of the picture that is larger than the band, and up to the frame's border."""
    frames = []
    for frame in shaken():
        image = frame.copy()
        image[top:bottom] = np.rint((1 - alpha) * image[top:bottom] + alpha * np.array([20, 30, 90]))
        at = (100, (top + bottom) // 2 + 11)
        cv2.putText(image, words, at, cv2.FONT_HERSHEY_SIMPLEX, 1.0, (255,) * 3, 3, cv2.LINE_AA)
        frames.append(as_jpeg(image))
    assert look(frames).mask.mean() == pytest.approx((bottom - top) / HEIGHT, abs=POINTS)


def test_two_bands_of_a_lower_third_count_without_the_picture_below() -> None:
    frames = []
    for frame in shaken():
        image = frame.copy()
        image[390:430], image[430:464] = (170, 20, 30), (20, 30, 90)
        for bottom, text in ((424, "WATER LEVELS ARE FALLING AGAIN"), (456, "while prices rise, says the engineer")):
            cv2.putText(image, text, (60, bottom), cv2.FONT_HERSHEY_SIMPLEX, 1.1, (255,) * 3, 4, cv2.LINE_AA)
        frames.append(as_jpeg(image))
    assert look(frames).mask.mean() == pytest.approx(74 / HEIGHT, abs=POINTS)


@pytest.mark.parametrize("bottom", [420, 120])
def test_rows_of_letters_are_no_side_of_what_lies_beyond_them(bottom: int) -> None:
    """Of a title without a plate, from border to border, no more than the box around its line counts."""
    frames = []
    for frame in shaken():
        image = frame.copy()
        for width, ink in ((14, 0), (6, 255)):
            text = "HOME AND THEN THE END OF IT"
            cv2.putText(image, text, (14, bottom), cv2.FONT_HERSHEY_SIMPLEX, 1.92, (ink,) * 3, width, cv2.LINE_AA)
        frames.append(as_jpeg(image))
    assert 0.05 < look(frames).mask.mean() < 56 / HEIGHT


@pytest.mark.skipif(not CORPUS.is_dir(), reason="no real clips")
def test_a_band_below_a_plain_sky_makes_no_blurred_ground() -> None:
    """The sky ends at the line that mirrors the band's lower side, below which there is little to see, too."""
    with av.open(str(CORPUS / "codec" / "libopenshot_msmpeg4.avi")) as film:
        images = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)][60:300]
    frames = [resized(image, WIDTH, HEIGHT) for image in images[24::24] + images[36::24]]
    for i, frame in enumerate(frames):
        frame[406:449] = (170, 20, 30)
        text = "a day above the station roof has been filmed from above and nobody knows why"
        cv2.putText(frame, text, (500 - 60 * i, 438), cv2.FONT_HERSHEY_SIMPLEX, 1.1, (255,) * 3, 2, cv2.LINE_AA)
    frames = [as_jpeg(frame) for frame in frames]
    assert blurred_ground(*ground_of(frames)) != []
    assert look(frames).mask.mean() == pytest.approx(43 / HEIGHT, abs=POINTS)


@pytest.mark.parametrize("still", [False, True])
def test_the_margins_of_a_plate_are_no_lines_between_pictures(still: bool) -> None:
    """Letters stand between two lines of the plate's colour."""
    frames = []
    for i, frame in enumerate([crop(900)] * 10 if still else shaken()):
        image = noisy(frame, 1.5, i)
        image[400:444] = (16, 16, 16)
        cv2.putText(image, "MARIA HERNANDEZ, CHIEF ENGINEER OF IT ALL", (6, 435), 0, 1.27, (255,) * 3, 4, cv2.LINE_AA)
        frames.append(as_jpeg(image))
    small = [reduced(grey(frame)) for frame in frames]
    assert not divided(small, gradients(small), still=False).any()


def test_a_picture_in_a_picture() -> None:
    frames = shaken()
    for i, frame in enumerate(frames):
        frame[350:520, 640:940] = resized(other(i), 300, 170)
    assert look(frames).mask.mean() == pytest.approx(170 * 300 / (HEIGHT * WIDTH), abs=POINTS)


def test_a_panel_whose_side_has_a_gap_in_its_middle() -> None:
    """Where the scene is of the panel's own brightness there is no seam."""
    upright, level = np.zeros((270, 480), np.bool_), np.zeros((480, 270), np.bool_)
    upright[175:259, [321, 465]] = level[321:465, [175, 259]] = True
    level[375:410, 175] = False
    best = panels((upright, level))[0]
    assert (best.top, best.bottom, best.left, best.right) == (175, 259, 321, 465)
    level[340:410, 175] = False  # Half of the side is missing.
    assert len(panels((upright, level))) == 0


def test_a_panel_whose_side_is_missing_at_both_corners() -> None:
    upright, level = np.zeros((270, 480), np.bool_), np.zeros((480, 270), np.bool_)
    upright[175:259, [321, 465]] = level[321:465, [175, 259]] = True
    level[321:341, 175] = level[436:465, 175] = False
    best = panels((upright, level))[0]
    assert (best.top, best.bottom, best.left, best.right) == (175, 259, 321, 465)
    level[420:465, 175] = False
    assert len(panels((upright, level))) == 0


def test_a_film_in_a_tripod_shot() -> None:
    frames = [crop(900) for _ in range(10)]
    assert look(frames).mask.mean() == 0.0
    for i, frame in enumerate(frames):
        frame[350:520, 640:940] = resized(other(i), 300, 170)
    found = look(frames)
    assert not found.known
    assert found.mask.mean() == pytest.approx(170 * 300 / (HEIGHT * WIDTH), abs=POINTS)


def tripod_with_hands(step: int) -> Frames:
    """A tripod shot in whose middle much moves, over a ground of straight lines every `step` px."""
    out = []
    for i in range(10):
        frame = crop(900)
        for k in range(1, 12):
            frame[:, step * k : step * k + 6] = 40 + 17 * k
            frame[step * k // 2 : step * k // 2 + 5] = 215 - 15 * k
        x, y = 330 + 40 * (i * 7 % 10), 150 + 20 * (i * 3 % 10)
        cv2.ellipse(frame, (x, y), (130, 90), 20 * i, 0, 360, (200, 140, 110), -1)
        frame[y - 40 : y + 40, x - 70 : x + 70] = other(i)[200:280, 300:440]
        out.append(noisy(frame, 1, i))
    return out


@pytest.mark.parametrize("turned", [False, True])
def test_two_films_of_which_one_stands_still(turned: bool) -> None:
    """A film of a camera that moves in one on a tripod, and the other way about: side by side, and one in the other."""
    half, small = [], []
    for step, frames in ((80, half), (66, small)):
        films = (shaken(), tripod_with_hands(step))
        for one, two in zip(films[not turned], films[turned], strict=True):
            frame = one.copy()
            if step == 80:
                frame[:, 480:] = two[:, 240:720]
            else:
                frame[350:520, 640:940] = resized(two, 300, 170)
            frames.append(as_jpeg(frame, 90))
    assert look(half).mask.mean() == pytest.approx(0.5, abs=POINTS)
    assert look(small).mask.mean() == pytest.approx(170 * 300 / (HEIGHT * WIDTH), abs=POINTS / 3)


def round_picture(first: int) -> Frames:
    """Another film in a circle; of the sectors before `first` (degrees) nothing is shown."""
    frames = []
    for i, frame in enumerate(shaken()):
        inside = np.zeros((HEIGHT, WIDTH), np.uint8)
        cv2.ellipse(inside, (830, 420), (92, 92), 0, first, 360, 255, -1, cv2.LINE_AA)
        weight = inside[..., None] / 255
        inserted = np.zeros_like(frame)
        inserted[328:512, 738:922] = resized(other(i)[:, 200:740], 184, 184)
        frames.append(as_jpeg(np.rint(frame * (1 - weight) + inserted * weight).astype(np.uint8), 90))
    return frames


def test_a_round_picture_in_a_picture() -> None:
    assert look(round_picture(0)).mask.mean() == pytest.approx(np.pi * 92**2 / (HEIGHT * WIDTH), abs=POINTS / 4)
    assert look(round_picture(150)).mask.mean() < 0.01


def test_a_road_that_leans_a_little_in_a_tripod_shot_is_no_film_of_its_own() -> None:
    inside = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.fillPoly(inside, [np.array([(0, 400), (960, 380), (960, 470), (0, 500)])], 1)
    frames = [np.where(inside[..., None] > 0, moving, crop(900)) for moving in shaken()]
    assert look(frames).mask.mean() == 0.0


@pytest.mark.parametrize("still", [False, True])
def test_a_split_screen_counts_by_half(still: bool) -> None:
    frames = shaken()
    for i, frame in enumerate(frames):
        frame[:, WIDTH // 2 :] = other(0 if still else i)[:, : WIDTH // 2]
    assert look(frames).mask.mean() == pytest.approx(0.5, abs=POINTS)


def test_of_a_split_screen_the_half_of_a_tripod_counts_though_there_is_a_card_in_it() -> None:
    frames = shaken()
    for i, frame in enumerate(frames):
        frame[:, WIDTH // 2 :] = other(0)[:, : WIDTH // 2]
        frame[:, WIDTH // 2 - 2 : WIDTH // 2 + 2] = 255
        frame[150:350, 640:800] = 250
        cv2.putText(frame, "WHAT MOVES", (500, 50 + 50 * i), cv2.FONT_HERSHEY_SIMPLEX, 2.0, (20,) * 3, 6)
    found = look(frames)
    assert found.known
    assert found.mask[:, WIDTH // 2 :].mean() > 0.98
    assert found.mask.mean() == pytest.approx(0.5, abs=POINTS)


def enlarged(frame: Image) -> Image:
    """The middle of a frame, enlarged to the frame's size and blurred: what phones' films are put on."""
    middle = np.ascontiguousarray(frame[HEIGHT // 4 : 3 * HEIGHT // 4, WIDTH // 4 : 3 * WIDTH // 4])
    return np.asarray(cv2.blur(resized(middle, WIDTH, HEIGHT), (41, 41)) * 0.8, np.uint8)


def blurred_pillars(frames: Frames, width: int) -> Frames:
    out = []
    for frame in frames:
        ground = enlarged(frame)
        ground[:, width : WIDTH - width] = frame[:, width : WIDTH - width]
        out.append(ground)
    return out


def test_blurred_pillars_count_in_a_scene_that_moves_and_in_one_that_stands_still() -> None:
    moving = look(blurred_pillars(shaken(), 300))
    assert moving.mask.mean() == pytest.approx(600 / WIDTH, abs=POINTS)
    still = look(blurred_pillars([crop(900)] * 10, 300))
    assert not still.known
    assert still.mask.mean() == pytest.approx(600 / WIDTH, abs=POINTS)


def test_blurred_pillars_whose_seams_are_missing_for_a_third() -> None:
    """Picture and ground are of one brightness there."""
    frames = blurred_pillars(shaken(), 300)
    for frame in frames:
        for edge in (300, WIDTH - 300):
            near = (slice(375, None), slice(edge - 30, edge + 30))
            frame[near] = cv2.blur(frame, (41, 41))[near]
    assert look(frames).mask.mean() == pytest.approx(600 / WIDTH, abs=POINTS)


def test_a_picture_on_its_own_blurred_enlargement() -> None:
    frames = []
    for frame in shaken():
        ground = enlarged(frame)
        ground[60:480, 107:853] = resized(frame, 746, 420)
        frames.append(ground)
    assert look(frames).mask.mean() == pytest.approx(1 - 746 * 420 / (HEIGHT * WIDTH), abs=POINTS)


def test_a_tiled_watermark_does_not_make_a_moving_scene_a_still_one() -> None:
    ink = np.zeros((HEIGHT, WIDTH), np.uint8)
    for y in range(60, HEIGHT, 110):
        for x in range(20 + y % 60, WIDTH - 200, 240):
            cv2.putText(ink, "stock.io", (x, y), cv2.FONT_HERSHEY_SIMPLEX, 1.3, 255, 4, cv2.LINE_AA)
    weight = 0.5 * ink[..., None] / 255
    found = look([np.rint(frame * (1 - weight) + 255 * weight).astype(np.uint8) for frame in shaken()])
    assert found.known
    assert found.mask.mean() > 0.05


def shape(kind: str, share: float) -> npt.NDArray[np.float32]:
    """How much of each pixel a mark of this share of the area covers: float32 [h, w], 0 to 1."""
    ink = np.zeros((2 * HEIGHT, 2 * WIDTH), np.uint8)
    side, middle = (share * ink.size) ** 0.5, np.array([1340, 640])
    if kind == "disc":
        cv2.circle(ink, tuple(middle.tolist()), round(side / np.pi**0.5), 255, -1)
    elif kind == "ellipse":
        axes = (round(side * (2 / np.pi) ** 0.5), round(side / (2 * np.pi) ** 0.5))
        cv2.ellipse(ink, tuple(middle.tolist()), axes, 0, 0, 360, 255, -1)
    else:
        half = side / 2**0.5
        corners = middle + np.array([(-half, half), (half, half), (0, -half)])
        cv2.fillPoly(ink, [np.rint(corners).astype(np.int32)], 255)
    return np.asarray(cv2.resize(ink, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA) / np.float32(255), np.float32)


def blended(frames: Frames, ink: npt.NDArray[np.float32], alpha: float, colour: int = 255) -> Frames:
    weight = alpha * ink[..., None]
    return [np.rint(frame * (1 - weight) + colour * weight).astype(np.uint8) for frame in frames]


@pytest.mark.parametrize(("kind", "share"), [("disc", 0.03), ("disc", 0.12), ("ellipse", 0.06), ("triangle", 0.06)])
def test_a_mark_without_straight_sides_at_a_quarter_of_opacity(kind: str, share: float) -> None:
    ink = shape(kind, share)
    found = look(blended(shaken(), ink, 0.25))
    assert found.mask.mean() == pytest.approx(ink.mean(), abs=POINTS)


def test_a_tiled_watermark_at_a_quarter_of_opacity_counts_with_what_is_between_its_letters() -> None:
    ink, area = np.zeros((HEIGHT, WIDTH), np.uint8), 0
    for y in range(60, HEIGHT, 110):
        for x in range(20 + y % 60, WIDTH - 200, 240):
            cv2.putText(ink, "PREVIEW", (x, y), cv2.FONT_HERSHEY_DUPLEX, 1.1, 255, 3, cv2.LINE_AA)
            area += 138 * 28  # The extent of the word is 138 by 28 px.
    found = look(blended(shaken(), np.asarray(ink / np.float32(255), np.float32), 0.25))
    assert found.mask.mean() == pytest.approx(area / ink.size, abs=POINTS)


def test_the_loss_of_a_pair_changes_little() -> None:
    frames, area = with_plate(shaken(), 0.06, 255, 1.0)
    assert look(frames[2:]).mask.mean() == pytest.approx(area, abs=POINTS)


# --- scenery


def overcast(frames: Frames) -> Frames:
    """A light sky over a skyline that passes by."""
    x = np.arange(WIDTH)
    out = []
    for i, frame in enumerate(frames):
        skyline = 210 + 25 * np.sin((x + 90 * i) / 70) + 12 * np.sin((x + 90 * i) / 17)
        sky = np.arange(HEIGHT)[:, None] < skyline[None]
        image = frame.copy()
        image[sky] = np.broadcast_to(225 + 8 * np.linspace(0, 1, HEIGHT)[:, None], sky.shape)[sky][:, None]
        out.append(image)
    return out


def blown_out_wall(frames: Frames) -> Frames:
    """A wall without detail whose upper edge leans a little."""
    wall = np.arange(HEIGHT)[:, None] < 130 + 0.02 * np.arange(WIDTH)[None]
    return [np.where(wall[..., None], np.uint8(255), frame) for frame in frames]


def night(frames: Frames) -> Frames:
    return [(frame * 0.12 + 4).astype(np.uint8) for frame in frames]


def sea(frames: Frames) -> Frames:
    """A level horizon that stays, under a plain sky; waves that are never the same."""
    rng = np.random.default_rng(5)
    out = []
    for _ in frames:
        image = np.full((HEIGHT, WIDTH), 205, np.float32)
        waves = cv2.GaussianBlur(rng.normal(0, 120, (HEIGHT, WIDTH)).astype(np.float32), (0, 0), 3)
        image[240:] = 90 + waves[240:]
        out.append(np.repeat(np.clip(image, 0, 255).astype(np.uint8)[..., None], 3, axis=2))
    return out


def tripod(frames: Frames) -> Frames:
    out = [frames[0].copy() for _ in frames]
    for i, frame in enumerate(out):
        cv2.circle(frame, (80 + 80 * i, 400), 40, (200, 30, 30), -1)
    return out


def slow_pan(frames: Frames) -> Frames:
    return [crop(200 + 8 * i) for i in range(len(frames))]


def zoom(frames: Frames) -> Frames:
    out = []
    for i in range(len(frames)):
        large = resized(crop(900), round(WIDTH * (1 + 0.06 * i)), round(HEIGHT * (1 + 0.06 * i)))
        top, left = (large.shape[0] - HEIGHT) // 2, (large.shape[1] - WIDTH) // 2
        out.append(large[top : top + HEIGHT, left : left + WIDTH])
    return out


def fog(frames: Frames) -> Frames:
    return [(frame * 0.25 + 150).astype(np.uint8) for frame in frames]


def plain(frames: Frames) -> Frames:
    return frames


SCENERY = [plain, overcast, blown_out_wall, night, sea, tripod, slow_pan, zoom, fog]


@pytest.mark.parametrize("take", [pan, shaken], ids=["pan", "shaken"])
@pytest.mark.parametrize("scenery", SCENERY, ids=lambda scenery: scenery.__name__)
def test_scenery_is_no_artifact(take: Callable[[], Frames], scenery: Callable[[Frames], Frames]) -> None:
    assert look(scenery(take())).mask.mean() <= 0.02


def test_a_scene_that_stands_still_is_not_known() -> None:
    assert not look(tripod(pan())).known
    assert not look([crop(900)] * 10).known
    assert not look([np.full((HEIGHT, WIDTH, 3), 128, np.uint8)] * 10).known
    assert look(shaken()).known


def test_noise_of_one_grey_level_moves_no_verdict() -> None:
    rng = np.random.default_rng(0)

    def areas(frames: Frames) -> npt.NDArray[np.float64]:
        signed = [grey(frame).astype(np.int16) for frame in frames]
        draws = [[np.clip(f + rng.integers(-1, 2, f.shape), 0, 255).astype(np.uint8) for f in signed] for _ in range(8)]
        return np.array([seen(draw).mask.mean() for draw in draws])

    assert (areas(with_plate(shaken(), 0.06, 255, 0.25)[0]) > 0.05).all()
    assert (areas(overcast(pan())) < 0.02).all()
    assert (areas(blown_out_wall(pan())) < 0.02).all()


UNDER_NOISE: dict[str, tuple[Callable[[], Frames], bool]] = {
    "plate": (lambda: with_plate(shaken(), 0.06, 255, 0.25)[0], True),
    "disc": (lambda: blended(shaken(), shape("disc", 0.08), 0.25), True),
    "triangle": (lambda: blended(shaken(), shape("triangle", 0.08), 0.25), True),
    "overcast": (lambda: overcast(pan()), False),
    "blown-out wall": (lambda: blown_out_wall(pan()), False),
    "slow pan": (lambda: slow_pan(pan()), False),
}


@pytest.mark.campaign
@pytest.mark.slow  # The test makes a hundred draws.
@pytest.mark.parametrize("name", UNDER_NOISE)
def test_the_verdict_stays_in_a_hundred_draws_of_noise_and_without_any_pair(name: str) -> None:
    """Small pictures, as marks are sought in."""
    made, over = UNDER_NOISE[name]
    signed = np.stack([grey(resized(frame, WIDTH // 2, HEIGHT // 2)).astype(np.int16) for frame in made()])
    rng = np.random.default_rng(0)
    draws = [np.clip(signed + rng.integers(-1, 2, signed.shape), 0, 255).astype(np.uint8) for _ in range(100)]
    verdicts = [float(seen(list(draw)).mask.mean()) > 0.05 for draw in draws]
    assert verdicts.count(over) >= 99
    plain = signed.astype(np.uint8)
    for pair in range(5):  # The frames lie as those of a sample: keyframe, partner, keyframe, and so on.
        left = [frame for i, frame in enumerate(plain) if i // 2 != pair]
        assert (float(seen(left).mask.mean()) > 0.05) == over


def test_seams_of_a_single_rectangle() -> None:
    frames, _ = with_plate(shaken(), 0.12, 255, 1.0)
    best = panels(seam_maps(gradients([reduced(grey(frame)) for frame in frames])))[0]
    side = round((0.12 * HEIGHT * WIDTH / 4) ** 0.5)
    expected = np.array([36, 36 + side, 80, 80 + 4 * side]) / 2
    assert np.abs(np.array([best.top, best.bottom, best.left, best.right]) - expected).max() <= 2


def test_all_rectangles_of_a_grid() -> None:
    """Two upright and two level seams from border to border: two of four columns by two of four rows, but the whole frame."""
    upright, level = np.zeros((120, 180), np.bool_), np.zeros((180, 120), np.bool_)
    upright[:, [60, 120]] = level[:, [40, 80]] = True
    found = panels((upright, level))
    assert len({(panel.top, panel.bottom, panel.left, panel.right) for panel in found}) == len(found) == 35
    assert {panel.covered for panel in found} == {1.0}
    assert [panel.area for panel in found] == sorted(panel.area for panel in found)
    # A third of that seam is missing, and so is the side of any panel that lies there alone.
    upright[40:80, 60] = False
    left = {(panel.top, panel.bottom, panel.left, panel.right) for panel in panels((upright, level))}
    assert (40, 80, 60, 120) not in left
    assert (40, 80, 0, 120) in left


def test_blurred_pillars_of_the_picture_as_it_is_have_no_seam() -> None:
    """Beside the picture lies its own blurred copy: all edges end there, and the brightness does not jump."""
    for turned in (False, True):
        frames = []
        for frame in shaken():
            ground = np.asarray(cv2.GaussianBlur(frame, (0, 0), 20), np.uint8)
            window = (slice(135, HEIGHT - 135), slice(None)) if turned else (slice(None), slice(270, WIDTH - 270))
            ground[window] = frame[window]
            frames.append(as_jpeg(ground, 90))
        true = 0.5 if turned else 540 / WIDTH
        assert look(frames).mask.mean() == pytest.approx(true, abs=POINTS)


def test_a_thing_before_black_is_no_picture_on_a_blurred_ground() -> None:
    frames = []
    for i in range(10):
        frame = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        window = np.zeros((HEIGHT, WIDTH), np.uint8)
        cv2.circle(window, (WIDTH // 2, HEIGHT // 2), 250, 1, -1)
        frame[window > 0] = crop(20 + 90 * i)[window > 0]
        frames.append(frame)
    assert blurred_ground(*ground_of(frames)) == []


def test_a_page_with_a_line_at_its_side_is_no_blurred_ground() -> None:
    frames = []
    for frame in shaken():
        page = np.full_like(frame, 255)
        page[100:-100] = frame[100:-100]
        page[:, :8] = 0
        frames.append(page)
    assert blurred_ground(*ground_of(frames)) == []


def ground_of(frames: Frames) -> tuple[list[npt.NDArray[np.uint8]], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    small = [reduced(grey(frame)) for frame in frames]
    right, down = np.square(gradients(small)).sum(axis=0)
    return small, right, down


def grid(columns: int, rows: int, line: int, colour: int, *, still: bool = False) -> Frames:
    """A split screen: the take is at the upper left, all else is another film; lines between them."""
    frames = []
    for i, frame in enumerate([crop(900)] * 10 if still else shaken()):
        whole = frame.copy()
        width, height = WIDTH // columns, HEIGHT // rows
        for row in range(rows):
            for column in range(columns):
                window = (slice(row * height, (row + 1) * height), slice(column * width, (column + 1) * width))
                if row or column:
                    whole[window] = other((i + 3 * row + column) % 10)[:height, :width]
        for column in range(1, columns):
            whole[:, column * width - line // 2 : column * width + line // 2] = colour
        for row in range(1, rows):
            whole[row * height - line // 2 : row * height + line // 2] = colour
        frames.append(whole)
    return frames


@pytest.mark.parametrize(("columns", "rows"), [(2, 1), (1, 2), (2, 2), (3, 1)])
@pytest.mark.parametrize(("line", "colour"), [(6, 255), (12, 0)])
def test_a_split_screen_with_lines_between_its_pictures(columns: int, rows: int, line: int, colour: int) -> None:
    found = look(grid(columns, rows, line, colour)).mask.mean()
    # The lines are no part of the picture either.
    assert found == pytest.approx(1 - 1 / (columns * rows), abs=0.5 * POINTS + line / HEIGHT)


def test_a_line_in_a_scene_that_stands_still_divides_it_only_where_something_moves_on_both_sides() -> None:
    frames = [crop(900) for _ in range(10)]
    for frame in frames:
        frame[:, 476:484] = 255
    assert look(frames).mask.mean() < 0.05


def test_a_plate_with_digits_that_count_is_a_plate() -> None:
    frames = shaken()
    for i, frame in enumerate(frames):
        frame[40:110, 60:400] = (20, 40, 90)
        cv2.putText(frame, f"HOME {i} : {9 - i} AWAY", (70, 85), cv2.FONT_HERSHEY_SIMPLEX, 1.0, (255,) * 3, 2)
    assert look(frames).mask.mean() == pytest.approx(70 * 340 / (HEIGHT * WIDTH), abs=POINTS)


def test_a_column_of_a_chat_counts_with_the_text_that_scrolls_in_it() -> None:
    frames = shaken()
    for i, frame in enumerate(frames):
        frame[:, 750:] = (24, 24, 30)
        for k in range(14):
            at = (758, (k * 42 - 17 * i) % (HEIGHT + 40))
            cv2.putText(
                frame, f"user{k}: hello there"[: 8 + 3 * k % 9], at, cv2.FONT_HERSHEY_SIMPLEX, 0.6, (220,) * 3, 1
            )
    assert look(frames).mask.mean() == pytest.approx(210 / WIDTH, abs=POINTS)


def test_a_pale_band_with_the_picture_above_and_below_counts_by_itself() -> None:
    frames = []
    for frame in shaken():
        frame[432:497] = np.asarray(frame[432:497] * 0.6, np.uint8)
        frames.append(frame)
    assert look(frames).mask.mean() == pytest.approx(65 / HEIGHT, abs=POINTS)
