"""The one decode pass over one video: probe, shots, clips, samples, and every filter that needs only pixels.

open → probe → metadata gates ─(all tiers lost)→ one rejected clip row, nothing decoded
                    │
                 decode ──▶ cuts ──▶ shots ──▶ windows ──▶ sample ──▶ scores ──▶ frames file
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import av

from longtake.curation.access import Source
from longtake.curation.errors import RowError, VideoError
from longtake.curation.reading.judge import ClipScan, Judge, Keep, VideoScan
from longtake.curation.reading.listed import ListedPass, as_turned, require_sound, sample_of
from longtake.curation.reading.opening import UNKNOWN_FPS, OpenVideo, open_video
from longtake.curation.reading.pictures import AnalysisFrames, thumbnail
from longtake.curation.reading.sampling import FrameBuffer, Span, centres, cut_windows, grid_step
from longtake.curation.reading.shots import Cut, CutDetector, build_detectors
from longtake.curation.reading.video import DecodeCount, VideoInfo, decode, missing_tail, probe
from longtake.curation.recipe import Recipe
from longtake.filters.base import Image, Sample

# Cuts are looked for in at most 16 pictures a second, what the reference frames of H.264 mostly give; and in several at
# once: between two decoded frames the detectors find nothing of theirs in the caches, and take three times as long.
LOOK_SECONDS = 1 / 16
_LOOKS_AT_ONCE = 8


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
        judge = Judge(recipe, all_scores)
        if endless and not given:
            return VideoScan(info, endless, [], DecodeCount())
        planned = given or [_whole(info)]
        if not any(judge.may_keep(info, span) for span in planned):
            clips = [ClipScan(span, judge.probe_scores(info, span)) for span in planned]
            return VideoScan(info, clips + endless, [], DecodeCount(), whole=whole)
        on_duration(info.duration if math.isfinite(info.duration) else 0.0)
        if given:
            scanned = ListedPass(video, info, judge, keep, given, whole).run()
            scanned.clips += endless
            return scanned
        return _Pass(video, info, judge, keep).run()


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


class _Pass:
    """The state of one pass: what has been read, the shot that is open, and the clips that came out."""

    def __init__(self, video: OpenVideo, info: VideoInfo, judge: Judge, keep: Keep) -> None:
        recipe = judge.recipe
        self.video, self.info, self.judge, self.keep = video, info, judge, keep
        self.splitting, self.sampling = recipe.splitting, recipe.sampling
        self.analysis = AnalysisFrames(info)
        step = grid_step(self.splitting.min_seconds, self.sampling.keyframes, self.sampling.partner_seconds)
        self.buffer: FrameBuffer[av.VideoFrame, av.VideoFrame] = FrameBuffer(step, self._shrink)
        self.detectors: list[CutDetector] = build_detectors(self.splitting)
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
                    self.clips = [ClipScan(_whole(self.info), self.judge.probe_scores(self.info, _whole(self.info)))]
                    return VideoScan(self.info, self.clips, [], self.count)
            self.time = decoded.time
            self.buffer.push(decoded.time, decoded.frame)
            self._look_for_cuts(decoded.time, decoded.frame)
        self._finish()
        return VideoScan(self.info, self.clips, self.cuts, self.count, self.time)

    # ── beginning and end ────────────────────────────────────────────────────────────────────────────────────────────

    def _first(self, frame: av.VideoFrame) -> bool:
        """What only a frame can tell: how it is turned. False if the gates reject the video now."""
        turned = as_turned(self.video, self.info, frame)
        if turned is not self.info:
            self.info, self.analysis = turned, AnalysisFrames(turned)
        self._open_shot(0.0)
        return self.judge.may_keep(self.info, _whole(self.info))

    def _finish(self) -> None:
        require_sound(self.count, self.judge.recipe.scan.max_corrupt)
        count = self.count
        fps = self.info.fps if math.isfinite(self.info.fps) and self.info.fps > 0 else UNKNOWN_FPS
        if math.isfinite(count.fps) and abs(count.fps / fps - 1) > 0.01:
            fps = count.fps  # the frames say otherwise than the header
        end = max(self.time, count.last) + 1 / fps
        self.buffer.finish()
        if self.info.duration - end > max(1.0, 0.05 * self.info.duration):
            raise VideoError("truncated", f"the frames end at {end:.1f} s of {self.info.duration:.1f} s")
        self._finish_clips(end)
        self.info = replace(self.info, fps=fps, duration=end)
        for clip in self.clips:
            clip.scores |= self.judge.probe_scores(self.info, clip.span, clip.certainty)

    def _finish_clips(self, end: float) -> None:
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
            if now - self.looked < LOOK_SECONDS:
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
        for detector in self.detectors:
            detector.forget(min(self.window_start, settled))

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
            if cut.start > self.shot_start and not (cut.end >= self.looked and settled == math.inf):
                self.cuts.append(cut.end)  # a film that fades out at its end is left, and not cut
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
                clip = self._new_clip(rest)
                # measured only where no gate on its length tells already why it is not kept
                measured = self.judge.may_keep(self.info, rest)
                self.longest_short = (clip, self._sample(clip) if measured else None)

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
        clip = self._new_clip(span)
        self._add(clip, self._sample(clip))

    def _new_clip(self, span: Span) -> ClipScan:
        doubts = [detector.doubt(span.start, span.end) for detector in self.detectors]
        known = [doubt for doubt in doubts if not math.isnan(doubt)]
        return ClipScan(span, certainty=1 - max(known) if known else math.nan)

    def _add(self, clip: ClipScan, sample: Sample | None) -> None:
        self.judge.add(self.info, clip, sample, self.keep)
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
        return sample_of(clip, found, self.sampling.keyframes, self.analysis)

    def _shrink(self, frame: av.VideoFrame) -> av.VideoFrame:
        return self.analysis.shrink(frame)
