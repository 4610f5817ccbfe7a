"""The sound of exported clips: beeps at the moments at which the picture flashes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from longtake.curation.reading.cutting import EncodedClip, cut_clip
from longtake.curation.reading.encoding import EncodeSettings
from longtake.curation.reading.opening import open_video
from longtake.curation.reading.sampling import Span
from longtake.curation.reading.scan_video import scan_video
from longtake.curation.reading.sound import read_sound
from longtake.curation.reading.timeline import recordings
from longtake.curation.recipe import parse_recipe

FPS = 25
EVENTS = (0.4, 1.6, 2.4, 3.6)  # Seconds at which flashes and beeps begin.
LONG = 0.12  # Seconds that each of them lasts.
STEP = 0.020  # Seconds by which sound and picture may be apart.


@dataclass(frozen=True)
class Made:
    """A film of flashes and beeps. start: s, that the container's clock shows at its first picture. sound: from when to when
    there is sound, s after that."""

    suffix: str = ".mp4"
    codec: str = "aac"
    rate: int = 48000
    layout: str = "stereo"
    start: float = 0.0
    sound: tuple[float, float] = (0.0, 4.0)
    seconds: float = 4.0

    def write(self, folder: Path) -> Path:
        path = folder / f"film{self.suffix}"
        with av.open(str(path), "w") as out:
            codec = "mpeg4" if self.suffix == ".avi" else "libx264"
            options = {} if self.suffix == ".avi" else {"preset": "ultrafast", "bf": "2", "b_strategy": "0"}
            video: Any = out.add_stream(codec, rate=FPS, options=options)
            video.width = video.height = 64
            video.pix_fmt = "yuv420p"
            video.gop_size = 30
            audio: Any = out.add_stream(self.codec, rate=self.rate, layout=self.layout)
            audio.bit_rate = 192_000
            base = Fraction(1, FPS)
            for number in range(round(self.seconds * FPS)):
                bright = any(at - 1e-6 <= number / FPS < at + LONG - 1e-6 for at in EVENTS)
                frame = av.VideoFrame.from_ndarray(np.full((96, 64), 200 if bright else 40, np.uint8), "yuv420p")
                frame.pts, frame.time_base = number + round(self.start * FPS), base
                out.mux(video.encode(frame))
            out.mux(video.encode(None))
            self._sing(out, audio)
        return path

    def _sing(self, out: Any, audio: Any) -> None:
        first, last = (round(at * self.rate) for at in self.sound)
        time = np.arange(first, last) / self.rate
        on = np.any([(time >= at) & (time < at + LONG) for at in EVENTS], axis=0)
        wave = (0.5 * np.sin(2 * np.pi * 1000 * time) * on).astype(np.float32)
        channels = len(av.AudioLayout(self.layout).channels)
        resampler = av.AudioResampler(audio.format.name, self.layout, self.rate)
        for at in range(0, len(wave), 1024):
            planes = np.repeat(wave[None, at : at + 1024], channels, axis=0)
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(planes), "fltp", self.layout)
            frame.sample_rate, frame.time_base = self.rate, Fraction(1, self.rate)
            frame.pts = first + at + round(self.start * self.rate)
            for converted in resampler.resample(frame):
                out.mux(audio.encode(converted))
        out.mux(audio.encode(None))


def flashes(path: Path) -> list[float]:
    found, before = [], 0.0
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            level = float(frame.to_ndarray(format="gray").mean())
            if level > 120 >= before:
                found.append(float(frame.time or 0))
            before = level
    return found


def wave_of(path: Path) -> tuple[np.ndarray, int, float]:
    """All samples, mono, their rate, and the time of the first."""
    with av.open(str(path)) as container:
        resampler = av.AudioResampler("flt", "mono")
        begin, parts, rate = None, [], 0
        for frame in container.decode(audio=0):
            begin = float(frame.time or 0) if begin is None else begin
            rate = frame.sample_rate
            parts += [out.to_ndarray().ravel() for out in resampler.resample(frame)]
    assert begin is not None
    return np.concatenate(parts), rate, begin


def beeps(path: Path) -> list[float]:
    wave, rate, begin = wave_of(path)
    window = rate // 1000
    level = np.abs(wave[: len(wave) // window * window]).reshape(-1, window).max(axis=1)
    found, quiet = [], 99
    for number, loud in enumerate(level > 0.1):
        if loud and quiet > 20:
            found.append(begin + number / 1000)
        quiet = 0 if loud else quiet + 1
    return found


def cut(path: Path, start: float, end: float, target: Path, **how: Any) -> EncodedClip:
    settings: dict[str, Any] = {"frames": None, "preset": "ultrafast", "keep_audio": True, **how}
    return cut_clip(str(path), start, end, target, EncodeSettings(**settings))


def assert_in_step(clip: Path, wanted: Sequence[float]) -> None:
    shown, heard = flashes(clip), beeps(clip)
    assert shown == pytest.approx(wanted, abs=0.021)  # A picture lasts 40 ms, and the nearest one is shown.
    assert heard == pytest.approx(wanted, abs=STEP)


FILMS = {
    "aac": Made(),
    "44.1 kHz, mono": Made(rate=44100, layout="mono"),
    "5.1": Made(layout="5.1"),
    "96 kHz": Made(".mkv", "pcm_s16le", rate=96000),
    "opus": Made(".mkv", "libopus"),
    "mp3": Made(".mkv", "libmp3lame", rate=44100),
    "AVI": Made(".avi", "pcm_s16le"),
    "a stream that starts late": Made(".ts", "mp2", start=12.0),
    "an edit list": Made(start=1.52),
}


@pytest.mark.parametrize("name", FILMS)
@pytest.mark.parametrize(("start", "end"), [(0.0, 4.0), (1.24, 3.96)])
def test_beeps_are_heard_when_the_picture_flashes(tmp_path: Path, name: str, start: float, end: float) -> None:
    film = FILMS[name]
    path = film.write(tmp_path)
    made = cut(path, start, end, tmp_path / "clip.mp4")
    assert made.sound is not None
    assert made.sound.state == "kept"
    assert made.sound.channels == (1 if film.layout == "mono" else 2)
    assert made.sound.source_channels == len(av.AudioLayout(film.layout).channels)
    assert made.sound.rate == min(film.rate, 48000)
    assert_in_step(tmp_path / "clip.mp4", [at - start for at in EVENTS if at >= start])
    wave, rate, begin = wave_of(tmp_path / "clip.mp4")
    assert begin == pytest.approx(0, abs=0.001)
    assert len(wave) / rate == pytest.approx(made.frames / made.fps, abs=STEP)


@pytest.mark.parametrize("how", [{"fps": None}, {"fps": 24.0}, {"fps": 60.0, "frames": 120}, {"fps": 30000 / 1001}])
def test_another_rate_of_pictures_stays_in_step(tmp_path: Path, how: dict[str, Any]) -> None:
    path = Made().write(tmp_path)
    made = cut(path, 0.2, 3.0, tmp_path / "clip.mp4", **how)
    seconds = made.frames / made.fps
    assert_in_step(tmp_path / "clip.mp4", [at - 0.2 for at in EVENTS if at - 0.2 < seconds])


@pytest.mark.parametrize(
    ("sound", "heard", "covered"),
    [
        ((0.0, 2.0), (0.4, 1.6), 0.5),  # The sound ends before the picture does.
        ((1.0, 4.0), (1.6, 2.4, 3.6), 0.75),  # The sound begins late.
        ((0.0, 6.0), EVENTS, 1.0),  # The sound goes on after the picture.
    ],
)
def test_what_is_missing_is_silence(
    tmp_path: Path, sound: tuple[float, float], heard: tuple[float, ...], covered: float
) -> None:
    path = Made(".mkv", "pcm_s16le", sound=sound).write(tmp_path)
    made = cut(path, 0.0, 4.0, tmp_path / "clip.mp4")
    assert made.sound is not None
    assert made.sound.covered == pytest.approx(covered, abs=0.01)
    assert beeps(tmp_path / "clip.mp4") == pytest.approx(heard, abs=STEP)
    assert flashes(tmp_path / "clip.mp4") == pytest.approx(EVENTS, abs=0.021)
    wave, rate, _ = wave_of(tmp_path / "clip.mp4")
    assert len(wave) / rate == pytest.approx(4.0, abs=STEP)


def test_loudness_and_silence_are_of_what_is_kept(tmp_path: Path) -> None:
    path = Made(".mkv", "pcm_s16le").write(tmp_path)
    whole = read_sound(str(path), 0.0, 4.0, keep=False)
    beep = read_sound(str(path), 0.4, 0.12, keep=False)
    assert whole.silence == pytest.approx(1 - 8 / 40, abs=0.03)  # Each beep lies in two tenths of a second.
    assert beep.silence == 0.0
    assert not whole.audible  # The sound was only measured.
    assert -20 < whole.loudness < -5


def test_without_sound_the_clip_is_as_it_always_was(tmp_path: Path) -> None:
    path = Made(sound=(0.0, 0.5)).write(tmp_path)
    plain = cut(path, 1.0, 3.0, tmp_path / "plain.mp4", keep_audio=False)
    silent = cut(path, 1.0, 3.0, tmp_path / "silent.mp4")
    assert plain.sound is None
    assert silent.sound is not None
    assert silent.sound.state == "none"
    assert silent.sha256 == plain.sha256


def test_the_same_clip_gives_the_same_bytes(tmp_path: Path) -> None:
    path = Made().write(tmp_path)
    assert len({cut(path, 0.5, 3.0, tmp_path / f"{i}.mp4").sha256 for i in range(2)}) == 1


def damaged(path: Path, every: int) -> None:
    """Overwrite every so many of a film's packets of sound."""
    with av.open(str(path)) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(audio=0) if packet.size]
    data = bytearray(path.read_bytes())
    for pos, size in places[::every]:
        data[pos : pos + size] = b"\xff" * size
    path.write_bytes(data)


@pytest.mark.parametrize(("every", "state"), [(3, "damaged"), (1, "damaged")])
def test_damaged_sound_loses_no_clip(tmp_path: Path, every: int, state: str) -> None:
    path = Made().write(tmp_path)
    damaged(path, every)
    made = cut(path, 0.0, 4.0, tmp_path / "clip.mp4")
    assert made.sound is not None
    assert made.sound.state == state
    assert made.frames == 120
    assert made.sound.audible == (every > 1)
    assert flashes(tmp_path / "clip.mp4") == pytest.approx(EVENTS, abs=0.021)


def test_a_faster_clip_and_one_of_a_clock_that_starts_anew_say_why_they_are_mute(tmp_path: Path) -> None:
    path = Made().write(tmp_path)
    how = EncodeSettings(fps=25, frames=75, preset="ultrafast", keep_audio=True)
    faster = cut_clip(str(path), 0.0, 4.0, tmp_path / "a.mp4", how, pace=4 / 3)
    anew = cut_clip(str(path), 0.0, 4.0, tmp_path / "b.mp4", how, seek=False)
    assert faster.sound is not None
    assert anew.sound is not None
    assert (faster.sound.state, anew.sound.state) == (
        "left out: the clip is faster",
        "left out: the video's clock starts anew",
    )
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert not container.streams.audio


def test_an_open_file_is_read_as_a_path_is(tmp_path: Path) -> None:
    path = Made().write(tmp_path)
    how = EncodeSettings(frames=None, preset="ultrafast", keep_audio=True)
    with path.open("rb") as file:
        made = cut_clip(file, 1.24, 3.96, tmp_path / "clip.mp4", how)
    assert made.sha256 == cut(path, 1.24, 3.96, tmp_path / "again.mp4").sha256


def test_the_scan_hears_only_where_the_recipe_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Made(".mkv", "pcm_s16le", sound=(0.0, 2.0)).write(tmp_path)
    data = hearing()
    found = scan_video(str(path), parse_recipe(data, "a test"), lambda *_: None)
    scores = [{name: clip.scores[name].score.known for name in data["filters"]} for clip in found.clips]
    assert [score["sound"] for score in scores] == pytest.approx([1.0, 0.0], abs=0.01)
    assert scores[0]["loudness"] is not None
    assert scores[1]["loudness"] is None
    assert scores[1]["silence"] == 1.0
    monkeypatch.setattr("longtake.curation.reading.judge.read_sound", lambda *_, **__: pytest.fail("nobody asked"))
    scan_video(str(path), parse_recipe({**data, "filters": {"width": {}}}, "a test"), lambda *_: None)


# Clocks that start anew ------------------------------------------------------------------------------------------------


def hearing() -> dict[str, Any]:
    return {
        "name": "sound",
        "splitting": {"detector": "none", "min_seconds": 2, "window_seconds": 2},
        "filters": {"width": {}, "sound": {}, "loudness": {}, "silence": {}},
        "tiers": {"pretrain": {"width": ">= 1"}},
    }


def joined(folder: Path, first: Made, *others: Made) -> Path:
    """Recordings of 4 s in one file, each with the clock that it was written with."""
    path = folder / f"joined{first.suffix}"
    parts = []
    for number, film in enumerate((first, *others)):
        (folder / str(number)).mkdir()
        parts.append(film.write(folder / str(number)).read_bytes())
    path.write_bytes(b"".join(parts))
    return path


@pytest.mark.parametrize("start", [0.0, 2.0, 40.0], ids=["anew", "earlier", "later"])
def test_sound_is_heard_where_the_pictures_are_though_the_clock_starts_anew(tmp_path: Path, start: float) -> None:
    """The first recording has sound in its first half, the second in its second half, the third none."""
    films = (
        Made(".ts", "mp2", sound=(0.0, 2.0)),
        Made(".ts", "mp2", start=start, sound=(2.0, 4.0)),
        Made(".ts", "mp2", sound=(0.0, 0.1)),
    )
    found = scan_video(str(joined(tmp_path, *films)), parse_recipe(hearing(), "a test"), lambda *_: None)
    assert found.count.restarts == 2
    covered = [clip.scores["sound"].score.known for clip in found.clips]
    assert covered[:5] == pytest.approx([1.0, 0.0, 0.0, 1.0, 0.05], abs=0.05)


def test_listed_clips_behind_a_leap_of_the_clock_are_heard(tmp_path: Path) -> None:
    films = Made(".ts", "mp2", sound=(0.0, 2.0)), Made(".ts", "mp2", sound=(2.0, 4.0))
    spans = [Span(0.0, 2.0), Span(5.9, 7.9)]
    found = scan_video(str(joined(tmp_path, *films)), parse_recipe(hearing(), "a test"), lambda *_: None, spans=spans)
    covered = [clip.scores["sound"].score.known for clip in found.clips]
    assert covered == pytest.approx([1.0, 0.95], abs=0.05)


def test_beeps_of_both_recordings_lie_at_their_flashes(tmp_path: Path) -> None:
    path = joined(tmp_path, Made(".ts", "mp2"), Made(".ts", "mp2"))
    with open_video(str(path)) as video:
        parts = recordings(video, FPS)
    sound = read_sound(str(path), 2.0, 4.0, parts=parts)
    assert sound.samples is not None
    wave = np.abs(np.frombuffer(sound.samples.read(), "<i2").reshape(-1, 2)[:, 0] / 32768)
    sound.samples.close()
    loud = np.flatnonzero(wave > 0.1) / sound.rate
    begins = loud[np.insert(np.diff(loud) > 0.1, 0, True)]
    assert begins == pytest.approx([0.4, 1.6, 2.4, 3.6], abs=STEP)  # 2.4, 3.6, and 0.4, 1.6 of the second one.


def test_the_clock_is_looked_at_once_a_film_and_not_where_it_cannot_leap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[float] = []

    def counted(video: Any, fps: float) -> Any:
        looked.append(fps)
        return recordings(video, fps)

    monkeypatch.setattr("longtake.curation.reading.judge.recordings", counted)
    recipe = parse_recipe(hearing(), "a test")
    scan_video(str(Made(".mkv").write(tmp_path)), recipe, lambda *_: None)
    assert len(looked) == 1
    scan_video(str(Made(".mp4").write(tmp_path)), recipe, lambda *_: None)
    assert len(looked) == 1
