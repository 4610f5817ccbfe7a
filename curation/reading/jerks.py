"""Jerks of the camera: whether a picture is the one before it, moved, where the shot network sees a hard cut.

A hand that slips, a bump, a tripod that is kicked and stabilised film that snaps back move the whole picture within a frame or
two. All of it that is left is there again then, and nothing in it has moved by itself. In a jump within a take the scene is found
again, too, but people, branches and what is near have gone on. So two pictures are laid one on the other as exactly as can be, by
a move, a turn, a scale and the skew of a rolling shutter, and are compared in small blocks, each in its place. What lies over
the film and stays where it was, such as subtitles, bars or a watermark, is compared with itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from longtake.curation.reading.camera_moves import Found, distance, jerked, zoomed

Grey = npt.NDArray[np.uint8]
Map = npt.NDArray[np.float64]

_SIZE = (64, 36)  # Pixels, width and height.
# Pixels, width and height. In a larger block the edges of the scene hide what has moved in front of it.
_BLOCK = (8, 6)
# Grey levels. A block with a smaller standard deviation in both pictures, and less than twice as much between its means, shows
# nothing.
_FLAT = 3.0
_INSIDE = 2 / 3  # A share of a block. Blocks of which less is in both pictures are not compared.
_BLOCKS = 6  # Blocks. Where fewer show something, nothing is known.
# Grey levels, an eighth of their range. Where the mean of a block has changed by more, another thing has come to its place.
_OTHER = 32.0
_NOISE = 18.0  # Grey levels squared. The sum of two variances that noise and compression alone make.
# Nine of ten blocks are at least so much alike after a jerk; the second number counts where the network takes it for a cut with
# the probability `_SURE`, as it does four jumps within a take of five, and three jerks of ten. Of 116 jumps in splices 7 are, of
# 21 jerks 17, of 167 jerks behind subtitles, bars and watermarks 100, of 365 cuts to another take none.
_SHARE, _JERK, _SURE_JERK, _SURE = 0.1, 0.7, 0.8, 0.98
# Mean correlations of blocks that may move each for itself (`camera_moves.Found.alike`). Two pictures with less than the first
# number are of two takes, as six of ten pairs of two takes have it; a picture that the jerk smears has the second one with the
# next picture, and one of another take has at most 0.69.
_MAYBE, _SMEARED = 0.5, 0.7
# Pixels in the mean, and the natural logarithm of a factor. What moves by less is no jerk: where a picture stays in its place,
# and the network sees a cut all the same, things have jumped. A camera does not come nearer by so much at once.
_LEAST, _NEARER = 0.75, 0.12
_EVERYWHERE = np.ones((36, 64), np.uint8)  # The pixels whose correlation counts.
_STEPS = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 40, 1e-4)


def jerks(pictures: Sequence[Grey], first: int, last: int, likely: float) -> bool:
    """Whether the camera only jerked between the pictures number `first` and `last`, uint8 [36, 64] each, which follow one
    another; otherwise another take may lie between them, and it did not. likely: the probability of a hard cut between them."""
    if last > first + 1:
        return False
    least = _SURE_JERK if likely >= _SURE else _JERK
    before, after, *later = pictures[first : last + 2]
    found = jerked(before, after)
    if found.alike < _MAYBE:
        return False
    if _exactly(before, after, found) >= least:
        return True
    # The jerk may smear the first picture after it.
    return any(
        _exactly(before, one, jerked(before, one)) >= least and jerked(after, one).alike >= _SMEARED for one in later
    )


def _exactly(before: Grey, after: Grey, found: Found) -> float:
    """How much alike a picture and a later one are (`_alike`), if the camera jerked about as `found`; 0 if it did not."""
    if found.alike < _MAYBE:
        return 0.0
    where = _refined(before, after, found.where)
    if distance(where) < _LEAST or abs(zoomed(where)) > _NEARER:
        return 0.0
    return _alike(before, after, where)


def _refined(before: Grey, after: Grey, where: Map) -> Map:
    """The affine map near `where` at which two pictures correlate most (Evangelidis and Psarakis, 2008); `where` if none is
    found."""
    start = where[:2].astype(np.float32)
    try:
        _, found = cv2.findTransformECC(after, before, start, cv2.MOTION_AFFINE, _STEPS, _EVERYWHERE, 3)
    except cv2.error:
        return where
    return np.vstack([found, [0.0, 0.0, 1.0]]).astype(np.float64)


def _alike(before: Grey, after: Grey, where: Map) -> float:
    """How much alike all but a few blocks of a picture and those are to which `where` leads in an earlier one: −1 to 1, as in
    structural similarity (Wang and others, 2004). Where both became lighter or darker as a whole does not matter. Each pixel is
    compared with the one that moved to its place or with the one that was there before, whichever is nearer: subtitles, logos
    and watermarks stay where the film moves behind them."""
    was, now = before.astype(np.float32), after.astype(np.float32)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    moved, filled = (
        np.asarray(cv2.warpAffine(one, where[:2], _SIZE, flags=flags), np.float32) for one in (was, np.ones_like(was))
    )
    shares = _blocks(np.where(filled > 0.99, np.float32(1), np.float32(0)))
    inside = shares.mean(axis=1) >= _INSIDE
    if inside.sum() < _BLOCKS:
        return 0.0
    a = _blocks(np.where(np.abs(was - now) < np.abs(moved - now), was, moved))[inside]
    b, counts = _blocks(now)[inside], shares[inside].sum(axis=1, keepdims=True)
    weights = shares[inside] / counts
    levels = [(weights * one).sum(axis=1) for one in (a, b)]
    spreads = [(weights * one * one).sum(axis=1) - level**2 for one, level in zip((a, b), levels, strict=True)]
    both = (weights * a * b).sum(axis=1) - levels[0] * levels[1]
    apart = levels[0] - levels[1]
    apart -= np.average(apart, weights=counts[:, 0])
    shown = (np.maximum(*spreads) >= _FLAT**2) | (np.abs(apart) >= 2 * _FLAT)
    if shown.sum() < _BLOCKS or np.abs(apart).max() > _OTHER:
        return 0.0
    alike = (2 * both + _NOISE) / (spreads[0] + spreads[1] + apart**2 + _NOISE)
    return float(np.quantile(alike[shown], _SHARE))


def _blocks(picture: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """float32 [blocks, pixels]."""
    (width, height), (across, down) = _BLOCK, _SIZE
    return (
        picture.reshape(down // height, height, across // width, width)
        .transpose(0, 2, 1, 3)
        .reshape(-1, width * height)
    )
