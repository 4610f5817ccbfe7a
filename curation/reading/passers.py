"""Passers: something goes by close in front of the camera, and hides a scene that is there again behind it.

The shot network takes a large one for a transition, or for two: to another picture, and back. It differs from another take that
comes and goes by what it hides and when. Each part of the scene is gone once, sooner on the side from which the passer comes,
and is there again sooner on that side, too. And what is in front goes along with its borders, from beginning to end. A take that
is wiped, slid or dissolved in stands still for a while, or in its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from longtake.curation.reading.stills import found_among

Grey = npt.NDArray[np.uint8]
Flags = npt.NDArray[np.bool_]
Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float32]

_WIDTH, _HEIGHT = 64, 36  # Pixels.
_BLOCK = (8, 6)  # Pixels, width and height.
_ACROSS, _DOWN = _WIDTH // _BLOCK[0], _HEIGHT // _BLOCK[1]
_CORNERS = np.array([(x, y) for y in range(0, _HEIGHT, _BLOCK[1]) for x in range(0, _WIDTH, _BLOCK[0])], np.float64)
# Pictures. The scene is looked for so far before and after what the network calls a transition, which may be a part of the event.
_STEPS = (0, 4, 8, 16, 24)
BESIDE = max(_STEPS)
_ASIDE = 2.5  # Seconds. But no further away, however few pictures a second are looked at.
# Mean correlation of blocks. Two takes have at most this one (`stills`).
_SCENE = 0.67
# A correlation. A picture that is nearer by one is as good as one in which so much more is found again: the further away it is,
# the more moves in the scene itself.
_NEARER = 0.01
# Pixels. From one look to the next a scene moves so far at most; the border of a passer that is to be seen for less than 3 s goes
# further.
_NEAR = 2
# A block is there again with this correlation, or where neither it nor the other one shows more than `_FLAT` grey levels of
# standard deviation, and their means differ by less than `_LEVEL`: cameras change their exposure when something dark comes.
_SAME, _FLAT, _LEVEL = 0.75, 3.0, 12.0
# Shares of the picture. A passer hides so much of it at once, and so much of it in all. What hides less is no transition.
_MOST, _ALL = 0.25, 0.3
# The share of the hidden blocks whose time lies near the plane that time and place make, and how near: a share of the time that
# it takes to go across the picture. Of 35 passers 34 reach 0.85.
_STEADY, _CLOSE = 0.8, 0.2
# The share of the pairs of pictures in which what is in front moves on, rather than stands still, by so much of a correlation; of
# at least so many pairs. Nor does it stand still in two of them in a row, an eighth of a second. An insert that slides through
# the picture does, however short it is to be seen; of 36 passers none does.
_GOES, _BETTER, _PAIRS = 0.85, 0.02, 4
# A share. Both ends of the time for which blocks are hidden go across the picture, at least at this share of the speed of its
# middle. A take that slides in over an earlier moment of it is there everywhere at once.
_ALONG = 0.5
# A factor, and seconds. What shows nothing that could be seen to move hides a block for no longer than it takes to go across.
_HIDDEN, _MOMENT = 1.6, 0.1
_LITTLE = 240  # Pixels. Less of what is in front says nothing about how it moves.
_PLAIN = 4.0  # Grey levels. Nor does something with a smaller standard deviation.
_FAR = 3  # Pixels. The way that something in front goes from one picture to the next is known to so much.


def passes(times: Sequence[float], greys: Sequence[Grey], first: int, last: int) -> bool:
    """Whether something passes before the scene between the pictures number `first` and `last`, or around them, and nothing is
    cut. times: seconds. greys: uint8 [36, 64] each, with some before and after these two."""
    before = [first - step for step in _STEPS if step <= first and times[first] - times[first - step] <= _ASIDE]
    after = [last + n for n in _STEPS if last + n < len(greys) and times[last + n] - times[last] <= _ASIDE]
    alike = found_among([greys[i] for i in before], [greys[i] for i in after])
    if alike.max() <= _SCENE:
        return False
    apart = np.add.outer(first - np.array(before), np.array(after) - last)
    p, q = np.unravel_index(int(np.argmax(np.where(alike > _SCENE, alike - _NEARER * apart, -np.inf))), alike.shape)
    some = slice(before[p], after[q] + 1)
    return _gone_by(np.array(times[some]), np.stack(greys[some]))


def _gone_by(times: Vector, pictures: Grey) -> bool:
    """Whether something goes by in front of a scene that the first and the last of some pictures show. times: seconds, [n].
    pictures: uint8 [n, 36, 64]."""
    hidden = ~(_shown(pictures) | _shown(pictures[::-1])[::-1])
    begin, end = _longest(hidden)
    some = end >= begin
    if hidden.mean(axis=1).max() < _MOST or some.mean() < _ALL:
        return False
    begin, end, places = begin[some], end[some], _CORNERS[some]
    middle, heavy = (times[begin] + times[end]) / 2, np.asarray(end - begin + 1, np.float64)
    slope, rest, sure = _plane(places, middle, heavy)
    across = float(np.abs(slope) @ (_WIDTH, _HEIGHT))
    close = rest <= _CLOSE * across
    steady = float(heavy[close].sum() / heavy.sum())
    ends = [_along(places, times[at], sure, slope) for at in (begin, end)]
    # Motion of the scene itself hides blocks, too, at other times.
    number, front = np.arange(len(times))[:, None], np.zeros_like(hidden)
    front[:, some] = close & (number >= begin) & (number <= end)
    goes = _going(times, pictures, front, slope / max(float(slope @ slope), 1e-9))
    gone = float(np.median(times[end + 1] - times[begin - 1]))
    if steady < _STEADY or min(ends) < _ALONG:
        return False
    told = [one for one in goes if one is not None]
    if len(told) >= _PAIRS and (sum(told) < _GOES * len(told) or not all(a or b for a, b in pairwise(told))):
        return False
    return (len(told) >= _PAIRS and len(told) == len(goes)) or gone <= _HIDDEN * across + _MOMENT


def _shown(pictures: Grey) -> Flags:
    """Which blocks of each of some pictures show what was to be seen in their places before: bool [n, blocks]. All of the first
    one do."""
    known, found = pictures[0].copy(), np.ones((len(pictures), len(_CORNERS)), bool)
    for i in range(1, len(pictures)):
        found[i] = _there(known, pictures[i])
        seen = _pixels(found[i])
        known[seen] = pictures[i][seen]
    return found


def _there(known: Grey, picture: Grey) -> Flags:
    """Which blocks of a picture are there in another one, moved by up to `_NEAR` pixels: bool [blocks]."""
    wide = cv2.copyMakeBorder(known, _NEAR, _NEAR, _NEAR, _NEAR, cv2.BORDER_REPLICATE)
    places = np.asarray(sliding_window_view(wide, (_HEIGHT, _WIDTH)).reshape(-1, _HEIGHT, _WIDTH), np.uint8)
    (olds, old_levels, old_spreads), (news, new_levels, new_spreads) = _blocks(places), _blocks(picture[None])
    alike = np.einsum("sbp,bp->sb", olds, news[0]) / olds.shape[2] > _SAME * old_spreads * new_spreads
    flat = np.maximum(old_spreads, new_spreads) < _FLAT
    close = flat & (np.abs(old_levels - new_levels) < _LEVEL)
    return np.asarray((close | (alike & (np.minimum(old_spreads, new_spreads) >= _FLAT))).any(axis=0))


def _blocks(pictures: Grey) -> tuple[Matrix, Matrix, Matrix]:
    """The blocks of pictures, uint8 [n, 36, 64], less their means; their means; their standard deviations: float32 [n, blocks,
    pixels], [n, blocks], [n, blocks]."""
    (width, height), count = _BLOCK, len(pictures)
    apart = pictures.reshape(count, _DOWN, height, _ACROSS, width).transpose(0, 1, 3, 2, 4)
    blocks = np.asarray(apart.reshape(count, _DOWN * _ACROSS, -1), np.float32)
    levels = blocks.mean(axis=2)
    blocks = blocks - levels[..., None]
    return blocks, levels, np.asarray(np.sqrt(np.einsum("nbp,nbp->nb", blocks, blocks) / blocks.shape[2]), np.float32)


def _pixels(blocks: Flags) -> Flags:
    """The pixels of some blocks: bool [36, 64]."""
    return np.asarray(blocks.reshape(_DOWN, _ACROSS).repeat(_BLOCK[1], axis=0).repeat(_BLOCK[0], axis=1))


def _longest(hidden: Flags) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """The first and the last picture of the longest time for which each block is hidden, gaps of one picture aside; 0 and −1 of a
    block that never is. hidden: bool [n, blocks]; nothing is in the first and the last picture."""
    closed = hidden.copy()
    closed[1:-1] |= hidden[:-2] & hidden[2:]
    begin, end = np.zeros(hidden.shape[1], np.intp), np.full(hidden.shape[1], -1)
    for block in np.nonzero(hidden.any(axis=0))[0].tolist():
        edges = np.nonzero(np.diff(closed[:, block].astype(np.int8)))[0] + 1
        longest = int(np.argmax(edges[1::2] - edges[::2]))
        begin[block], end[block] = edges[2 * longest], edges[2 * longest + 1] - 1
    return begin, end


def _plane(places: Vector, moments: Vector, heavy: Vector) -> tuple[Vector, Vector, Vector]:
    """The plane that moments and places make, most of them: by how much they are later for each pixel to the right and down,
    seconds, [2]; how far each of them is from it, seconds; and what each of them counts."""
    rows, sure = np.column_stack([places, np.ones(len(places))]), heavy
    for _ in range(5):
        root = np.sqrt(sure)
        fit = np.linalg.lstsq(rows * root[:, None], moments * root, rcond=None)[0]
        rest = np.abs(moments - rows @ fit)
        sure = heavy / (1 + (rest / max(2 * float(np.median(rest)), 0.03)) ** 2)
    return fit[:2], rest, sure


def _along(places: Vector, moments: Vector, sure: Vector, slope: Vector) -> float:
    """By how much moments are later along a slope, as a share of it."""
    way = places @ slope
    way, moments = way - np.average(way, weights=sure), moments - np.average(moments, weights=sure)
    return float((sure * way * moments).sum() / max(float((sure * way * way).sum()), 1e-12))


def _going(times: Vector, pictures: Grey, front: Flags, speed: Vector) -> list[bool | None]:
    """For each pair of pictures in which something hides much: whether it moves on, rather than stands still; None if it cannot
    be told. And for others, if it can be told. front: the blocks that it hides, bool [n, blocks]. speed: pixels to the right and
    down for each second, [2]."""
    found: list[bool | None] = []
    for i in range(len(times) - 1):
        pair = pictures[i], pictures[i + 1], _pixels(front[i]), _pixels(front[i + 1])
        by = speed * (times[i + 1] - times[i])
        on = _alike(*pair, by, min(1 + int(np.abs(by).max() / 4), _FAR))
        still = _alike(*pair, np.zeros(2), 1)
        if on is not None and still is not None:
            found.append(on > still + _BETTER)
        elif (front[i] & front[i + 1]).mean() >= _MOST:
            found.append(None)
    return found


def _alike(was: Grey, now: Grey, hid: Flags, hides: Flags, by: Vector, near: int) -> float | None:
    """How alike what is in front is in two pictures, if it has moved by so many pixels and up to `near` more: a correlation. None
    if too little of it is in both to tell. was, now: uint8 [36, 64]. hid, hides: where it is in each, bool [36, 64]."""
    dx, dy = (round(float(pixels)) for pixels in by)
    if abs(dx) >= _WIDTH or abs(dy) >= _HEIGHT:
        return None
    both = np.zeros_like(hides)
    both[max(dy, 0) : _HEIGHT + min(dy, 0), max(dx, 0) : _WIDTH + min(dx, 0)] = hid[
        max(-dy, 0) : _HEIGHT - max(dy, 0), max(-dx, 0) : _WIDTH - max(dx, 0)
    ]
    both &= hides
    if both.sum() < _LITTLE or now[both].std() < _PLAIN:
        return None
    rows, columns = np.nonzero(both.any(axis=1))[0], np.nonzero(both.any(axis=0))[0]
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    wide = cv2.copyMakeBorder(was, near, near, near, near, cv2.BORDER_REPLICATE)
    place = wide[top - dy : bottom - dy + 2 * near, left - dx : right - dx + 2 * near].astype(np.float32)
    mask = both[top:bottom, left:right].astype(np.float32)
    likeness = cv2.matchTemplate(place, now[top:bottom, left:right].astype(np.float32), cv2.TM_CCOEFF_NORMED, mask=mask)
    return float(np.nan_to_num(likeness, nan=-1.0, posinf=-1.0, neginf=-1.0).max())
