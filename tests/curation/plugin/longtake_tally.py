"""A package as a stranger would add it (entry points, see the dist-info beside it): filters and a captioner that write
down each measurement, and a filesystem whose files crash, hang or bloat whoever reads them.

Every measurement is one line in a log that only grows, `WHO NUMBER`; the number is the score too, so that a line is
found again in the manifest.
"""

from __future__ import annotations

import ctypes
import io
import os
import signal
import time
import zlib
from collections.abc import Sequence
from typing import Any, ClassVar

from fsspec import AbstractFileSystem
from pydantic import BaseModel, Field

from longtake import Captioner, Captions, ClipFrames, Filter, FilterSettings, Needs, Sample, Status


def note(log: str, who: str, number: float, pause: float) -> None:
    """One line, whole whatever is killed when; then `pause` seconds in which to be killed."""
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, f"{who} {number:.0f}\n".encode())
    finally:
        os.close(file)
    time.sleep(pause)


class TallySettings(FilterSettings):
    """Where each measurement is written down."""

    without_effect: ClassVar[frozenset[str]] = frozenset({"log", "pause"})

    log: str = Field(description="the file that grows by a line for each measurement")
    pause: float = Field(0.0, ge=0, description="seconds after each line")
    version: str = Field("1", description="another one makes old scores stale")


class _Tally(Filter[Any]):
    backend = "tally"
    unit = ""
    settings_model = TallySettings

    settings: TallySettings

    @property
    def method(self) -> str:
        return self.settings.version

    def _noted(self, data: bytes) -> Sequence[float]:
        number = float(zlib.crc32(data))
        note(self.settings.log, self.name, number, self.settings.pause)
        return [number]


class Seen(_Tally):
    """In the scan."""

    name = "seen"
    needs = Needs.SAMPLE

    def measure_one(self, item: Sample) -> Sequence[float]:
        return self._noted(item.keyframes.tobytes())


class Looked(_Tally):
    """In the score stage, in batches of three."""

    name = "looked"
    needs = Needs.FRAMES
    cost = 5000

    def measure_one(self, item: Sample) -> Sequence[float]:
        return self._noted(item.keyframes.tobytes())


class Heard(_Tally):
    """On captions."""

    name = "heard"
    needs = Needs.CAPTIONS

    def measure_one(self, item: Sequence[str]) -> Sequence[float]:
        return self._noted("\n".join(item).encode())


class TellerSettings(BaseModel, extra="forbid"):
    """As the filters', and a voice."""

    log: str = Field(description="the file that grows by a line for each clip")
    pause: float = Field(0.0, ge=0, description="seconds after each line")
    method: str = Field("1", description="the method as the protocol has it: another one makes old scores stale")
    voice: str = Field("low", description="another one is another captioner")


class Teller(Captioner):
    """Captions that tell the clip's own id."""

    name: ClassVar[str] = "teller"
    settings_model: ClassVar[type[BaseModel]] = TellerSettings

    def __init__(self, **settings: Any) -> None:
        self.settings = TellerSettings(**settings)

    @property
    def protocol(self) -> str:
        return f"teller/{self.settings.voice}"

    def write_one(self, clip: ClipFrames) -> Captions:
        note(self.settings.log, self.name, zlib.crc32(clip.clip_id.encode()), self.settings.pause)
        parts = tuple(f"{clip.clip_id} part {number}, in a {self.settings.voice} voice" for number in range(1, 6))
        return Captions(clip.clip_id, Status.OK, caption=f"All of {clip.clip_id}", sub_captions=parts)


class PoisonFileSystem(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """`poison://crash/PATH`, `poison://hang/PATH`, `poison://bloat/PATH`: the bytes of the local file at PATH, until
    something behind the first 8 KiB is read."""

    protocol = "poison"

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
        kind, _, local = self._strip_protocol(path).partition("/")
        with open(f"/{local}", "rb") as file:
            return _Poisoned(file.read(), kind)


class _Poisoned(io.BytesIO):
    def __init__(self, data: bytes, kind: str) -> None:
        super().__init__(data)
        self.kind = kind

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0 or self.tell() + size > 8192:
            if self.kind == "crash":
                os.kill(os.getpid(), signal.SIGSEGV)
            elif self.kind == "hang":
                ctypes.PyDLL(None).sleep(3600)  # A codec hangs in this way: in C, holding the interpreter's lock.
            else:
                hoard = []
                while True:
                    hoard.append(b"x" * 2**24)
                    time.sleep(0.001)
        return super().read(size)
