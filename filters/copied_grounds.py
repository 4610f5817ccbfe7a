"""Pillars, and banners above and below, that are the film itself as sharp as it is: mirrored at its edges, or repeated.

Editors fill the ground beside a narrow film so. Each row, reflected at the film's edge, is what it was, as far as the frame's
border: at the same line in all frames, however the film moves. A lake or a building mirrors itself at one line, and not at
another one on the other side of the frame as well. Or each row is what it was when it is moved by the film's width.

Windows, bricks and a chess board have many such lines, but what changes from frame to frame has none of them: nothing else is
looked at, so that a ground is not seen beside a film in which nothing moves.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from longtake.filters.panels import MIDDLE, NARROWEST, Panel, surround

Field = npt.NDArray[np.float32]
Scores = npt.NDArray[np.float64]
Spectrum = npt.NDArray[np.complex128]

NARROW = 0.08  # Share of the frame's side. Beside a film of 4 : 3 a pillar takes 0.125.
MOST = 20.0  # Grey levels per px that an edge counts for, at most.
# Correlation of what changes in the ground and in the film. Real film has 0.2 at most; copied grounds have 0.5 and more.
ALIKE = 0.4
SMOOTH = 0.03  # Share of the frame's side, by which a picture may always be moved without much change.
TEXTURE = 0.03  # Mean squared gradient of what changes. With less there is nothing to compare.


def copied_ground(fields: Field) -> list[Panel]:
    """The two parts of a copied ground, or nothing. fields: gradients, float32 [n, 2, h, w] (right, down)."""
    import cv2

    height, width = fields.shape[2:]
    for turned in (False, True):
        # Compression and scaling leave less of single px.
        size = (width // 4, height // 2) if turned else (width // 2, height // 4)
        small = np.stack([cv2.resize(field[int(turned)], size, interpolation=cv2.INTER_AREA) for field in fields])
        ends = _ends(small.transpose(0, 2, 1) if turned else small, height if turned else width)
        if ends is not None:
            film = Panel(*ends, 0, width, 1.0) if turned else Panel(0, height, *ends, 1.0)
            return [part for part in surround(film, height, width) if part.area]
    return []


def _ends(across: Field, width: int) -> tuple[int, int] | None:
    """The columns of a frame of this width at which the film begins and ends, if copies of it lie on both sides.

    across: gradients to the right at half of the frame's width, float32 [n, h, w].
    """
    edges = np.clip(across, -MOST, MOST)
    edges -= edges.mean(axis=0)
    columns = edges.shape[2]
    spectrum = np.fft.rfft(edges, 2 * columns)
    energy = np.square(edges).sum(axis=(0, 1), dtype=np.float64) + TEXTURE * edges[..., 0].size
    # How many columns the ground at the left takes, and the one at the right.
    ends = _mirrored(spectrum, energy) or _repeated(spectrum, energy)
    if ends is None or sum(ends) > (1 - NARROWEST) * columns:
        return None
    return round(ends[0] * width / columns), width - round(ends[1] * width / columns)


def _mirrored(spectrum: Spectrum, energy: Scores) -> tuple[float, float] | None:
    """How many columns the grounds at the left and at the right take if they are mirrored.

    spectrum: the transform of rows that are padded to twice their width w, [n, h, w + 1]. energy: that of each column [w]. Of a
    row f, the sum of f(x) f(k - x) over all x is its convolution with itself at k; reflected, an edge changes its sign.
    """
    width = len(energy)
    pairs = -np.fft.irfft((spectrum * spectrum).sum(axis=(0, 1)), 2 * width)[:-1]
    # How well the first and the last 1, 2, … w columns correlate with their own mirror images.
    left, right = pairs[:width] / np.cumsum(energy), pairs[::-1][:width] / np.cumsum(energy[::-1])
    # Scaling may have moved one line by a px against the other.
    near = [np.maximum(scores, np.maximum(np.roll(scores, 1), np.roll(scores, -1))) for scores in (left, right)]
    places = np.flatnonzero(np.minimum(*near) >= ALIKE)
    places = places[places >= 2 * NARROW * width]
    if not len(places):
        return None
    # A film has no such line within: the last one is its edge.
    window = slice(max(0, int(places[-1]) - 3), int(places[-1]) + 2)
    begins, ends = ((window.start + int(np.argmax(scores[window])) + 1) / 2 for scores in (left, right))
    return begins, ends


def _repeated(spectrum: Spectrum, energy: Scores) -> tuple[float, float] | None:
    """The same if they repeat a film in the middle."""
    width = len(energy)
    pairs = np.fft.irfft(np.square(np.abs(spectrum)).sum(axis=(0, 1)), 2 * width)[:width]
    # Only columns that are still in the frame count when rows are moved by 0, 1, … w - 1 of them.
    alike = 2 * pairs / (np.cumsum(energy) + np.cumsum(energy[::-1]))[::-1]
    # A pattern of the scene repeats itself more closely.
    first, last = round(SMOOTH * width), round((1 - 2 * NARROW) * width)
    places = first + np.flatnonzero(alike[first:last] >= ALIKE)
    if not len(places) or places[0] < MIDDLE * width:
        return None
    place = int(places[0]) + int(np.argmax(alike[places[0] : places[0] + 4]))
    return (width - place) / 2, (width - place) / 2
