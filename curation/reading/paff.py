"""Pictures of H.264 that are coded in two fields, as in broadcasts: a packet is then a field, and two of them make a frame.

A scan counts packets, since it does not decode all frames. Their slices tell of which field they are (ITU-T H.264, 7.3.3).
"""

from __future__ import annotations

from longtake.curation.reading.turns import units

_LONGEST = 512  # Bytes. What is read of a unit takes less.
_SEQUENCE = 7  # The number of a unit that holds the parameter set of a sequence.
_SLICES = {1, 2, 5}  # The numbers of units that begin a picture.
# The profiles whose parameter sets say how chroma is sampled, and the number of 4:4:4, whose planes may be coded apart.
_CHROMA, _PLANES = {44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 244}, 3


class FieldPairs:
    """Which packets of a film, in the order in which they are decoded, are the second field of a frame. codec: by ffmpeg's name.
    record: what the container holds for the decoder. prefix: as for `turns.told_by`."""

    def __init__(self, codec: str, record: bytes | None, prefix: int) -> None:
        self._prefix = prefix
        self._slices = _slices_of(record or b"", prefix) if codec == "h264" else None
        self._open: tuple[int, int] | None = None  # The frame and the parity of a field that has no second one yet.

    def is_second(self, packet: memoryview) -> bool:
        """Whether the next packet is the second field of a frame."""
        if self._slices is None:
            return False
        field = self._field(packet, *self._slices)
        paired = field is not None and self._open == (field[0], 1 - field[1])
        self._open = None if paired else field
        return paired

    def _field(self, packet: memoryview, bits: int, planes: int) -> tuple[int, int] | None:
        """The number of the frame, and 1 for the lower field, of a packet with a field; None for any other."""
        unit = next((unit for unit in units(packet, self._prefix) if unit[0] & 31 in _SLICES), b"")
        read = _Bits(unit)
        for _ in ("first block", "kind", "parameters"):
            read.golomb()
        read.number(planes)
        frame = read.number(bits)
        return (frame, read.number(1)) if read.number(1) else None


def _slices_of(record: bytes, prefix: int) -> tuple[int, int] | None:
    """How many bits a slice has for the number of its frame, and for its plane; None for film that has no fields."""
    # In the record of MP4, a length of two bytes and five others stand before the first parameter set.
    found = [record[8:]] if prefix else [unit for unit in units(memoryview(record), 0) if unit[0] & 31 == _SEQUENCE]
    if not found or not found[0]:
        return None
    read = _Bits(found[0])
    profile = read.number(8)
    read.number(16)
    read.golomb()
    planes = 0
    if profile in _CHROMA:
        chroma = read.golomb()
        planes = 2 * read.number(1) if chroma == _PLANES else 0
        read.golomb()
        read.golomb()
        read.number(1)
        if read.number(1):
            for number in range(12 if chroma == _PLANES else 8):
                _pass_scaling(read, 16 if number < 6 else 64)
    bits = read.golomb() + 4
    _pass_order(read)
    read.golomb()
    read.number(1)
    read.golomb()
    read.golomb()
    return None if read.number(1) else (bits, planes)


def _pass_scaling(read: _Bits, size: int) -> None:
    """Pass over a list of scaling (7.3.2.1.1.1)."""
    last = step = 8
    for _ in range(size if read.number(1) else 0):
        if step:
            step = (last + read.signed()) % 256
        last = step or last


def _pass_order(read: _Bits) -> None:
    """Pass over what a parameter set says of the order of pictures."""
    kind = read.golomb()
    if kind == 0:
        read.golomb()
    elif kind == 1:
        read.number(1)
        read.golomb()
        read.golomb()
        for _ in range(min(read.golomb(), 255)):
            read.golomb()


class _Bits:
    """Reads the numbers of a unit behind its first byte (7.2, 9.1); zeros behind its end."""

    def __init__(self, unit: bytes) -> None:
        data = unit[1:_LONGEST].replace(b"\0\0\3", b"\0\0")
        self._bits = f"{int.from_bytes(data, 'big'):0{8 * len(data)}b}" if data else ""
        self._at = 0

    def number(self, bits: int) -> int:
        """A number of so many bits."""
        start, self._at = self._at, self._at + bits
        return int(self._bits[start : self._at] or "0", 2)

    def golomb(self) -> int:
        """A number whose first bits, zeros, say how long it is."""
        one = self._bits.find("1", self._at)
        zeros = one - self._at
        if zeros < 0:
            return 0
        self._at = one
        return self.number(zeros + 1) - 1

    def signed(self) -> int:
        """A number above or below zero."""
        number = self.golomb()
        return (number + 1) // 2 if number % 2 else -(number // 2)
