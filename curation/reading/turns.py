"""Orientations that change within a film: recordings of a telephone that were joined, photographs with EXIF data.

An MP4, MOV or Matroska film has one orientation, which each of its frames brings along. In a stream of H.264 or HEVC a message
before a picture may name another one, which holds until the next sequence (ITU-T H.264, D.2.27; H.265, D.2.23). ffmpeg's decoders
give it to one frame only, often a later one, so it is read from the packets.
"""

from __future__ import annotations

from collections.abc import Iterator

import av
import av.error
import av.video.stream
from av.video.reformatter import Colorspace

from longtake.curation.reading.orientation import UPRIGHT, Orientation, orientation_of
from longtake.curation.reading.since import Since

# Bytes of a packet in which the message is looked for: it stands before the picture.
_HEAD = 4096
_MESSAGE = 47  # The number of the message that names an orientation, in both standards.
# By codec: a unit of messages, the first unit that is none of a picture, and the bytes of a unit's header.
_UNITS = {"h264": (6, 6, 1), "hevc": (39, 32, 2)}
_SIDE = 16  # Pixels. PyAV's scaler takes no smaller picture.


class Turns:
    """How the pictures of a film are shown, by the moments from which it holds."""

    def __init__(self, codec: str, bare: bool) -> None:
        """codec: by ffmpeg's name. bare: the container names no orientation, so that without a message pictures are upright: the
        decoder of HEVC goes on with that of the last sequence."""
        self._codec, self._untold = codec, UPRIGHT if bare else None
        self._by_message: Since[Orientation | None] = Since(None)
        self._by_frame = Since(UPRIGHT)
        self._rotation: int | None = None

    def coming(self, time: float, packet: av.Packet[av.video.stream.VideoStream]) -> None:
        """A packet whose picture is shown at `time`, seconds. A moment may be read again."""
        if packet.is_keyframe and self._codec in _UNITS:
            told = told_by(bytes(memoryview(packet)[:_HEAD]), self._codec)
            self._by_message.note(time, told or self._untold)

    def see(self, time: float, frame: av.VideoFrame) -> None:
        """A decoded frame that is shown at `time`, seconds, in the order in which frames are shown."""
        if frame.key_frame or frame.rotation != self._rotation:
            self._rotation = frame.rotation
            # To look at a frame's side data makes a cycle of references in PyAV, so that the frame stays in memory until Python
            # looks for cycles. A small copy may stay.
            self._by_frame.note(time, orientation_of(_small(frame)))

    def at(self, time: float) -> Orientation:
        """Of a frame that is shown at `time`, seconds."""
        return self._by_message.at(time) or self._by_frame.at(time)


def _small(frame: av.VideoFrame) -> av.VideoFrame:
    """A small copy of a frame with its side data; the frame itself, if it cannot be converted."""
    # With some matrices of their own, frames cannot be converted, and no colour counts for this.
    matrix = Colorspace.ITU709
    try:
        return frame.reformat(_SIDE, _SIDE, "gray", matrix, matrix, interpolation="POINT", threads=1)
    except (av.error.FFmpegError, ValueError):
        return frame


def told_by(data: bytes, codec: str) -> Orientation | None:
    """The orientation that the messages before a picture name; None if none does. data: the first bytes of a packet, with start
    codes or with lengths of four bytes before its units. codec: h264 or hevc."""
    message, other, header = _UNITS[codec]
    for unit in _units(data):
        kind = unit[0] & 31 if codec == "h264" else unit[0] >> 1 & 63
        if kind == message:
            for number, payload in _messages(unit[header:].replace(b"\0\0\3", b"\0\0")):
                if number == _MESSAGE and len(payload) >= 3:
                    return _named(int.from_bytes(payload[:3], "big"))
        elif kind < other and not (codec == "h264" and kind == 0):
            break  # The picture begins.
    return None


def _units(data: bytes) -> Iterator[bytes]:
    """The units at the beginning of a packet that hold at least one byte; the last may lack its end."""
    if data[:3] == b"\0\0\1" or data[:4] == b"\0\0\0\1":
        yield from (unit for unit in data.split(b"\0\0\1") if unit.strip(b"\0"))
        return
    while len(data) > 4:
        end = 4 + int.from_bytes(data[:4], "big")
        if end > 4:
            yield data[4:end]
        data = data[end:]


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and content of each message in a unit."""
    at = 0
    while at + 2 < len(data):
        numbers = []
        for _ in range(2):
            number = 0
            while at < len(data) - 1 and data[at] == 255:
                number, at = number + 255, at + 1
            numbers.append(number + data[at])
            at += 1
        yield numbers[0], data[at : at + numbers[1]]
        at += numbers[1]


def _named(bits: int) -> Orientation | None:
    """By the first 24 bits of a message: one that cancels, mirrored to the side, mirrored downwards, and the angle by which the
    picture is turned anticlockwise after that, 16 bits for a whole turn. An angle between quarter turns is rounded to one."""
    cancelled, across, down = bits >> 23 & 1, bits >> 22 & 1, bits >> 21 & 1
    if cancelled:
        return None
    quarters = round((bits >> 5 & 0xFFFF) / 0x4000)
    return Orientation((180 * down - 90 * quarters) % 360, bool(across ^ down))
