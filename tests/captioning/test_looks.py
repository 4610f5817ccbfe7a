"""Light, contrast and colours of pictures whose colours are known."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import skimage.color
import skimage.data

from longtake.captioning.looks import (
    COLOURS,
    contrast_word,
    detail_word,
    difference,
    light_word,
    listed,
    look_at,
    shades,
)


def plain(*rgbs: tuple[int, int, int]) -> npt.NDArray[np.uint8]:
    """Equal vertical stripes of plain colours, uint8 [108, 192, 3]."""
    stripes = [np.broadcast_to(np.array(rgb, np.uint8), (108, 192 // len(rgbs), 3)) for rgb in rgbs]
    return np.concatenate(stripes, axis=1)


@pytest.mark.parametrize(
    ("name", "rgb"),
    [
        # People named these colours of CSS.
        ("red", (255, 0, 0)),
        ("green", (34, 139, 34)),
        ("blue", (0, 0, 255)),
        ("blue", (65, 105, 225)),
        ("yellow", (255, 255, 0)),
        ("orange", (255, 140, 0)),
        ("purple", (128, 0, 128)),
        ("pink", (255, 182, 193)),
        ("brown", (139, 69, 19)),
        ("dark blue", (0, 0, 128)),
        ("dark green", (0, 100, 0)),
        ("teal", (0, 128, 128)),
        ("cyan", (0, 255, 255)),
        ("light blue", (135, 206, 250)),
        ("magenta", (255, 0, 255)),
        ("tan", (210, 180, 140)),
        ("olive", (128, 128, 0)),
        ("black", (0, 0, 0)),
        ("grey", (128, 128, 128)),
        ("light grey", (211, 211, 211)),
        ("white", (255, 255, 255)),
    ],
)
def test_a_plain_picture_has_its_colours_name(name: str, rgb: tuple[int, int, int]) -> None:
    look = look_at(plain(rgb))
    assert look.main_colours == (name,)
    assert look.colours[0][1] == pytest.approx(1)


def test_each_anchor_has_its_own_name() -> None:
    assert [look_at(plain(rgb)).main_colours[0] for _, rgb in COLOURS] == [name for name, _ in COLOURS]


def test_colours_are_named_by_their_share() -> None:
    red, blue, white = (215, 25, 30), (35, 85, 210), (250, 250, 250)
    assert look_at(plain(red, red, blue)).main_colours == ("red", "blue")
    look = look_at(plain(red, red, red, blue, blue, white))
    assert look.main_colours == ("red", "blue", "white")
    assert dict(look.colours) == pytest.approx({"red": 1 / 2, "blue": 1 / 3, "white": 1 / 6}, abs=0.01)


def test_a_touch_of_colour_is_not_named() -> None:
    frame = plain((128, 128, 128))
    frame[:20, :50] = (255, 0, 0)  # The red part is 5 % of the picture.
    assert look_at(frame).main_colours == ("grey",)


@pytest.mark.parametrize("name", ["astronaut", "coffee", "chelsea"])
def test_light_is_the_mean_lightness_of_cie_lab(name: str) -> None:
    picture = getattr(skimage.data, name)()
    lightness = skimage.color.rgb2lab(picture)[..., 0]
    look = look_at(picture)
    assert look.light == pytest.approx(lightness.mean(), abs=1.5)
    assert look.contrast == pytest.approx(lightness.std(), abs=3)


def test_words_follow_the_measures() -> None:
    assert [light_word(light) for light in (0, 20, 40, 60, 75, 95)] == [
        "very dark",
        "dark",
        "dim",
        "",
        "bright",
        "very bright",
    ]
    grey = look_at(plain((90, 90, 90)))
    assert (detail_word(grey), contrast_word(grey)) == ("plain", "low")
    board = np.kron(np.indices((27, 48)).sum(0) % 2, np.full((4, 4), 255)).astype(np.uint8)
    chess = look_at(np.repeat(board[..., None], 3, axis=2))
    assert (detail_word(chess), contrast_word(chess)) == ("busy", "strong")
    assert shades(("light grey", "brown", "grey")) == "shades of grey and brown"
    assert shades(("black", "white")) == "black and white"
    assert [listed(("a", "b", "c")[:n]) for n in (1, 2, 3)] == ["a", "a and b", "a, b and c"]


def test_the_difference_of_black_and_white_is_their_distance_in_lab() -> None:
    black, white = look_at(plain((0, 0, 0))), look_at(plain((255, 255, 255)))
    assert difference(black, white) == pytest.approx(100, abs=0.5)
    assert difference(black, black) == 0
