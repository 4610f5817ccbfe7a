"""A clip's pictures: decoded frames brought to one size, upright, I420, SDR, BT.709, limited range, without borders."""

from __future__ import annotations

import math
from typing import cast

import av
import av.error
import numpy as np
import numpy.typing as npt
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from longtake.curation.errors import VideoError
from longtake.curation.reading.box import Box
from longtake.curation.reading.colour import KNOWN, Colour, Mapper, colour_of, with_chroma
from longtake.curation.reading.combs import uncombed
from longtake.curation.reading.faults import words
from longtake.curation.reading.opening import displayed_size
from longtake.curation.reading.orientation import UPRIGHT, Orientation
from longtake.curation.reading.sizes import Size

Planes = npt.NDArray[np.uint8]  # A picture in I420, of the shape [height * 3 / 2, width].


class Painter:
    """Brings decoded frames to one size, upright, I420, SDR, BT.709, limited range.

    shown: size, pixels and orientation of all frames. max_height: pixels; None: that of the source. crop: what is kept of the
    upright picture at its displayed size. fields_since: the second from which on the film holds fields. size: width and height in
    pixels, even. Raises VideoError (export).
    """

    def __init__(
        self,
        shown: Size,
        max_height: int | None,
        crop: Box | None = None,
        fields_since: float = math.inf,
    ) -> None:
        self._turn = shown.turn
        width, height = displayed_size(shown.width, shown.height, shown.turn.rotation, shown.aspect)
        if crop and (crop.x + crop.width > _even(width) or crop.y + crop.height > _even(height)):
            raise VideoError("export", f"{crop} does not lie within its pictures of {width}×{height} px: scan it again")
        kept = (crop.width, crop.height) if crop else (width, height)
        scale = min(1.0, max_height // 2 * 2 / kept[1]) if max_height else 1.0
        self.size = _even(kept[0] * scale), _even(kept[1] * scale)
        # Borders are cut away at full size, and only then is the rest made smaller, so that nothing of a border gets into the
        # clip.
        self._full = (_even(width), _even(height)) if crop else self.size
        self._crop, self._fields_since = crop, fields_since
        self._reformatter = VideoReformatter()
        self._mappers: dict[tuple[Colour, int], Mapper] = {}

    def paint(self, time: float, frame: av.VideoFrame) -> Planes:
        """A frame as it is shown. time: of the film, seconds. Raises VideoError (unsupported)."""
        width, height = self._full[::-1] if self._turn.rotation % 180 else self._full
        try:
            frame = with_chroma(uncombed(frame, known=time >= self._fields_since))
            colour = colour_of(frame)
            mapped = frame if colour.plain else self._mapper(colour, width, height).map(frame)
            small = self._reformatter.reformat(
                mapped,
                width=width,
                height=height,
                format="yuv420p",
                src_colorspace=None if mapped is not frame or frame.colorspace in KNOWN else colour.matrix,
                dst_colorspace=Colorspace.ITU709,
                dst_color_range=ColorRange.MPEG,
                interpolation="BICUBIC",
                threads=1,
            )
        except (av.error.FFmpegError, ValueError) as error:
            reason = f"its pictures ({frame.format.name}) cannot be converted: {words(error)}"
            raise VideoError("unsupported", reason) from error
        upright = _upright(planes_of(small), width, height, self._turn)
        return self._within(upright, self._crop) if self._crop else upright

    def _within(self, planes: Planes, crop: Box) -> Planes:
        """What is kept of an upright picture, at the size of the clip."""
        height, width = planes.shape[0] * 2 // 3, planes.shape[1]
        luma, chroma = planes[:height], planes[height:].reshape(2, height // 2, width // 2)
        half = Box(crop.x // 2, crop.y // 2, crop.width // 2, crop.height // 2)
        parts = [
            luma[crop.y : crop.y + crop.height, crop.x : crop.x + crop.width],
            *chroma[:, half.y : half.y + half.height, half.x : half.x + half.width],
        ]
        kept = np.concatenate([part.ravel() for part in parts]).reshape(-1, crop.width)
        if (crop.width, crop.height) == self.size:
            return kept
        frame = av.VideoFrame.from_ndarray(kept, format="yuv420p")
        width, height = self.size
        return planes_of(self._reformatter.reformat(frame, width, height, interpolation="BICUBIC", threads=1))

    def _mapper(self, colour: Colour, width: int, height: int) -> Mapper:
        if (colour, width) not in self._mappers:
            self._mappers[colour, width] = Mapper(colour, width, height)
        return self._mappers[colour, width]


def planes_of(frame: av.VideoFrame) -> Planes:
    """A yuv420p frame as I420, uint8 [height * 3 / 2, width]."""
    return cast(Planes, frame.to_ndarray())


def _even(side: float) -> int:
    return max(2, round(side / 2) * 2)  # A picture in 4:2:0 has no odd sides.


def _upright(planes: Planes, width: int, height: int, shown: Orientation) -> Planes:
    if shown == UPRIGHT:
        return planes
    half = (height // 2, width // 2)
    luma, chroma = planes[:height], planes[height:].reshape(2, *half)
    parts = [shown.upright(part) for part in (luma, *chroma)]
    return np.concatenate([p.ravel() for p in parts]).reshape(-1, parts[0].shape[1])
