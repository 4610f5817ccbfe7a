"""Pillars, and banners above and below, that are the film itself as sharp as it is: mirrored at its edges, or repeated.

Editors fill the ground beside a narrow film so. Each row, reflected at the film's edge, is what it was, as far as the frame's
border: at the same line in all frames, however the film moves. A lake or a building mirrors itself at one line, and not at
another one on the other side of the frame as well. Or each row is what it was when it is moved by the film's width.

First it is looked at what changes from frame to frame, and then, for films in which nothing moves beside their edges, at what
stays. Windows, bricks and a chess board mirror and repeat themselves, too, but in less than the width of a film.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from longtake.filters.panels import MIDDLE, MIRRORED, Panel, on_seams, surround

Field = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Scores = npt.NDArray[np.float64]
Ends = tuple[float, float]

NARROW = 0.08  # Share of the frame's side. Beside a film of 4 : 3 a pillar takes 0.125.
MOST = 20.0  # Grey levels per px that an edge counts for, at most.
# Correlation of what changes in the ground and in the film. Real film has 0.2 at most; copied grounds have 0.5 and more.
ALIKE = 0.4
# The same of what stays: a few upright edges, as those of books, are alike by chance.
STAYS_ALIKE = 0.7
PLAIN = 1.0  # Mean squared gradient of a column that has next to no edges.
PATTERN = 0.6  # Correlation with what lies less than the film's width aside. A film has 0.46 at most, walls have 0.85 and more.
SMOOTH = 0.03  # Share of the frame's side, by which a picture may always be moved without much change.
TEXTURE = 0.03  # Mean squared gradient of what changes. With less there is nothing to compare.


def copied_ground(fields: Field, maps: tuple[Mask, Mask]) -> list[Panel]:
    """The two parts of a copied ground, or nothing. fields: gradients, float32 [n, 2, h, w] (right, down). maps: see
    `panels.seam_maps`."""
    import cv2

    height, width = fields.shape[2:]
    for turned in (False, True):
        # Compression and scaling leave less of single px.
        size = (width // 4, height // 2) if turned else (width // 2, height // 4)
        small = np.stack([cv2.resize(field[int(turned)], size, interpolation=cv2.INTER_AREA) for field in fields])
        ends = _ends(small.transpose(0, 2, 1) if turned else small, maps[turned])
        if ends is not None:
            film = Panel(*ends, 0, width, 1.0) if turned else Panel(0, height, *ends, 1.0)
            return [part for part in surround(film, height, width) if part.area]
    return []


def _ends(across: Field, seams: Mask) -> tuple[int, int] | None:
    """The columns at which the film begins and ends, if copies of it lie on both sides.

    across: gradients to the right at half of the frame's width, float32 [n, h, w]. seams: the frame's upright ones.
    """
    import cv2

    edges = np.clip(across, -MOST, MOST)
    mean = edges.mean(axis=0)
    changes = Likeness.of(edges - mean)
    ends = changes.mirrored(ALIKE) or changes.repeated(seams)
    if ends is None:
        # Between two columns a line is seen, too, which takes little time in one picture.
        stays = np.asarray(cv2.resize(mean, (2 * mean.shape[1], len(mean))), np.float32)
        # A drawn line, which mirrors itself, counts for no more than any other column.
        stays /= np.sqrt(np.square(stays).mean(axis=0) + PLAIN)
        ends = Likeness.of(stays[None]).mirrored(STAYS_ALIKE)
    width = seams.shape[1]
    return None if ends is None else (round(ends[0] * width), width - round(ends[1] * width))


@dataclass(frozen=True, slots=True, eq=False)
class Likeness:
    """How well columns of edges correlate with others. float64 [w] each.

    aside: all of them with those 0, 1, … columns aside. left, right: the first and the last 1, 2, … columns with their own mirror
    image.
    """

    aside: Scores
    left: Scores
    right: Scores

    @classmethod
    def of(cls, edges: Field) -> Likeness:
        """edges: float32 [n, h, w]."""
        width = edges.shape[2]
        spectrum = np.fft.rfft(edges, 2 * width)
        energy = np.square(edges).sum(axis=(0, 1), dtype=np.float64) + TEXTURE * edges[..., 0].size
        before, behind = np.cumsum(energy), np.cumsum(energy[::-1])
        shifted = np.fft.irfft(np.square(np.abs(spectrum)).sum(axis=(0, 1)), 2 * width)[:width]
        # The sum of f(x) f(k - x) over all x of a row f is its convolution with itself at k; reflected, an edge changes its sign.
        reflected = -np.fft.irfft((spectrum * spectrum).sum(axis=(0, 1)), 2 * width)[:-1]
        aside = 2 * shifted / (before + behind)[::-1]
        aside[: round(SMOOTH * width)] = 0
        return cls(aside, reflected[:width] / before, reflected[::-1][:width] / behind)

    def mirrored(self, least: float) -> Ends | None:
        """The shares of the width that mirrored grounds take at the left and at the right. least: how much they must be alike."""
        width = len(self.aside)
        # Scaling may have moved one line by a px against the other.
        near = [np.maximum(one, np.maximum(np.roll(one, 1), np.roll(one, -1))) for one in (self.left, self.right)]
        places = np.flatnonzero(np.minimum(*near) >= least)
        places = places[places >= 2 * NARROW * width]
        if not len(places):
            return None
        # A film has no such line within: the last one is its edge.
        window = slice(max(0, int(places[-1]) - 3), int(places[-1]) + 2)
        begins, ends = ((window.start + int(np.argmax(one[window])) + 1) / 2 for one in (self.left, self.right))
        film = round(width - begins - ends)
        if film < MIDDLE * width or self.aside[: film - 2].max() >= PATTERN:
            return None
        return begins / width, ends / width

    def repeated(self, seams: Mask) -> Ends | None:
        """The same of grounds that repeat a film in the middle, which ends at seams, bool [h, width of the frame]: rows of
        books and of windows repeat themselves, too."""
        width = len(self.aside)
        film = int(np.argmax(self.aside >= ALIKE))
        if not MIDDLE * width <= film <= (1 - 2 * NARROW) * width:
            return None
        film += int(np.argmax(self.aside[film : film + 4]))
        share = on_seams(seams)
        both = np.minimum(share, share[::-1])
        place = round((width - film) / 2 / width * len(both))
        if both[place - 2 : place + 3].max() < MIRRORED:
            return None
        return (0.5 - film / width / 2,) * 2
