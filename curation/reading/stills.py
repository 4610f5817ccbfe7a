"""What stays in the picture: whether a scene goes on from one picture to another, and where a still picture changes.

A picture is compared with another in small blocks, each in its place, or all moved by as much as the camera moved. Slides,
boards and tripod shots change where nothing moves before and after, while the shot network may take it for a small thing,
since a frame or a heading stays. There is no cut where the scene goes on behind a thing that pops up or passes by, and none
where a picture is the one before it under another light.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt

from longtake.curation.reading.bars import inside_bars
from longtake.curation.reading.fades import plain
from longtake.curation.reading.likeness import found_again, look_at
from longtake.filters.base import Image

Matrix = npt.NDArray[np.float32]
Grey = npt.NDArray[np.uint8]

_STILL = 1.0  # Seconds. Nothing moves for so long before and after.
_FEW = 3  # Pictures. At least this number before and after is looked at, however long they last.
# The rank of the difference that counts among all of two pictures: one in fifty is larger. Grey levels: a change is stark from
# `_LEAST` on, if it is more than `_TIMES` as large as any other around it; noise up to `NOISE` is none.
_RANK, _LEAST, _TIMES, NOISE = round(0.98 * 36 * 64), 12.0, 4.0, 2.0
_BLOCK = (8, 6)  # Pixels, width and height.
# Grey levels. A block whose standard deviation is greater shows something, if the means of its rows and of its columns are taken
# away first: the straight edge of a frame, a border or a page shows nothing.
_BUSY = 2.0
_SAME = 0.8  # Correlation of a block with the one in its place. Light and contrast do not matter.
# Blocks, of 48. A picture with fewer that show something is a plain one, with a title at most: of it the share of the same ones
# says nothing.
_BLOCKS = 6
# Shares of these blocks. Where fewer are the same, there is another picture; where more are, the scene goes on.
_GONE, _STAYS = 0.45, 0.5
# Shares. At least so many blocks are the same in place, and at least so many of those are lighter or darker, or of another
# contrast. Jumps within a take in still scenes keep up to 0.88 in place, and change the light of 0.09 of it; lamps and partial
# flashes change that of 0.45.
_IN_PLACE, _RELIT = 0.7, 0.3
_LIGHTER = 15.0  # Grey levels. A block whose mean changes by more is under another light.
_GAIN = 0.35  # The natural logarithm of a factor. So is a block whose contrast changes by more.
_ALIKE = 3.0  # Grey levels. A plain picture and one that differs by less in the mean are one.
# Grey levels. Levels are taken together by this number, so that a curve that leads from the levels of one picture to those of
# another is known from some 70 pixels at each of its points.
_STEP = 8
# A share of the variance of a picture that its curve explains. Of 2,400 pairs of pictures of two takes none reaches 0.67.
_TONED = 0.7
# The mean correlation of blocks that are found again (`likeness.found_again`). In a take that moves it is 0.8 and more after a
# quarter of a second; in two takes at most 0.67, of 299 pairs. A picture is lost where it is as low as between takes.
_AGAIN, _LOST = 0.75, 0.6
_LIKE = 0.5  # Correlation of two pictures. Those that are more alike are one, maybe moved a little.
# Seconds. A blink hides the scene for no longer; an editor's dip to black lasts twice as long.
_BLINK = 0.6
_SHUFFLED = 3.0  # Grey levels. Pictures whose sorted levels differ by less in the mean hold the same, maybe elsewhere.


def changes(greys: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """By how much each of some pictures but the first differs from the one before it, grey levels, float64 [n − 1]: one pixel of
    fifty differs by more. greys: uint8 [n, 36, 64]."""
    if len(greys) < 2:
        return np.zeros(0)
    apart = cv2.absdiff(greys[1:], greys[:-1]).reshape(len(greys) - 1, -1)
    return np.partition(apart, _RANK, axis=1)[:, _RANK].astype(np.float64)


def still_changes(times: Sequence[float], greys: Sequence[Grey], changed: Sequence[float]) -> npt.NDArray[np.bool_]:
    """times: seconds, [n]. greys: uint8 [36, 64] each. changed: the `changes` of each one, 0 of a film's first. Before which of
    them another still picture comes, bool [n]. Of the first and last second of them nothing can be said."""
    count, found = len(times), np.zeros(len(times), bool)
    by, moments = np.array(changed), np.array(times)
    # Most changes are not stark beside the next ones already.
    beside = np.maximum(np.append(0.0, by[:-1]), np.append(by[1:], 0.0))
    for i in np.nonzero((by > _LEAST) & (by > _TIMES * beside))[0].tolist():
        low = min(int(np.searchsorted(moments, moments[i] - _STILL)), i - _FEW)
        high = max(int(np.searchsorted(moments, moments[i] + _STILL)), i + 1 + _FEW)
        if low < 0 or high > count:
            continue
        others = max(by[low:i].max(), by[i + 1 : high].max(), NOISE)
        found[i] = by[i] > _TIMES * others and another(greys[i - 1], greys[i])
    return found


def parted(times: Sequence[float], greys: Sequence[Grey], empty: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Before which pictures of a strobe another scene comes out of black or white than went into it: bool [n]. In a fast strobe
    the shot network sees no cut; where the picture is hidden once, it sees what there is. times: seconds, [n]. greys: uint8
    [36, 64] each. empty: which ones are plain."""
    found, shown = np.zeros(len(times), bool), np.nonzero(~empty)[0].tolist()
    hidden = [(a, b) for a, b in pairwise(shown) if b > a + 1 and times[b] - times[a] <= _BLINK]
    # Seconds between one blink and the next.
    apart = [math.inf, *(times[b] - times[a] for (_, a), (b, _) in pairwise(hidden)), math.inf]
    for (a, b), beside in zip(hidden, pairwise(apart), strict=False):
        found[b] = min(beside) <= _BLINK and _elsewhere(greys[a], greys[b])
    return found


def _elsewhere(before: Grey, after: Grey) -> bool:
    """Whether both of two pictures show something, and none of it is found again in the other one."""
    return _shows(before) and _shows(after) and max(again(before, after), again(after, before)) < _LOST


def _shows(picture: Grey) -> bool:
    return int((_blocks(picture.astype(np.float32)).std(axis=1) > _BUSY).sum()) >= _BLOCKS


def another(before: Grey, after: Grey) -> bool:
    """Whether most of what a picture shows is gone in the next one, and has not merely moved, as by a jerk of the camera."""
    share = kept(before, after)
    return share is not None and share < _GONE


def goes_on(pictures: Sequence[Grey]) -> bool:
    """Whether the scene of the first of some pictures goes on to the last: most of it is there again, and in each picture between
    them most of the one or of the other is to be seen. A plain picture goes on where the other one hardly differs."""
    first, *between, last = pictures
    share = kept(first, last)
    if share is None:
        return float(np.abs(first.astype(np.float32) - last.astype(np.float32)).mean()) < _ALIKE
    return share >= _STAYS and all(
        max(kept(first, picture) or 0.0, kept(picture, last) or 0.0) >= _STAYS for picture in between
    )


def comes_back(pictures: Sequence[Grey]) -> bool:
    """Whether the scene of the first of some pictures is there again in the last, maybe moved, and neither is lost in a picture
    between them: where something passes, colours go or the camera zooms, and no other take comes between."""
    first, *between, last = pictures
    return _alike(first, last) and all(max(again(first, one), again(one, last)) >= _LOST for one in between)


def exposed(before: Grey, after: Grey) -> bool:
    """Whether a picture is the one before it in another exposure, maybe moved, even if the highlights are lost. Its blocks are
    found again once its levels are spread as in the other picture. before, after: uint8 [36, 64]."""
    if abs(float(after.mean()) - float(before.mean())) <= _LIGHTER:
        return False
    counts = np.bincount(before.ravel(), minlength=256)
    # Each level of the first picture gets the one in the middle of its share of the second one's sorted levels.
    levels = np.sort(after, axis=None)[np.maximum(np.cumsum(counts) - counts // 2 - 1, 0)]
    return _alike(levels[before], after)


def _alike(before: Grey, after: Grey) -> bool:
    """Whether the blocks of each of two pictures are found again in the other. Plain pictures have none."""
    return _shows(before) and _shows(after) and again(before, after) >= _AGAIN and again(after, before) >= _AGAIN


def relit(before: Grey, after: Grey) -> bool:
    """Whether a picture is the one before it under another light: a lamp that is switched on, a flash on a part of the scene.

    Most blocks that show something are the same in place, and many of them lighter or darker. before, after: uint8 [36, 64].
    """
    was, now = before.astype(np.float32), after.astype(np.float32)
    a, b = _blocks(was), _blocks(now)
    spreads = a.std(axis=1), b.std(axis=1)
    busy = (spreads[0] > _BUSY) | (spreads[1] > _BUSY)
    same = busy & ((a * b).mean(axis=1) > _SAME * spreads[0] * spreads[1] + 1e-3)
    if busy.sum() < _BLOCKS or same.sum() < _IN_PLACE * busy.sum():
        return False
    lighter = np.abs(_levels(now) - _levels(was)) > _LIGHTER
    stronger = np.abs(np.log((spreads[1] + 0.5) / (spreads[0] + 0.5))) > _GAIN
    return float((lighter | stronger)[same].mean()) >= _RELIT


def toned(before: Grey, after: Grey) -> bool:
    """Whether one curve leads from the levels of a picture to those of another, as where the exposure changes, even if the
    highlights are lost: the same scene in the same place under another light. before, after: uint8 [36, 64]."""
    if abs(float(after.mean()) - float(before.mean())) <= _LIGHTER:
        return False
    point, level = (before // _STEP).ravel(), after.ravel().astype(np.float32)
    count = 256 // _STEP
    curve = np.bincount(point, level, count) / np.maximum(np.bincount(point, minlength=count), 1)
    drawn = curve[point].astype(np.float32)
    if float((level - drawn).var()) > (1 - _TONED) * float(level.var()):
        return False
    share = _kept(drawn.reshape(before.shape), after.astype(np.float32), 0, 0)
    return share is not None and share >= _IN_PLACE


def blinks(times: Sequence[float], greys: Sequence[Grey], first: int, last: int) -> bool:
    """Whether the scene is only hidden for a moment where it seems to change between the pictures number `first` and `last`.

    It is there before and again after, maybe moved; what lies between, at most `_BLINK` at a time, is black, white, the same
    picture in another light, or the same in pieces that are out of place.
    """
    before = [first, *_scenes(times, greys, first, -1)]
    after = [last, *_scenes(times, greys, last, 1)]
    return any(_comes_back(times, greys, p, q) for p in before for q in after)


def _scenes(times: Sequence[float], greys: Sequence[Grey], hidden: int, step: int) -> list[int]:
    """The numbers of the pictures before (step −1) or after (1) a picture whose scene it may hide, nearest first."""
    found, i = list[int](), hidden + step
    while 0 <= i < len(greys) and abs(times[i] - times[hidden]) <= _BLINK:
        if not plain(greys[i][None]).any() and _hides(greys[i], greys[hidden]):
            found.append(i)
        i += step
    return found


def _comes_back(times: Sequence[float], greys: Sequence[Grey], p: int, q: int) -> bool:
    there, hidden = times[p], False
    for i in range(p + 1, q):
        if _hides(greys[p], greys[i]):
            hidden = True
        elif again(greys[p], greys[i]) >= _AGAIN:
            there = times[i]
        else:
            return False
        if times[i + 1] - there > _BLINK:
            return False
    return hidden and again(greys[p], greys[q]) >= _AGAIN


def again(before: Grey, after: Grey) -> float:
    """How well the blocks of a picture are found again in another, each for itself and moved by up to an eighth of the picture:
    the mean correlation, at most 1. Bars that are black in both count for nothing. before, after: uint8 [36, 64]."""
    inner = _without_bars([before, after])
    if inner is None:
        return 0.0
    (found,) = found_again(look_at((0.0, 1.0), inner), np.array([1]), [np.array([0])])
    return float(found[0, 0])


def found_among(before: Sequence[Grey], after: Sequence[Grey]) -> npt.NDArray[np.float64]:
    """How well each of some pictures is found again in each of others, and they in it: the smaller one of the two that `again`
    gives, but that bars are black in all. float64 [before, after]. Pictures: uint8 [36, 64] each."""
    inner = _without_bars([*before, *after])
    if inner is None:
        return np.zeros((len(before), len(after)))
    looks, count = look_at(range(len(inner)), inner), len(before)
    olds, news = np.arange(count), np.arange(count, len(inner))
    there = found_again(looks, news, [np.full(len(news), old) for old in olds])
    back = found_again(looks, olds, [np.full(count, new) for new in news])
    both = np.minimum([found[:, 0] for found in there], np.transpose([found[:, 0] for found in back]))
    return np.asarray(both, np.float64)


def _without_bars(pictures: Sequence[Grey]) -> list[Image] | None:
    """The part of pictures that is not black in all of them, uint8 [h, w, 3] each; None if nothing is left."""
    inside = inside_bars(pictures)
    return None if inside is None else [np.repeat(picture[inside][..., None], 3, axis=2) for picture in pictures]


def _hides(scene: Grey, picture: Grey) -> bool:
    """Whether a picture may be one that hides the scene of another for a moment."""
    if plain(picture[None]).any() or toned(scene, picture):
        return True
    was, now = (one.ravel().astype(np.float32) for one in (scene, picture))
    if float(np.abs(np.sort(was) - np.sort(now)).mean()) >= _SHUFFLED:
        return False
    was, now = was - was.mean(), now - now.mean()
    # This test settles nearly all pictures of a moving take, at a fiftieth of the cost of the last one.
    if float(was @ now) > _LIKE * float(np.sqrt((was @ was) * (now @ now))):
        return False
    return again(scene, picture) < _LOST


def _levels(picture: Matrix) -> Matrix:
    """The mean of each block, in the order of `_blocks`: float32 [blocks]."""
    (width, height), (high, wide) = _BLOCK, picture.shape
    parts = picture[: high // height * height, : wide // width * width]
    return np.asarray(parts.reshape(high // height, height, -1, width).mean(axis=(1, 3)).ravel(), np.float32)


def kept(before: Grey, after: Grey) -> float | None:
    """The share of the blocks that show something in one of two pictures and are the same in the other, in place or moved as the
    camera was: the greatest share. None where one of the pictures shows next to nothing. before, after: uint8 [36, 64]."""
    was, now = before.astype(np.float32), after.astype(np.float32)
    (dx, dy), _ = cv2.phaseCorrelate(was, now)
    wide, high = was.shape[1] // 3, was.shape[0] // 3
    moved = min(max(round(dx), -wide), wide), min(max(round(dy), -high), high)
    found = [share for by in {(0, 0), moved} if (share := _kept(was, now, *by)) is not None]
    return max(found, default=None)


def _kept(was: Matrix, now: Matrix, dx: int, dy: int) -> float | None:
    """As `kept`, with the second picture (dx, dy) pixels away."""
    height, width = was.shape
    a = _blocks(was[max(-dy, 0) : height - max(dy, 0), max(-dx, 0) : width - max(dx, 0)])
    b = _blocks(now[max(dy, 0) : height - max(-dy, 0), max(dx, 0) : width - max(-dx, 0)])
    spreads = a.std(axis=1), b.std(axis=1)
    same = (a * b).mean(axis=1) > _SAME * spreads[0] * spreads[1] + 1e-3
    busy = [spread > _BUSY for spread in spreads]
    shares = [float(same[some].mean()) for some in busy if some.sum() >= _BLOCKS]
    return max(shares) if len(shares) == 2 else None


def _blocks(picture: Matrix) -> Matrix:
    """float32 [blocks, pixels], without the means of their rows and columns; what is left over at the right and at the bottom is
    left out."""
    (width, height), (high, wide) = _BLOCK, picture.shape
    rows, columns = high // height, wide // width
    cut = picture[: rows * height, : columns * width]
    blocks = cut.reshape(rows, height, columns, width).transpose(0, 2, 1, 3).reshape(-1, height, width)
    blocks = blocks - blocks.mean(axis=1, keepdims=True)
    blocks = blocks - blocks.mean(axis=2, keepdims=True)
    return np.ascontiguousarray(blocks.reshape(len(blocks), -1))
