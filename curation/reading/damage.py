"""What of a film does not decode, and the pictures that are spoilt by it.

A damaged frame spoils those that refer to it, which do not say so: their errors spread until a keyframe is shown. A film is cut
there, so that the takes before and after can be used.
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TypeAlias

import av
import av.error
import av.video.stream
from av.video.frame import PictureType

# Frames. So many that come after one in the file may be shown before it (H.264 and HEVC).
_REORDERED = 16
# Packets. A parser may take a leap of the counters for one of the packet before.
_NEAR = 2
# Zeros in a unit, or more of them at its end than any padding has.
_ZEROS = re.compile(rb"\0\0\0+(?:[^\0\1]|(?<=\0{64}))")
_MANY_ZEROS = bytes(256)
_FULL = {"vp8", "vp9", "dvvideo"}  # Codecs without so many zeros.
# Whether the first byte of a unit is that of one that holds a part of a picture.
_PICTURES: dict[str, Callable[[int], bool]] = {
    "h264": lambda byte: 1 <= byte & 31 <= 5,
    "hevc": lambda byte: byte >> 1 & 63 < 32,
}
_MOST_LOST = 64  # Packets. So many that are damaged are remembered until they are decoded.

_Packet: TypeAlias = "av.Packet[av.video.stream.VideoStream]"


@dataclass(slots=True)
class Damage:
    """A stretch of a film, from `start` to `end`, seconds: what does not decode lies in it, and all pictures in it are spoilt.
    end: infinity until a keyframe is shown."""

    start: float
    end: float = math.inf

    def __str__(self) -> str:
        if self.end <= self.start:
            return f"at {self.start:.3f} s of the film"
        until = f"to {self.end:.3f} s" if math.isfinite(self.end) else "to its end"
        return f"what the film shows from {self.start:.3f} s {until}"

    def touches(self, start: float, end: float) -> bool:
        """Whether a part of [start, end), seconds, is damaged."""
        return self.start < end and (self.end > start or self.start >= start)


class Damages:
    """The damages that one run of a decoder meets, in the order of its packets. last: the newest. codec: of the film; prefix: the
    bytes of the length that stands before each unit of its packets (`turns.prefix_of`)."""

    def __init__(self, codec: str = "", prefix: int = 0) -> None:
        self._codec, self._prefix = codec, prefix
        self.last: Damage | None = None
        self._before: Damage | None = None  # The one before the last.
        self._latest = -math.inf  # The greatest time of what did not decode, seconds.
        self._newest = -math.inf  # The time of the frame that was shown last, seconds.
        self._begun = False  # Whether a frame was shown, or a keyframe that should have been.
        self._key = False  # Whether the newest packet is a keyframe.
        self._lost: deque[_Packet] = deque(maxlen=_MOST_LOST)
        self._hole = False  # Whether something is missing before the next packet.
        self._behind_hole: _Packet | None = None
        self._behind_whole = False  # Whether a hole may have cut the packet before it, and not the one behind it.
        self._final: _Packet | None = None
        self._keys: list[float] = []  # The times of keyframes after the newest damage, seconds.
        self._coming: deque[float] = deque(maxlen=_REORDERED)
        # The times of keyframes behind the newest frame, seconds, at most _MOST_LOST of them.
        self._unshown: list[float] = []

    @property
    def open(self) -> bool:
        """Whether the pictures that come are spoilt."""
        return self.last is not None and self.last.end == math.inf

    def reading(self, packets: Iterator[_Packet]) -> Iterator[_Packet]:
        """The packets of the film, on their way to the decoder."""
        ahead: deque[_Packet] = deque()
        coming, failed = self._noting_holes(packets), None
        while (packet := ahead.popleft() if ahead else next(coming, None)) is not None:
            behind = packet is self._behind_hole and not (self._behind_whole and packet.is_keyframe)
            leapt = packet.is_corrupt or behind
            try:
                ahead.extend(islice(coming, (_NEAR if leapt else 1) - len(ahead)))
            except (av.error.FFmpegError, ValueError) as error:
                failed = error
            leapt &= not any(one.is_keyframe or is_end(one) for one in ahead)
            leapt |= self._behind_whole and bool(ahead) and ahead[0] is self._behind_hole
            if leapt or (packet.size and is_overwritten(memoryview(packet), self._codec, self._prefix)):
                self._lost.append(packet)
            if ahead and is_end(ahead[0]):
                self._final = packet
            yield packet
        if failed is not None:
            raise failed

    def _noting_holes(self, packets: Iterator[_Packet]) -> Iterator[_Packet]:
        for packet in packets:
            if self._hole:
                self._hole, self._behind_hole = False, packet
            yield packet

    def hole(self, behind_whole: bool) -> None:
        """Between the packet that was read last and the next one, a part of the file is none of a film. behind_whole: it may have
        cut the packet before it, and not the next one."""
        self._hole, self._behind_whole = True, behind_whole

    def is_lost(self, packet: _Packet) -> bool:
        """Whether a part of a packet was lost on its way, as in a broadcast, or is missing (`is_overwritten`). Where recordings,
        or the segments of a stream, are put one behind another, the counters of a transport stream leap, too, but a keyframe
        follows, and nothing is lost."""
        return any(one is packet for one in self._lost)

    def is_final(self, packet: _Packet) -> bool:
        """Whether a packet is the last of the film, in which a recording breaks off. It may not look damaged before it is
        decoded: in transport and program streams a picture has no length."""
        return packet is self._final

    def coming(self, time: float, key: bool) -> None:
        """A packet whose frame is shown at `time`, seconds, is decoded next. key: its container calls it a keyframe."""
        self._coming.append(time)
        self._key = key
        if key and self.open:
            self._keys.append(time)
        if key and len(self._unshown) < _MOST_LOST:
            self._unshown.append(time)

    def met(self, time: float) -> Damage:
        """A packet or a frame that is shown at `time`, seconds, is damaged. The damage that it belongs to."""
        start = time
        if time in self._coming:
            # A frame may refer to one that is shown after it, and says of itself only then that it is damaged.
            start = min(list(self._coming)[self._coming.index(time) :])
        self._begun |= self._key
        self._latest = max(self._latest, time)
        self._keys = [key for key in self._keys if key > self._latest]
        if self.last is None or not self.open:
            self._before, self.last = self.last, Damage(start)
        self.last.start = min(self.last.start, start)
        return self.last

    def ended(self) -> Damage | None:
        """The decoder has given all that it has. The damage behind its last frame, if the film goes on in silence: a stream that
        changes its codec has keyframes there, of which none is shown. The second field of the last frame may be called one,
        too."""
        silent = self._begun and len(self._unshown) > 1
        return self.met(math.nextafter(self._newest, math.inf)) if silent else None

    def shown(self, time: float, frame: av.VideoFrame) -> None:
        """The next frame in the order in which they are shown, at `time`, seconds. All frames that depend on a packet are
        decoded, and so shown, after it."""
        first, self._begun, self._newest = not self._begun, True, time
        self._unshown = [key for key in self._unshown if key > time]
        if self.last is None or not self.open:
            return
        # A decoder that enters in the middle of a film begins to show it where it can.
        bare = first or (frame.key_frame and frame.pict_type not in (PictureType.P, PictureType.B))
        # A film may be refreshed in stripes, from one point that is called a keyframe to the next. Only the first of two fields
        # may refer to none.
        bare |= len(self._keys) > 1 and time >= self._keys[1]
        # A frame that was decoded before the damage may be shown after it.
        if bare and time > self._latest and not frame.is_corrupt:
            self.last.end = time
        else:
            self.last.start = min(self.last.start, time)

    def stop(self) -> None:
        """This run of the decoder ends, and another begins elsewhere: it does not tell what is spoilt further on."""
        if self.last is not None and self.open:
            self.last.end = max(self._newest, self._latest)

    def spoils(self, time: float) -> bool:
        """Whether the picture that is shown at `time`, seconds, is spoilt. Pictures may be asked for a little later than their
        frames were shown."""
        return any(damage is not None and damage.start <= time < damage.end for damage in (self._before, self.last))


def is_overwritten(packet: memoryview, codec: str, prefix: int) -> bool:
    """Whether zeros stand in a picture where none can be: a download that lacks blocks, a disk that was read around a fault. The
    decoder shows such a picture, and does not say so. In H.264 and HEVC no three zeros follow one another within a unit (7.4.1 of
    both), unless a start code was left in it; films are asked whose units have a length before them (prefix, bytes). To write
    256 zeros, VP8 and VP9 would have to code some hundred thousand equal symbols in a row; in DV each 80 bytes begin with their
    kind, which is not zero."""
    if codec in _FULL:
        return _MANY_ZEROS in bytes(packet)
    if not prefix or codec not in _PICTURES:
        return False
    at = 0
    while at + prefix < len(packet) and (length := int.from_bytes(packet[at : at + prefix], "big")):
        at += prefix
        if _PICTURES[codec](packet[at]) and _ZEROS.search(packet, at, at + length):
            return True
        at += length
    return False


def is_end(packet: _Packet) -> bool:
    """Whether a packet is the one behind the last of the film: it holds nothing, not even a time."""
    return not packet.size and packet.pts is None and packet.dts is None
