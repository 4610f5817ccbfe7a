"""Holes in a file that its demuxer passes over in silence: a disk with a fault, a download that lacks blocks.

Where bytes make no sense, ffmpeg looks for the next packet that does. The packets between are lost, and a decoder that lacks
them shows what it can (H.264, VP9, Theora).
"""

from __future__ import annotations

import math
from typing import Any

import av
import av.stream

# The packets of these lie close behind one another: headers between them take a few dozen bytes, in Ogg up to 2,700.
_DENSE = {"flv", "live_flv", "matroska,webm", "ogg", "nut"}
# Bytes. A disk or a download loses 4096 or more at once; some of them may be at the end of a packet that was read.
_BLOCK = 3072
_LEAP = 1.5  # Steps from packet to packet.


class Holes:
    """Looks for holes between the packets of all streams of a file, in the order in which they are read. container: its format.
    film: the stream whose packets may be lost. damaged: the file is known to have holes."""

    def __init__(self, container: str, film: av.stream.Stream, damaged: bool) -> None:
        self._dense, self._film = damaged or container in _DENSE, film
        self._begun = math.nan  # The latest place of a packet in the file.
        self._held = 0  # Bytes of packets from there on.
        self._missing = False  # Since the last packet of the film.
        self._last: int | None = None  # Ticks. When the last packet of the film is decoded.
        self._step = math.inf  # Ticks. The least from one packet of the film to the next.

    def before(self, packet: av.Packet[Any]) -> bool:
        """Whether packets of the film are lost between this one and those before it: a block of the file or more is of no packet,
        and the film leaps in time. Both are needed, as other things may lie between packets, and times may be uneven."""
        if not self._dense:
            return False
        if packet.pos is None or packet.pos <= self._begun:
            self._held += packet.size
        else:
            self._missing |= packet.pos - self._begun - self._held >= _BLOCK
            self._begun, self._held = packet.pos, packet.size
        if packet.stream is not self._film or packet.dts is None:
            return False
        missing, last, self._missing, self._last = self._missing, self._last, False, packet.dts
        if last is None or packet.dts <= last:
            return False
        leapt = packet.dts - last > _LEAP * self._step
        self._step = min(self._step, packet.dts - last)
        return missing and leapt
