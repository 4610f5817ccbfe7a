"""Sound of a clip: how loud it is, how much of it is silence, and whether there is any.

Formula of `loudness`: integrated loudness by ITU-R BS.1770-4. Each channel goes through the K-weighting filter (a high shelf of
4 dB above 1.7 kHz, a high pass at 38 Hz); the mean squares of its channels, added up, of blocks of 400 ms that begin every
100 ms; of these the blocks above −70 LUFS; of these again those that are no more than 10 LU below their mean; −0.691 + 10 log10
of the mean of what is left. More than two channels are mixed down to two before, as the export does. Unit: LUFS. Range: −70 to
about 3; a clip without a block above −70 LUFS has none (null), and so has one without sound. Formula of `silence`: the share of
stretches of 100 ms in which every channel has a root mean square below −60 dBFS; a clip without sound is all silence. Formula of
`sound`: the share of the clip's time for which the file has sound. Unit: share. Range: 0 to 1. Source: ITU-R BS.1770-4 and EBU
R 128; no funnel that is known to us publishes a gate on them. Protocol: `bs1770/stereo,400ms/75%,-70,-10,v2/mean`,
`rms/100ms<-60dBFS,v2/mean`, `stream/covered,v2/mean`; one value per clip. (Version 1 listened at another place where a film's
clock starts anew.)

Cost: the sound of each clip is read by a second pass over its stretch of the file, and decoded: 0.2 s of CPU per 15 s of AAC in
stereo at 48 kHz, decoding and weighting together; remote files are asked for those bytes again. Where the container does not rule
out that its clock starts anew (all but MP4, MOV and AVI), the packets of the film are read once more, undecoded. A recipe without
these filters pays nothing. (An export with `keep_audio` measures what it carries along by the same code, at no further decoding.)

Known to go wrong: one channel counts once, as the standard has it, so that a mono film is 3 LU below the same sound on two
channels; a short clip has few blocks, and little to gate by; what does not decode counts as silence.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from functools import cache
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from longtake.filters.base import Filter, MeasureError, Needs, Sample, Score

Samples = npt.NDArray[np.float32]  # [n, channels], full scale is 1

# Squares are added up over this number of stretches a second.
HOPS = 10
# A block of the standard lasts this number of stretches: 400 ms.
BLOCK = 4
# LUFS and LU: the absolute and the relative gate of the standard.
ABSOLUTE, RELATIVE = -70.0, -10.0
# LU. With it, a sine of 1 kHz at full scale on one channel has a loudness of -3.01 LUFS.
OFFSET = -0.691
# A level in dBFS. A stretch is silent if the root mean square of every channel is below it.
SILENT = -60.0
# Seconds. The impulse response of the weighting is below 1e-9 of its peak after this time.
_RING = 0.25
# Samples. The weighting is applied to so many at once.
_CHUNK = 2**16


def k_weighting(rate: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The two second-order filters for a rate of samples a second: numerators [2, 3] and denominators [2, 3]. Those of the
    standard are for 48 kHz; for other rates, the same analogue filters (as in libebur128)."""
    k = math.tan(math.pi * 1681.974450955533 / rate)
    q, high = 0.7071752369554196, 10 ** (3.999843853973347 / 20)
    band = high**0.4996667741545416
    a0 = 1 + k / q + k * k
    shelf = [(high + band * k / q + k * k) / a0, 2 * (k * k - high) / a0, (high - band * k / q + k * k) / a0]
    poles = [1.0, 2 * (k * k - 1) / a0, (1 - k / q + k * k) / a0]
    k, q = math.tan(math.pi * 38.13547087602444 / rate), 0.5003270373238773
    a0 = 1 + k / q + k * k
    return np.array([shelf, [1.0, -2.0, 1.0]]), np.array([poles, [1.0, 2 * (k * k - 1) / a0, (1 - k / q + k * k) / a0]])


@cache
def _response(rate: int) -> npt.NDArray[np.float64]:
    """The impulse response of both filters, float64 [n]."""
    signal = [1.0] + [0.0] * int(_RING * rate)
    for (b0, b1, b2), (_, a1, a2) in zip(*(each.tolist() for each in k_weighting(rate)), strict=True):
        x1 = x2 = y1 = y2 = 0.0
        for i, x in enumerate(signal):
            y = b0 * x + b1 * x1 + b2 * x2 - a1 * y1 - a2 * y2
            signal[i], x1, x2, y1, y2 = y, x, x1, y, y1
    return np.array(signal)


class Meter:
    """Hears a sound block by block; holds some seconds of it, and two numbers for each tenth of a second."""

    def __init__(self, rate: int, channels: int) -> None:
        self._rate = rate
        self._response = _response(rate)
        self._size = 1 << (_CHUNK + len(self._response) - 2).bit_length()
        self._spectrum = np.fft.rfft(self._response, self._size)
        self._before = np.zeros((len(self._response) - 1, channels), np.float32)
        self._waiting: list[Samples] = []
        self._count = 0  # The samples that are weighted.
        self._held = 0  # The samples that wait.
        self._weighted = np.zeros(0)  # The sums of squares by stretch, over the channels.
        self._plain = np.zeros((0, channels))

    def push(self, block: Samples) -> None:
        """The next samples [n, channels]."""
        self._waiting.append(block)
        self._held += len(block)
        if self._held >= _CHUNK:
            self._flush()

    def finish(self) -> None:
        """After the last sample."""
        self._flush()

    @property
    def loudness(self) -> float:
        """Integrated loudness, LUFS; nan where no block is above the absolute gate."""
        hops = self._whole_hops
        if hops < BLOCK:
            return math.nan
        sums = np.concatenate([[0.0], np.cumsum(self._weighted[:hops])])
        power = (sums[BLOCK:] - sums[:-BLOCK]) / (self._edges(hops)[BLOCK:] - self._edges(hops)[:-BLOCK])
        loud = power[_lufs(power) > ABSOLUTE]
        if not loud.size:
            return math.nan
        return float(_lufs(loud[_lufs(loud) > _lufs(loud.mean()) + RELATIVE].mean()))

    @property
    def silence(self) -> float:
        """Share of the time in which every channel is below SILENT; nan where nothing was heard."""
        hops = len(self._plain)
        if not hops:
            return math.nan
        edges = np.minimum(self._edges(hops), self._count)
        lengths = np.diff(edges)
        level = self._plain / np.maximum(lengths, 1)[:, None]
        quiet = (level < 10 ** (SILENT / 10)).all(axis=1)
        return float((quiet * lengths).sum() / max(1, lengths.sum()))

    @property
    def _whole_hops(self) -> int:
        return self._count * HOPS // self._rate

    def _edges(self, hops: int) -> npt.NDArray[np.int64]:
        """The first sample of each hop, and the one after the last: [hops + 1]."""
        return -(-np.arange(hops + 1, dtype=np.int64) * self._rate // HOPS)

    def _flush(self) -> None:
        if not self._held:
            return
        block = np.concatenate(self._waiting)
        self._waiting, self._held = [], 0
        for start in range(0, len(block), _CHUNK):
            self._weigh(block[start : start + _CHUNK])

    def _weigh(self, block: Samples) -> None:
        past = len(self._before)
        joined = np.concatenate([self._before, block])
        spectrum = np.fft.rfft(joined, self._size, axis=0) * self._spectrum[:, None]
        weighted = np.fft.irfft(spectrum, self._size, axis=0)[past : past + len(block)]
        self._before = joined[-past:]
        hop = (self._count + np.arange(len(block))) * HOPS // self._rate
        first, last = int(hop[0]), int(hop[-1]) + 1
        self._weighted = _longer(self._weighted, last)
        self._plain = _longer(self._plain, last)
        self._weighted[first:last] += np.bincount(hop - first, np.square(weighted).sum(axis=1))
        for channel in range(block.shape[1]):
            squares = np.square(block[:, channel], dtype=np.float64)
            self._plain[first:last, channel] += np.bincount(hop - first, squares)
        self._count += len(block)


def _longer(sums: npt.NDArray[np.float64], length: int) -> npt.NDArray[np.float64]:
    more = np.zeros((max(0, length - len(sums)), *sums.shape[1:]))
    return np.concatenate([sums, more])


def _lufs(power: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(OFFSET + 10 * np.log10(np.maximum(power, 1e-12)))


class _OfSound(Filter[Sample]):
    """What the three have in common: they are told of the sound, and look at no picture."""

    needs: ClassVar[Needs] = Needs.SAMPLE
    cost: ClassVar[float] = 60.0
    hears: ClassVar[bool] = True
    version: ClassVar[int] = 2

    def measure(self, items: Sequence[Sample]) -> list[Score | MeasureError]:
        unheard = MeasureError("the sound of this clip was not read: only the scan reads it")
        return [unheard if item.sound is None else self._told(self._of(item)) for item in items]

    def _told(self, value: float) -> Score:
        return Score(value, () if math.isnan(value) else (value,))

    @abstractmethod
    def _of(self, item: Sample) -> float:
        """The score of a clip whose sound was read."""


class Loudness(_OfSound):
    """Integrated loudness. Detail: that one value. Not known of a clip without sound above −70 LUFS."""

    name: ClassVar[str] = "loudness"
    backend: ClassVar[str] = "bs1770"
    unit: ClassVar[str] = "LUFS"

    @property
    def method(self) -> str:
        return "stereo,400ms/75%,-70,-10"

    def _of(self, item: Sample) -> float:
        assert item.sound is not None
        return item.sound.loudness


class Silence(_OfSound):
    """Share of the time without sound. Detail: that one value."""

    name: ClassVar[str] = "silence"
    backend: ClassVar[str] = "rms"
    unit: ClassVar[str] = "share (0-1)"

    @property
    def method(self) -> str:
        return "100ms<-60dBFS"

    def _of(self, item: Sample) -> float:
        assert item.sound is not None
        return item.sound.silence


class SoundShare(_OfSound):
    """Share of the clip's time for which the file has sound. Detail: that one value."""

    name: ClassVar[str] = "sound"
    backend: ClassVar[str] = "stream"
    unit: ClassVar[str] = "share (0-1)"

    @property
    def method(self) -> str:
        return "covered"

    def _of(self, item: Sample) -> float:
        assert item.sound is not None
        return item.sound.covered
