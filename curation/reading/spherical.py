"""Film of all directions (360°) and film in stereo, whose pictures are bent or hold the scene twice.

Containers say so (Spherical Video V1 and V2 in MP4, Projection and StereoMode in Matroska), and ffmpeg hands it on with each
frame. The pictures are read as they are; the film's row says what they are.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, cast

import av

# The names that ffmpeg has for the values of AVSphericalProjection and AVStereo3DType, in their order; "" for a plain picture.
_PROJECTIONS = ("equirectangular", "cubemap", "tiled equirectangular", "half equirectangular", "", "fisheye")
_STEREO = (
    "",
    "side by side",
    "top and bottom",
    "frame alternate",
    "checkerboard",
    "side by side (quincunx subsampling)",
    "interleaved lines",
    "interleaved columns",
)


def projection_of(frame: av.VideoFrame) -> str:
    """How a decoded frame holds a sphere; "" if it holds none."""
    return _named(frame, "SPHERICAL", _PROJECTIONS)


def stereo_of(frame: av.VideoFrame) -> str:
    """How a decoded frame holds two views; "" if it holds one."""
    return _named(frame, "STEREO3D", _STEREO)


def _named(frame: av.VideoFrame, kind: str, names: Sequence[str]) -> str:
    """The name of what stands first in side data of a kind, an integer."""
    # PyAV's types declare the side data as a mapping of strings, but a loop over them gives the data.
    for data in cast(Any, frame.side_data):
        if data.type.name == kind and data.buffer_size >= 4:
            (value,) = struct.unpack_from("=i", bytes(data))
            return names[value] if 0 <= value < len(names) else ""
    return ""
