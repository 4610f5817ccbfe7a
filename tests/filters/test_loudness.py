"""Loudness against the known answers of EBU Tech 3341, and against ffmpeg's meter."""

from __future__ import annotations

import math
import re
import shutil
import subprocess
import wave
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from longtake.filters.base import MeasureError, Sample, Score, SoundSeen
from longtake.filters.loudness import Meter, k_weighting
from longtake.filters.registry import build

Samples = npt.NDArray[np.float32]


def sine(level: float, seconds: float, rate: int = 48000, channels: int = 2, hertz: float = 1000.0) -> Samples:
    """A sine whose peak is `level` dB below full scale, on each channel."""
    time = np.arange(round(seconds * rate)) / rate
    return np.repeat((10 ** (level / 20) * np.sin(2 * np.pi * hertz * time))[:, None], channels, axis=1).astype("f4")


def heard(sound: Samples, rate: int = 48000, block: int = 7001) -> Meter:
    meter = Meter(rate, sound.shape[1])
    for start in range(0, len(sound), block):
        meter.push(sound[start : start + block])
    meter.finish()
    return meter


def test_the_filters_are_those_of_the_standard_at_48_khz() -> None:
    numerators, denominators = k_weighting(48000)
    assert numerators[0] == pytest.approx([1.53512485958697, -2.69169618940638, 1.19839281085285], abs=1e-8)
    assert denominators[0] == pytest.approx([1, -1.69065929318241, 0.73248077421585], abs=1e-8)
    assert denominators[1] == pytest.approx([1, -1.99004745483398, 0.99007225036621], abs=1e-8)


# EBU Tech 3341, table 1, cases 1 to 5: (level of a stereo sine of 1 kHz in dBFS, seconds) one after the other.
@pytest.mark.parametrize(
    ("parts", "loudness"),
    [
        ([(-23, 20)], -23.0),
        ([(-33, 20)], -33.0),
        ([(-36, 10), (-23, 60), (-36, 10)], -23.0),
        ([(-72, 10), (-36, 10), (-23, 60), (-36, 10), (-72, 10)], -23.0),
        ([(-26, 20), (-20, 20.1), (-26, 20)], -23.0),
    ],
)
def test_the_sequences_of_ebu_tech_3341(parts: list[tuple[float, float]], loudness: float) -> None:
    sound = np.concatenate([sine(level, seconds) for level, seconds in parts])
    assert heard(sound, block=48000).loudness == pytest.approx(loudness, abs=0.1)


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100])
def test_every_rate_has_the_same_loudness(rate: int) -> None:
    assert heard(sine(-23, 5, rate), rate).loudness == pytest.approx(-23.0, abs=0.15)


def test_one_channel_counts_once() -> None:
    assert heard(sine(-23, 5, channels=1)).loudness == pytest.approx(-26.0, abs=0.1)


def test_blocks_may_be_of_any_length() -> None:
    sound = np.concatenate([sine(-30, 1.33), sine(-20, 0.77, hertz=90)])
    assert heard(sound, block=977).loudness == pytest.approx(heard(sound, block=10**6).loudness, abs=1e-6)


def test_silence_is_a_share_of_the_time() -> None:
    sound = np.concatenate([sine(-20, 3), sine(-80, 1), np.zeros((48000, 2), "f4")])
    assert heard(sound).silence == pytest.approx(0.4)
    nothing = heard(np.zeros((48000, 2), "f4"))
    assert nothing.silence == 1.0
    assert math.isnan(nothing.loudness)
    one_side = sine(-20, 1)
    one_side[:, 0] = 0
    assert heard(one_side).silence == 0.0


def test_what_is_shorter_than_a_block_has_no_loudness() -> None:
    meter = heard(sine(-20, 0.35))
    assert math.isnan(meter.loudness)
    assert meter.silence == 0.0


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="the peer is ffmpeg's ebur128")
@pytest.mark.parametrize("rate", [44100, 48000])
def test_it_agrees_with_ffmpeg(tmp_path: Path, rate: int) -> None:
    random = np.random.default_rng(3)
    noise = np.cumsum(random.normal(0, 0.02, (8 * rate, 2)), axis=0)
    noise -= noise.mean(axis=0)
    envelope = np.interp(
        np.arange(len(noise)), [0, 2 * rate, 3 * rate, 5 * rate, 8 * rate], [0.02, 0.4, 0.01, 0.9, 0.1]
    )
    sound = (0.05 * noise * envelope[:, None] + sine(-30, 8, rate, hertz=3000)).clip(-1, 1)
    levels = np.rint(sound * 32767).astype("<i2")
    with wave.open(str(tmp_path / "sound.wav"), "wb") as file:
        file.setparams((2, 2, rate, 0, "NONE", ""))
        file.writeframes(levels.tobytes())
    command = ["ffmpeg", "-nostats", "-i", str(tmp_path / "sound.wav"), "-filter_complex", "ebur128", "-f", "null", "-"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    (theirs,) = re.findall(r"I:\s+(-?[\d.]+) LUFS", told.rpartition("Summary")[2])
    assert heard((levels / 32767).astype("f4"), rate).loudness == pytest.approx(float(theirs), abs=0.1)


def test_filters_are_told_of_the_sound() -> None:
    picture = np.zeros((1, 4, 4, 3), np.uint8)
    deaf = Sample(picture, picture, np.zeros(1), np.ones(1))
    loud = Sample(picture, picture, np.zeros(1), np.ones(1), sound=SoundSeen(0.5, -20.0, 0.25))
    mute = Sample(picture, picture, np.zeros(1), np.ones(1), sound=SoundSeen(0.0, math.nan, 1.0))
    for name, values in {"sound": (0.5, 0.0), "loudness": (-20.0, math.nan), "silence": (0.25, 1.0)}.items():
        none, first, second = build(name, {}).measure([deaf, loud, mute])
        assert isinstance(none, MeasureError)
        assert isinstance(first, Score)
        assert isinstance(second, Score)
        assert (first.value, second.value) == pytest.approx(values, nan_ok=True)
