"""The one decode pass over one video: probe, shots, clips, samples, and every filter that needs only pixels.

open → probe → metadata gates ─(all tiers lost)→ one rejected clip row, nothing decoded
                    │
                 decode ──▶ cuts ──▶ shots ──▶ windows ──▶ sample ──▶ scores ──▶ frames file
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import av
import numpy as np

from longtake.curation.access import Source
from longtake.curation.errors import RowError, VideoError
from longtake.curation.reading.opening import UNKNOWN_FPS, OpenVideo, displayed_size, open_video
from longtake.curation.reading.pictures import AnalysisFrames, thumbnail
from longtake.curation.reading.sampling import FrameBuffer, Span, centres, cut_windows, grid_step
from longtake.curation.reading.shots import Cut, CutDetector, build_detectors
from longtake.curation.reading.video import DecodeCount, VideoInfo, decode, missing_tail, probe
from longtake.curation.recipe import Recipe
from longtake.filters.base import Filter, Image, MeasureError, Needs, Probe, Sample, Score
from longtake.filters.verdicts import ClipScores, alive

# Cuts are looked for in at most 16 pictures a second, what the reference frames of H.264 mostly give; and in several at
# once: between two decoded frames the detectors find nothing of theirs in the caches, and take three times as long.
_LOOK_SECONDS = 1 / 16
_LOOKS_AT_ONCE = 8

_SLACK = 0.2  # seconds by which a source list may be wrong about the end of a video

Keep = Callable[[Span, Sample], None]


@dataclass(frozen=True, slots=True)
class Measured:
    """A score, and the protocol it was measured under."""

    score: Score
    protocol: str


@dataclass(slots=True)
class ClipScan:
    """One clip as the scan leaves it. has_frames: its sample was handed to `keep`."""

    span: Span
    scores: dict[str, Measured] = field(default_factory=dict)
    has_frames: bool = False
    error: RowError | None = None


@dataclass(slots=True)
class VideoScan:
    """One video as the scan leaves it. cuts: in seconds, the first frame of each new shot. decoded_seconds: of video."""

    info: VideoInfo
    clips: list[ClipScan]
    cuts: list[float]
    count: DecodeCount
    decoded_seconds: float = 0.0
    whole: float | None = None  # seconds: where a clip of the list ends that is open-ended


def scan_video(
    uri: str | Source,
    recipe: Recipe,
    keep: Keep,
    *,
    spans: Sequence[Span] = (),
    all_scores: bool = False,
    on_duration: Callable[[float], None] = lambda seconds: None,
) -> VideoScan:
    """Scan one video.

    keep: called with the sample of each clip that some tier may still keep (of every clip, with `all_scores`), in the order
    of their ends. spans: clips that the source list gives, one to infinity being of the whole film; shots are then
    not looked for. on_duration: told the seconds
    of video to come, before the first is decoded. Raises VideoError.
    """
    with open_video(uri) as video:
        info = _checked(video, recipe)
        given, endless, whole = _resolved(spans, info)
        judge = _Judge(recipe, all_scores)
        if endless and not given:
            return VideoScan(info, endless, [], DecodeCount())
        planned = given or [_whole(info)]
        if not any(judge.may_keep(info, span) for span in planned):
            clips = [ClipScan(span, judge.probe_scores(info, span)) for span in planned]
            return VideoScan(info, clips + endless, [], DecodeCount(), whole=whole)
        on_duration(info.duration if math.isfinite(info.duration) else 0.0)
        scanned = _Pass(video, info, judge, keep, given, whole).run()
        scanned.clips += endless
        return scanned


def _resolved(spans: Sequence[Span], info: VideoInfo) -> tuple[list[Span], list[ClipScan], float | None]:
    """The clips of a list with the ends that they have in this video; those to the end of a video of unknown length, as
    errors; and the end of the video, if a clip of the list goes there."""
    given = [Span(max(span.start, 0.0), span.end) for span in spans if math.isfinite(span.end)]
    open_ended = [max(span.start, 0.0) for span in spans if not math.isfinite(span.end)]
    if not open_ended:
        return given, [], None
    if not math.isfinite(info.duration):
        words = "the file does not tell how long it is: name the start and the end of this clip"
        return given, [ClipScan(Span(s, s), error=RowError("measure", words)) for s in open_ended], None
    known = {(round(span.start * 1e3), round(span.end * 1e3)) for span in given}
    ends = [Span(start, info.duration) for start in open_ended]
    new = [span for span in ends if (round(span.start * 1e3), round(span.end * 1e3)) not in known]
    return given + new, [], info.duration


def _whole(info: VideoInfo) -> Span:
    return Span(0.0, info.duration if math.isfinite(info.duration) else 0.0)


def _checked(video: OpenVideo, recipe: Recipe) -> VideoInfo:
    info = probe(video)
    if info.coded_width * info.coded_height > recipe.scan.max_pixels:
        size = f"{info.coded_width}×{info.coded_height}"
        raise VideoError("too_large", f"{size} pixels to a frame; scan.max_pixels is {recipe.scan.max_pixels}")
    if missing_tail(video):
        raise VideoError("truncated", f"the file ends at byte {video.size}, before the frames its index names")
    if info.frames == 1 or info.duration * info.fps < 1.5:
        raise VideoError("too_short", "a single frame")
    return info


class _Judge:
    """Measures clips and runs the cascade: cheap filters first, and no further once every tier is lost."""

    def __init__(self, recipe: Recipe, all_scores: bool) -> None:
        self.recipe = recipe
        self.all_scores = all_scores
        self._on_probe = recipe.needing(Needs.PROBE)
        later = [f.lower_bound for f in recipe.built.values()]
        on_sample: list[Filter[Any]] = [*recipe.needing(Needs.SAMPLE).values(), *(f for f in later if f)]
        self._on_sample = sorted(on_sample, key=lambda f: f.cost)

    def probe_scores(self, info: VideoInfo, span: Span) -> dict[str, Measured]:
        """The metadata scores of a clip; what the container does not say has none."""
        scores: dict[str, Measured] = {}
        known = Probe(info.width, info.height, info.fps, span.seconds)
        for name, filter_ in self._on_probe.items():
            (score,) = filter_.measure([known])
            if isinstance(score, Score):
                scores[name] = Measured(score, filter_.protocol)
        return scores

    def may_keep(self, info: VideoInfo, span: Span) -> bool:
        """Whether decoding can still be worth it, by metadata alone. A span of no length is one of unknown length."""
        scores = self.probe_scores(info, span)
        return self._goes_on(scores if span.seconds > 0 else _without(scores, "duration"))

    def measure(self, clip: ClipScan, sample: Sample) -> Sample:
        """Add the sample's scores to `clip`, as far as the cascade goes; the sample comes back with its marks."""
        goes_on = self._goes_on(clip.scores)
        for filter_ in self._on_sample:
            if not goes_on:
                break
            sample = filter_.annotate(sample)
            (score,) = filter_.measure([sample])
            if isinstance(score, MeasureError):
                clip.error = RowError("measure", f"{filter_.name}: {score}")
                break
            clip.scores[filter_.name] = Measured(score, filter_.protocol)
            goes_on = self._goes_on(clip.scores)
        clip.has_frames = clip.error is None and goes_on
        return sample

    def _goes_on(self, scores: Mapping[str, Measured]) -> bool:
        """Whether a clip with these scores is worth another measurement: some tier may still keep it."""
        if self.all_scores:
            return True
        row: dict[str, Any] = {"status": "ok", "protocols": json.dumps({n: m.protocol for n, m in scores.items()})}
        for name, measured in scores.items():
            row |= {name: measured.score.value, f"{name}_detail": measured.score.detail}
        return bool(alive(ClipScores.of_rows([row], self.recipe.built), self.recipe.tiers)[0])


def _without(scores: dict[str, Measured], name: str) -> dict[str, Measured]:
    return {key: value for key, value in scores.items() if key != name}


class _Pass:
    """The state of one pass: what has been read, the shot that is open, and the clips that came out."""

    def __init__(
        self, video: OpenVideo, info: VideoInfo, judge: _Judge, keep: Keep, given: Sequence[Span], whole: float | None
    ) -> None:
        recipe = judge.recipe
        self.video, self.info, self.judge, self.keep = video, info, judge, keep
        self.splitting, self.sampling = recipe.splitting, recipe.sampling
        self.analysis = AnalysisFrames(info)
        step = grid_step(self.splitting.min_seconds, self.sampling.keyframes, self.sampling.partner_seconds)
        self.buffer: FrameBuffer[av.VideoFrame, av.VideoFrame] = FrameBuffer(step, self._shrink)
        self.given = sorted(given, key=lambda span: span.end)
        self.from_list = bool(given)
        self.whole = whole
        self.stopped = False
        self.detectors: list[CutDetector] = [] if given else build_detectors(self.splitting)
        self.pending: list[Cut] = []
        self.cuts: list[float] = []
        self.count = DecodeCount()
        self.clips: list[ClipScan] = []
        self.longest_short: tuple[ClipScan, Sample | None] | None = None
        self.window_start = 0.0
        self.shot_start = 0.0
        self.time = 0.0
        self.looked = -math.inf
        self.looks: list[tuple[float, Image]] = []  # that the detectors have not seen yet

    def run(self) -> VideoScan:
        started = False
        for decoded in decode(self.video, self.info, self.count):
            if not started:
                started = True
                if not self._first(decoded.frame):
                    self.clips = [ClipScan(span, self.judge.probe_scores(self.info, span)) for span in self._planned()]
                    return VideoScan(self.info, self.clips, [], self.count, whole=self.whole)
            self.time = decoded.time
            self.buffer.push(decoded.time, decoded.frame)
            if self.from_list:
                self._close_given(decoded.time)
                if not self.given:
                    self.stopped = True
                    break
            else:
                self._look_for_cuts(decoded.time, decoded.frame)
        self._finish()
        return VideoScan(self.info, self.clips, self.cuts, self.count, self.time, self.whole)

    # ── beginning and end ────────────────────────────────────────────────────────────────────────────────────────────

    def _first(self, frame: av.VideoFrame) -> bool:
        """What only a frame can tell: how it is turned. False if the gates reject the video now."""
        rotation = -round(frame.rotation / 90) * 90 % 360
        if rotation != self.info.rotation:
            aspect = self.video.stream.sample_aspect_ratio
            width, height = displayed_size(self.info.coded_width, self.info.coded_height, rotation, aspect)
            self.info = replace(self.info, rotation=rotation, width=width, height=height)
            self.analysis = AnalysisFrames(self.info)
        for span in self.given:
            self._want(span)
        if not self.given:
            self._open_shot(0.0)
        return any(self.judge.may_keep(self.info, span) for span in self._planned())

    def _planned(self) -> Sequence[Span]:
        return self.given or [_whole(self.info)]

    def _finish(self) -> None:
        count, limit = self.count, self.judge.recipe.scan.max_corrupt
        if count.frames == 0:
            raise VideoError("corrupt", f"no frame decodes ({count.packets} packets)")
        if count.corrupt > limit * max(count.packets, 1):
            raise VideoError(
                "corrupt", f"{count.corrupt} of {count.packets} packets are damaged; scan.max_corrupt is {limit}"
            )
        if count.frames == 1 and count.packets <= 1:
            raise VideoError("too_short", "a single frame")
        fps = self.info.fps if math.isfinite(self.info.fps) and self.info.fps > 0 else UNKNOWN_FPS
        if math.isfinite(count.fps) and abs(count.fps / fps - 1) > 0.01:
            fps = count.fps  # the frames say otherwise than the header
        end = max(self.time, count.last) + 1 / fps
        self.buffer.finish()
        if self.stopped:  # behind the last clip of the source list nobody looked
            self.info = replace(self.info, fps=fps)
        elif self.info.duration - end > max(1.0, 0.05 * self.info.duration):
            raise VideoError("truncated", f"the frames end at {end:.1f} s of {self.info.duration:.1f} s")
        else:
            self._finish_clips(end)
            self.info = replace(self.info, fps=fps, duration=end)
        for clip in self.clips:
            clip.scores |= self.judge.probe_scores(self.info, clip.span)

    def _finish_clips(self, end: float) -> None:
        if self.from_list:
            self._close_given(math.inf, end)
        else:
            self._detect()
            for detector in self.detectors:
                self.pending += detector.finish()
            self._apply_cuts(math.inf)
            self._close_shot(end)
        if not self.clips and self.longest_short:
            clip, sample = self.longest_short
            self._add(clip, sample)

    # ── shots ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _look_for_cuts(self, now: float, frame: av.VideoFrame) -> None:
        settled = now
        if self.detectors:
            if now - self.looked < _LOOK_SECONDS:
                return
            self.looked = now
            self.looks.append((now, thumbnail(frame)))
            if len(self.looks) < _LOOKS_AT_ONCE:
                return
            self._detect()
            settled = min(detector.settled for detector in self.detectors)
            self._apply_cuts(settled)
        window = self.splitting.window_seconds
        # a window is closed when a whole one is sure to follow it, however its shot ends
        while settled > self.window_start + 2 * window + self._trim:
            self._clip(Span(self.window_start, self.window_start + window))
            self.window_start += window
            self._want_windows(self.window_start)
        self.buffer.drop_before(min(self.window_start, settled))

    def _detect(self) -> None:
        """Show the detectors what they have not seen yet."""
        for detector in self.detectors:
            for time, thumb in self.looks:
                found = detector.push(time, thumb)
                self.pending += found
                for cut in found:  # not certain yet, but if it is, these are the frames to keep
                    self._want_windows(cut.end + self._trim)
        self.looks.clear()

    def _apply_cuts(self, settled: float) -> None:
        self.pending.sort()
        while self.pending and self.pending[0].start <= settled:
            cut = self.pending.pop(0)
            if cut.end <= self.shot_start:  # another detector's word for a cut that is known
                continue
            if cut.start > self.shot_start:
                self.cuts.append(cut.end)
            self._close_shot(cut.start - self._trim)
            self._open_shot(cut.end + self._trim)

    @property
    def _trim(self) -> float:
        fps = self.info.fps if math.isfinite(self.info.fps) and self.info.fps > 0 else UNKNOWN_FPS
        return self.splitting.trim_frames / fps

    def _open_shot(self, start: float) -> None:
        self.shot_start = self.window_start = start
        self.buffer.forget()  # the windows of the shot before
        for begin in (start, *(cut.end + self._trim for cut in self.pending)):
            self._want_windows(begin)

    def _close_shot(self, end: float) -> None:
        """The open shot ends: its last windows become clips."""
        rest = Span(self.window_start, end)
        windows = cut_windows(rest, self.splitting.window_seconds, self.splitting.min_seconds)
        for span in windows:
            self._clip(span)
        if not windows and rest.seconds > 0 and not self.clips:
            best = self.longest_short
            if best is None or rest.seconds > best[0].span.seconds:
                clip = ClipScan(rest)
                # measured only where no gate on its length tells already why it is not kept
                measured = self.judge.may_keep(self.info, rest)
                self.longest_short = (clip, self._sample(clip) if measured else None)

    def _close_given(self, now: float, video_end: float = math.inf) -> None:
        while self.given and self.given[0].end <= now:
            span = self.given.pop(0)
            if span.end == self.whole and span.start < video_end < span.end:
                # Of the whole film, by what its header says: the frames end a little earlier.
                span = Span(span.start, video_end)
                self.whole = video_end
            if span.end > video_end + _SLACK:
                words = f"the video ends at {video_end:.3f} s, before this clip does ({span.end:.3f} s)"
                self.clips.append(ClipScan(span, error=RowError("missing", words)))
            else:
                self._clip(span)
            self.buffer.drop_before(min((other.start for other in self.given), default=self.time))

    # ── clips ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _want(self, span: Span) -> None:
        times = centres(span, self.sampling.keyframes)
        self.buffer.want([*times, *(time + self.sampling.partner_seconds for time in times)])

    def _want_windows(self, start: float) -> None:
        """The moments that will be right if the shot goes on, three windows ahead: when a window opens, all of it and
        more has been read. Also those of a window that the end of the video makes longer."""
        window = self.splitting.window_seconds
        for begin in (start, start + window, start + 2 * window):
            self._want(Span(begin, begin + window))
            if begin + window < self.info.duration < begin + 2 * window + self._trim:
                self._want(Span(begin, self.info.duration))

    def _clip(self, span: Span) -> None:
        clip = ClipScan(span)
        self._add(clip, self._sample(clip))

    def _add(self, clip: ClipScan, sample: Sample | None) -> None:
        clip.scores |= self.judge.probe_scores(self.info, clip.span)
        if sample is not None:
            sample = self.judge.measure(clip, sample)
            if clip.has_frames:
                self.keep(clip.span, sample)
        self.clips.append(clip)

    def _sample(self, clip: ClipScan) -> Sample | None:
        """The sample of a clip out of the buffer; None, with the clip's error set, if there are too few frames."""
        found: list[tuple[float, av.VideoFrame]] = []
        for moment in centres(clip.span, self.sampling.keyframes):
            first = self.buffer.near(moment, clip.span)
            if first is not None:
                rest = Span(math.nextafter(first[0], math.inf), clip.span.end)
                second = self.buffer.near(first[0] + self.sampling.partner_seconds, rest)
                if second is not None:
                    found += [first, second]
        if len(found) < 2 * self.sampling.keyframes:
            clip.error = RowError(
                "measure", f"too few frames for a sample in {clip.span.start:.3f}–{clip.span.end:.3f} s"
            )
            return None
        pictures = [self.analysis.rgb(small) for _, small in found]
        times = np.array([time for time, _ in found])
        return Sample(np.stack(pictures[::2]), np.stack(pictures[1::2]), times[::2], times[1::2])

    def _shrink(self, frame: av.VideoFrame) -> av.VideoFrame:
        return self.analysis.shrink(frame)
