"""Lattices: how a picture repeats itself along two directions over all of its area.

A pattern that repeats is like itself after every step that leads from one of its copies to another. These steps are a lattice:
whole multiples of two basis steps. They show as narrow peaks of the picture's correlation with itself, of its gradients, clipped
so that no edge counts for more than that of a pale mark. Every frequency counts by the fourth root of its power: lines, and a
scene's own finer patterns, have few frequencies of much power (whitening, as in phase correlation: Kuglin and Hines, "The phase
correlation image alignment method", 1975).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Field = npt.NDArray[np.float32]
Basis = npt.NDArray[np.float64]

AROUND = 9  # Px: the side of the square over whose mean a peak must rise.
PEAK = 5.0  # Deviations of the correlation by which a peak rises: the highest of 224 clean pictures is a tenth of a mark's.
SURE = 4.0  # Deviations at a step of a lattice.
TRIED = 16  # Highest peaks that are tried as basis steps.
NEAREST = 24.0  # Px of a basis step: letters of one word, and the grain of a cloth, repeat in less.
SMALLEST = 900.0  # Px² of a cell: a word of letters that can be read, and the ground between two.
ALL = 0.8  # Share of the steps within the picture at which there must be a peak.
FEWEST = 3  # Such steps: two of them make a basis, a third shows that it is a lattice.
USUAL = 0.2  # Share of the highest peak that a step has to have to speak for a lattice rather than against it.
REACH = 8  # Multiples of the basis steps that are looked at.
APART = 1.5  # The padded picture's side, in sides: steps of half a side do not meet those that lead round.
LEVEL = 0.55  # Share of a basis step's length that the other may have along it: of all bases the one with the shortest steps.


def lattice(steps: Field) -> Basis | None:
    """The basis of the lattice on which a picture repeats itself: float64 [2, 2], px, its columns are the steps (right, down).

    steps: float32 [h, w, 2], the gradients, clipped.
    """
    # The correlation round the edges costs a third, and shows whether there is anything to look for.
    first = _basis(_peaks(steps, 1.0))
    if first is None:
        return None
    second = _basis(_peaks(steps, APART))
    return first if second is None else second


def places(basis: Basis, height: int, width: int) -> npt.NDArray[np.float64]:
    """All steps of a lattice shorter than a picture's sides: float64 [n, 2], px (right, down)."""
    far = np.ceil(np.abs(np.linalg.inv(basis)) @ np.array([width, height], np.float64))
    first, second = (np.arange(-most, most + 1) for most in far)
    found = np.stack(np.meshgrid(first, second), axis=-1).reshape(-1, 2) @ basis.T
    return np.asarray(found[(np.abs(found) < [width, height]).all(axis=1)])


def _peaks(steps: Field, sides: float) -> Field:
    """By how many deviations a picture's correlation with itself rises above what is around: float32 [h / 2, w], of steps of up
    to half a side down and to both sides. sides: the sides to which it is padded, in its own."""
    import cv2

    height, width = steps.shape[:2]
    rows, columns = (cv2.getOptimalDFTSize(round(sides * side)) for side in (height, width))
    padded = np.zeros((rows, columns, 2), np.float32)
    padded[:height, :width] = steps
    spectrum = cv2.dft(padded, flags=cv2.DFT_COMPLEX_OUTPUT)
    power = cv2.sqrt(cv2.sqrt(spectrum[..., 0] ** 2 + spectrum[..., 1] ** 2))
    like = np.fft.fftshift(cv2.dft(cv2.merge([power, np.zeros_like(power)]), flags=cv2.DFT_INVERSE)[..., 0])
    up, left = rows // 2, columns // 2 - width // 2
    like = like[up : up + height // 2, left : left + 2 * (width // 2)]
    like = like - cv2.blur(like, (AROUND, AROUND))
    deviation = 1.4826 * float(np.median(np.abs(like)))
    return np.asarray(like / max(deviation, 1e-9), np.float32)


def _basis(peaks: Field) -> Basis | None:
    """The basis of the lattice that most of the peaks speak for."""
    import cv2

    height, width = peaks.shape
    middle = width // 2
    rows, columns = np.nonzero((peaks >= cv2.dilate(peaks, np.ones((7, 7)))) & (peaks > PEAK))
    tried = np.stack([columns - middle, rows], axis=1).astype(np.float64)
    fits = (np.hypot(*tried.T) > NEAREST) & ((rows > 0) | (columns > middle)) & _within(tried, peaks)
    tried, heights = tried[fits], peaks[rows[fits], columns[fits]]
    if len(tried) < 2:
        return None
    tried = tried[np.argsort(-heights)[:TRIED]]
    # The longer a step, the less of two copies that are so far apart lies within the picture.
    overlap = np.outer(1 - np.arange(height) / (2 * height), 1 - np.abs(np.arange(width) - middle) / width)
    usual = USUAL * float(heights.max()) * overlap
    near = cv2.dilate(peaks, np.ones((5, 5)))
    counts = np.arange(-REACH, REACH + 1)
    multiples = np.stack(np.meshgrid(counts, counts), axis=-1).reshape(-1, 2)
    multiples = multiples[multiples.any(axis=1)]
    best = 0.0
    found: tuple[Basis, npt.NDArray[np.int64]] | None = None
    for index, one in enumerate(tried):
        for other in tried[:index]:
            across = abs(float(one[0] * other[1] - one[1] * other[0]))
            if abs(one @ other) > LEVEL * min(one @ one, other @ other) or across < SMALLEST:
                continue
            steps = np.rint(multiples @ np.stack([one, other]))
            own = _within(steps, peaks) & ((steps[:, 1] > 0) | ((steps[:, 1] == 0) & (steps[:, 0] > 0)))
            at = steps[own].astype(np.int64)
            high = near[at[:, 1], at[:, 0] + middle]
            score = float((high - usual[at[:, 1], at[:, 0] + middle]).sum())
            if score > best and len(high) >= FEWEST and (high > SURE).mean() >= ALL:
                best, found = score, (np.stack([one, other]), multiples[own][high > SURE])
    if found is None:
        return None
    basis, on = found
    whole = on.astype(np.float64)
    for _ in range(2):
        tops = np.stack([_top(peaks, step) for step in on @ basis])
        basis = np.asarray(np.linalg.lstsq(whole, tops, rcond=None)[0], np.float64)
    return np.asarray(basis.T) if abs(np.linalg.det(basis)) >= SMALLEST / 2 else None


def _within(steps: npt.NDArray[np.float64], peaks: Field) -> npt.NDArray[np.bool_]:
    """Which steps [n, 2] have a peak's neighbours within the correlation."""
    return np.asarray((steps[:, 1] < len(peaks) - 2) & (np.abs(steps[:, 0]) < peaks.shape[1] // 2 - 2))


def _top(peaks: Field, step: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The place of the peak next to a step, to a fraction of a px: float64 [2]."""
    height, width = peaks.shape
    x, y = round(float(step[0])) + width // 2, round(float(step[1]))
    left, up = max(0, x - 2), max(0, y - 2)
    row, column = np.unravel_index(np.argmax(peaks[up : y + 3, left : x + 3]), peaks[up : y + 3, left : x + 3].shape)
    x, y = left + int(column), up + int(row)
    right = _vertex(peaks[y, x - 1 : x + 2]) if 0 < x < width - 1 else 0.0
    down = _vertex(peaks[y - 1 : y + 2, x]) if 0 < y < height - 1 else 0.0
    return np.array([x - width // 2 + right, y + down])


def _vertex(three: Field) -> float:
    """Where a parabola through three neighbours has its top, from the one in the middle."""
    bend = float(three[0] + three[2] - 2 * three[1])
    return float(np.clip((three[0] - three[2]) / (2 * bend), -0.5, 0.5)) if bend < 0 else 0.0
