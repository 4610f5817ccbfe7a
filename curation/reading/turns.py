"""Orientations that change within a film: recordings of a telephone that were joined, photographs with EXIF data.

An MP4, MOV or Matroska film has one orientation, which each of its frames brings along. In a stream of H.264 or HEVC a message
may name another one (ITU-T H.264, D.2.27; H.265, D.2.23). ffmpeg's decoders give it to one frame only, often a later one, so it
is read from the packets.

The message says until when it holds: for one picture, or until a new sequence or another message. Here it holds from its keyframe
to the next in any case. ffmpeg's filter writes it with each keyframe, to hold until a new sequence; nobody makes a film of which
the keyframes alone are turned; and a reader that enters in the middle, as an export does, sees no keyframe before. So a keyframe
that tells nothing is upright, as where a turned recording is joined with one that is not.

By the standards a message stands before its picture, and one behind it is of the next. But if a keyframe has no other messages,
ffmpeg's filter (`h264_metadata`, to version 8.1 at least) writes its own behind the picture. In MP4, Matroska and AVI it stays
there; a transport stream is parsed by the standard, and it comes first in the packet after the keyframe's. Taken at its word, it
would turn each group from its second picture on. So a keyframe that tells nothing itself has what stands behind it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import av
import av.error
import av.video.stream
from av.video.reformatter import Colorspace

from longtake.curation.reading.orientation import UPRIGHT, Orientation, orientation_of
from longtake.curation.reading.since import Since

# Bytes at the beginning of a unit, and at both ends of a packet with start codes, in which the message is looked for. A picture
# takes megabytes.
_END = 4096
_MESSAGE = 47  # The number of the message that names an orientation, in both standards.
# By codec: the number of units of messages, and the bytes of a unit's header.
_UNITS = {"h264": (6, 1), "hevc": (39, 2)}
# By codec: the numbers of units without a picture (parameter sets, messages, delimiters, filler).
_ASIDE = {"h264": {6, 7, 8, 9, 10, 11, 12, 13, 15}, "hevc": set(range(32, 41))}
# Bytes. Parameter sets with the longest messages of encoders take less, and few pictures do, so that few packets are looked into.
_SMALL = 1024
_SIDE = 16  # Pixels. PyAV's scaler takes no smaller picture.

_Packet: TypeAlias = "av.Packet[av.video.stream.VideoStream]"


class Turns:
    """How the pictures of a film are shown, by the moments from which it holds."""

    def __init__(self, codec: str, bare: bool, prefix: int) -> None:
        """codec: by ffmpeg's name. bare: the container names no orientation, so that without a message pictures are upright: the
        decoder of HEVC goes on with that of the last sequence. prefix: as for `told_by`."""
        self._codec, self._prefix, self._untold = codec, prefix, UPRIGHT if bare else None
        self._by_message: Since[Orientation | None] = Since(None)
        self._by_frame = Since(UPRIGHT)
        self._rotation: int | None = None
        self._told: Orientation | None = None  # The orientation that is named for the keyframe that was read last.

    def reading(self, packets: Iterator[_Packet]) -> Iterator[_Packet]:
        """The packets of a film as they come. One more is read ahead where a keyframe tells nothing."""
        return self._read(packets) if self._codec in _UNITS else packets

    def _read(self, packets: Iterator[_Packet]) -> Iterator[_Packet]:
        packet = next(packets, None)
        while packet is not None:
            ahead = None
            if packet.is_keyframe:
                self._told = told_by(memoryview(packet), self._codec, self._prefix)
                if self._told is None and (ahead := next(packets, None)) is not None:
                    self._told = told_first(memoryview(ahead), self._codec, self._prefix)
            yield packet
            packet = next(packets, None) if ahead is None else ahead

    def coming(self, time: float, packet: _Packet) -> None:
        """The packet that was read last, whose picture is shown at `time`, seconds. A moment may be read again."""
        if packet.is_keyframe and self._codec in _UNITS:
            self._by_message.note(time, self._told or self._untold)

    def is_aside(self, packet: _Packet) -> bool:
        """Whether a packet holds no picture, but parameter sets or messages alone, as some recorders write them."""
        known = self._codec in _UNITS and packet.size <= _SMALL
        return known and is_aside(memoryview(packet), self._codec, self._prefix)

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


def prefix_of(codec: str, record: bytes | None) -> int:
    """The bytes of the length that stands before each unit of a packet, 0 if start codes do. record: what the container holds for
    the decoder: that of MP4, Matroska and FLV (ISO/IEC 14496-15), parameter sets behind start codes, or nothing."""
    at = {"h264": 4, "hevc": 21}.get(codec)
    if at is None or record is None or len(record) <= at or record[:3] in (b"\0\0\0", b"\0\0\1"):
        return 0
    return (record[at] & 3) + 1


def told_by(packet: memoryview, codec: str, prefix: int) -> Orientation | None:
    """The orientation that the messages in a packet name; None if none does. codec: h264 or hevc. prefix: the bytes of
    the length that stands before each unit (`prefix_of`), 0 if start codes do."""
    named = (_told(unit, codec) for unit in units(packet, prefix))
    return next((told for told in named if told is not None), None)


def told_first(packet: memoryview, codec: str, prefix: int) -> Orientation | None:
    """The orientation that the first unit of a packet names; None if it names none. The arguments are those of `told_by`."""
    first = next(units(packet, prefix), None)
    return None if first is None else _told(first, codec)


def is_aside(packet: memoryview, codec: str, prefix: int) -> bool:
    """Whether a packet has units, none of which is of a picture. The arguments are those of `told_by`; at most 8 KiB."""
    kinds = [_kind(unit, codec) for unit in units(packet, prefix)]
    return bool(kinds) and _ASIDE[codec].issuperset(kinds)


def _kind(unit: bytes, codec: str) -> int:
    return unit[0] & 31 if codec == "h264" else unit[0] >> 1 & 63


def _told(unit: bytes, codec: str) -> Orientation | None:
    """The orientation that a unit names; None if it names none, or is not of messages."""
    messages, header = _UNITS[codec]
    if _kind(unit, codec) == messages:
        for number, content in _messages(unit[header:].replace(b"\0\0\3", b"\0\0")):
            if number == _MESSAGE and len(content) >= 3:
                return _named(int.from_bytes(content[:3], "big"))
    return None


def units(data: memoryview, prefix: int) -> Iterator[bytes]:
    """The beginnings of the units in a packet that hold anything; where there are start codes, of those near its ends."""
    if not prefix:
        for end in [data] if len(data) <= 2 * _END else [data[:_END], data[-_END:]]:
            # Before the first start code there is nothing, or the rest of a unit.
            yield from (unit for unit in bytes(end).split(b"\0\0\1")[1:] if unit.strip(b"\0"))
        return
    at = 0
    while at + prefix < len(data) and (length := int.from_bytes(data[at : at + prefix], "big")):
        at += prefix
        yield bytes(data[at : at + min(length, _END)])
        at += length


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
