"""Fields in frames that are not marked as interlaced: captures, broadcasts that were encoded anew, and film with its pulldown.

The two fields of a frame show two moments, so where something moves, lines alternate between its two places. There the lines of
the lower field are made anew from the lines above and below; all else stays as it is.

A frame is judged by its own picture, and a film by its frames: once some of them hold fields, all that come are made whole. In a
film of fields what moves is combed however small it is, and where nothing is combed nothing changes. The scan decides from which
moment on (`Fields`), and the export is told.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt

from longtake.curation.reading.colour import stand_in

Luma = npt.NDArray[np.uint8]

# Lines. Norms have fields in frames of these heights, and of those between once borders were cut away; but none in frames of 720.
_LOWEST, _HIGHEST, _WHOLE = 480, 1088, 720
# Grey levels by which each of four lines stands out from the lines above and below. On progressive film of the corpus, from 480
# lines on, at most 0.1 % of a frame alternates by so much, in noise of 12 levels 0.05 %; on woven takes of it 0.2 to 30 %.
_APART = 14
_SHARE = 0.002
# Grey levels by which lines of a frame that holds fields must alternate to be made anew: less is hardly seen, and fine detail
# would be lost with it.
_SEEN = 5
# Something that moves is lighter than its ground on one side and darker on the other. Lines that are drawn over a picture
# are all darker, or all lighter: of lines that alternate, at least this share must begin the other way.
_OTHER_WAY = 0.1
# Frames. Of the latest that were looked at, about 15 s of film, so many must hold fields for the film to hold them. Fewer tell
# nothing of the frames beside them: of film with its pulldown, two frames of five hold fields where something moves.
_LATEST, _ENOUGH = 40, 3
# Lines, an even number: a frame is looked at by strips that fit into the caches, in a fourth of the time.
_STRIP = 32
_STOOD = 8  # Frames, about 3 s: something that passes before stripes may hide them for so long.
# A first look takes some bands of lines only, spread over the frame, and of them some stripes of columns.
_BANDS, _BAND = 4, 12
_STRIPES, _STRIPE = 8, 64
# Places of the seven below one another in a band: there lines alternate over eight lines and more. Fine print and slats make them
# do so over a few lines only; in noise of 20 and 30 levels 0 to 6 % of the columns where lines alternate do so over eight. What
# moves is mostly higher: in frames of woven film 10 to 90 % do.
_HIGH, _HIGH_SHARE = 5, 0.1
# Columns. Means of so many are compared: noise and fine detail are another in each of them, and what moves is mostly not.
_ACROSS = 4
# Lines and columns around such places that are made anew as well: where the two fields cross, they are alike by chance.
_AROUND = np.ones((5, 9), np.uint8)
_PACKED = {"uyvy422": 1, "yuyv422": 0}  # The place of the first luma among the bytes of a line.
_PLANAR = ("yuv4", "yuvj4", "yuva4", "gray")


Places = npt.NDArray[np.bool_]


def uncombed(frame: av.VideoFrame, known: bool = False) -> av.VideoFrame:
    """`frame`, or a new one that is whole (without side data), if it holds two fields of a scene that moves. known: as its film
    does; otherwise its own picture has to tell."""
    luma = _luma_to_judge(frame)
    if luma is None or not (known or _hold_fields(*_sampled(luma, _bits(frame)))):
        return frame
    return _made_whole(frame)


class FieldsFound(Exception):
    """The film holds fields, and no clip of it was given out yet: it is to be read from its beginning, with that known."""


class Fields:
    """Whether a film holds fields, by those of its frames that were looked at, in their order.

    since: seconds. From this moment on each frame is made whole where its lines alternate, and before it only one that holds
    fields by its own picture. inf: as far as is known, the film holds none.
    """

    def __init__(self, since: float = math.inf) -> None:
        self.since = since
        self._latest: deque[bool] = deque(maxlen=_LATEST)
        self._before: deque[tuple[Places, Places]] = deque(maxlen=_STOOD)

    def whole(self, time: float, frame: av.VideoFrame) -> av.VideoFrame:
        """The next frame that is used, or a new one that is whole. time: seconds."""
        luma = _luma_to_judge(frame)
        if luma is None:
            return frame
        if time < self.since and not self._hold(time, *_sampled(luma, _bits(frame))):
            return frame
        return _made_whole(frame)

    def _hold(self, time: float, above: Places, below: Places) -> bool:
        """Whether the frame holds fields by its own picture, or the film now does."""
        held = moved = _hold_fields(above, below)
        places = above, below
        if held:
            # Stripes of the scene that stand where they stood are no fields: what moves has gone on.
            stood = [each for each in self._before if each[0].shape == above.shape]
            for one, other in stood:
                above, below = above & ~one, below & ~other
            moved = _hold_fields(above, below)
        self._before.append(places)
        self._latest.append(moved)
        if math.isinf(self.since) and sum(self._latest) >= _ENOUGH:
            self.since = time
        return held


def _luma_to_judge(frame: av.VideoFrame) -> npt.NDArray[Any] | None:
    """As `_luma`; also None for frames of a size that has no fields."""
    height = frame.height
    if not _LOWEST <= height <= _HIGHEST or height == _WHOLE or frame.width < _STRIPES * _ACROSS:
        return None
    return _luma(frame)


def _bits(frame: av.VideoFrame) -> int:
    """The bits of a luma number, by the end of the format's name (`yuv420p10le`): its components take longer to ask for."""
    name = frame.format.name
    return int(name[-4:-2].lstrip("p")) if name.endswith("le") else 8


def _luma(frame: av.VideoFrame) -> npt.NDArray[Any] | None:
    """The luma of a frame as it lies in memory [lines, columns], uint8 or uint16; None for formats without a plane of it."""
    name, plane = frame.format.name, frame.planes[0]
    if name in _PACKED:
        rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
        return rows[: frame.height, _PACKED[name] : 2 * frame.width : 2]
    if not name.startswith(_PLANAR) or name.endswith("be"):
        return None
    return _rows(plane, _bits(frame))


def _rows(plane: Any, bits: int) -> npt.NDArray[Any]:
    dtype = np.dtype(np.uint8 if bits == 8 else "<u2")
    return np.frombuffer(plane, dtype).reshape(-1, plane.line_size // dtype.itemsize)[: plane.height, : plane.width]


def _eight(luma: npt.NDArray[Any], bits: int) -> Luma:
    return np.asarray(luma if bits == 8 else luma >> (bits - 8), np.uint8)


def _sampled(luma: npt.NDArray[Any], bits: int) -> tuple[Places, Places]:
    """Where lines alternate in some bands of lines, as where something moves: the lower field the lighter one, or the darker."""
    step, apart = luma.shape[0] // _BANDS // 2 * 2, luma.shape[1] // _STRIPES
    width, lead = min(_STRIPE, apart) // _ACROSS * _ACROSS, (step - _BAND) // 4 * 2
    blocks = luma[: _BANDS * step, : _STRIPES * apart].reshape(_BANDS, step, _STRIPES, apart)
    bands = _eight(blocks[:, lead : lead + _BAND, :, :width], bits).astype(np.int16)
    four = bands.reshape(_BANDS, _BAND, -1, _ACROSS)
    least, most = _alternating(four[..., 0] + four[..., 1] + four[..., 2] + four[..., 3])
    enough = 2 * _ACROSS * _APART
    return least > enough, most < -enough


def _hold_fields(above: Places, below: Places) -> bool:
    """Whether lines alternate in enough places of a sample, not all of them the same way, and somewhere over many lines."""
    fewer, more = sorted((np.count_nonzero(above) / above.size, np.count_nonzero(below) / below.size))
    if fewer + more <= _SHARE or fewer <= _OTHER_WAY * (fewer + more):
        return False
    high = np.concatenate([above, below]).sum(1)
    return bool(np.count_nonzero(high >= _HIGH) >= _HIGH_SHARE * np.count_nonzero(high))


def _alternating(luma: npt.NDArray[np.int16]) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.int16]]:
    """Twice of how much lines of the lower field stand out above both neighbours, and those of the upper field below theirs: of
    four lines, one below the other, the least and the most. Where lines alternate, the least is far above 0, or the most far
    below it. luma: [..., lines, columns], its first line of the upper field. Both int16 [..., lines - 5, columns]; line n is that
    of the lines n + 1 to n + 4."""
    out = 2 * luma[..., 1:-1, :]
    out -= luma[..., :-2, :]
    out -= luma[..., 2:, :]
    np.negative(out[..., 1::2, :], out=out[..., 1::2, :])
    least, most = np.minimum(out[..., :-1, :], out[..., 1:, :]), np.maximum(out[..., :-1, :], out[..., 1:, :])
    return (
        np.minimum(least[..., :-2, :], least[..., 2:, :]),
        np.maximum(most[..., :-2, :], most[..., 2:, :]),
    )


def _seen(luma: npt.NDArray[np.int16]) -> Places:
    """Where lines alternate enough to be seen, as `_alternating` gives it; luma: [lines, columns]."""
    places = np.empty((len(luma) - 5, luma.shape[1]), np.bool_)
    for start in range(0, len(places), _STRIP):
        least, most = _alternating(luma[start : start + _STRIP + 5])
        places[start : start + _STRIP] = (least > 2 * _SEEN) | (most < -2 * _SEEN)
    return places


def _made_whole(frame: av.VideoFrame) -> av.VideoFrame:
    """A planar copy of a frame in which lines of the lower field that alternate are made anew; itself, if none do."""
    as_it_was = frame
    if frame.format.name in _PACKED:
        matrix = stand_in(frame)
        frame = frame.reformat(format="yuv422p", src_colorspace=matrix, dst_colorspace=matrix, threads=1)
    bits = _bits(frame)
    smooth = cv2.blur(_eight(_rows(frame.planes[0], bits), bits), (_ACROSS, 1))
    places = _seen(np.asarray(smooth, np.int16))
    if not places.any():
        return as_it_was
    alternate = np.zeros((frame.height, frame.width), np.uint8)
    for line in range(1, 5):
        alternate[line : line + len(places)] |= places
    alternate = np.asarray(cv2.dilate(alternate, _AROUND), np.uint8)
    made = av.VideoFrame(frame.width, frame.height, frame.format.name)
    for source, target in zip(frame.planes, made.planes, strict=True):
        rows, whole = _rows(source, bits), _rows(target, bits)
        where = cv2.resize(alternate, rows.shape[::-1], interpolation=cv2.INTER_NEAREST)
        whole[:] = rows
        lower, below = whole[1::2], rows[2::2]
        between = rows[: 2 * len(lower) : 2].copy()
        above = between[: len(below)]
        # The mean of two numbers, rounded up, in as many bits as they have.
        between[: len(below)] = (above | below) - ((above ^ below) >> 1)
        np.copyto(lower, between, where=where[1::2] > 0)
    made.pts = frame.pts
    if frame.time_base is not None:
        made.time_base = frame.time_base
    for name in ("color_range", "colorspace", "color_primaries", "color_trc"):
        setattr(made, name, getattr(frame, name))
    return made
