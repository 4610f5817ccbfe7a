"""Clips for tests, from pictures: encoded without loss, so that what is decoded is what was given."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from longtake.captioning.base import ClipFrames

Image = npt.NDArray[np.uint8]
TIMES = np.arange(1.5, 15, 3)


def png(picture: Image) -> bytes:
    """RGB uint8 [height, width, 3] as PNG."""
    return bytes(cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1])


def clip_of(clip_id: str, keyframes: Iterable[Image], partners: Iterable[Image], **changes: Any) -> ClipFrames:
    """A clip of these pictures, half a second apart."""
    files = tuple(map(png, keyframes)), tuple(map(png, partners))
    return ClipFrames(clip_id, *files, **{"times": TIMES, "partner_times": TIMES + 0.5, **changes})


def flat_clip(clip_id: str, grey: int = 0, **changes: Any) -> ClipFrames:
    """A clip in which there is nothing to see."""
    picture = np.full((36, 64, 3), grey, np.uint8)
    return clip_of(clip_id, [picture] * 5, [picture] * 5, **changes)
