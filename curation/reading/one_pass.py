"""The one decode pass over a film whose clips are looked for, and the state of it.

decode ──▶ cuts ──▶ shots ──▶ windows ──▶ sample ──▶ scores ──▶ frames file
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import replace

import av

from longtake.curation.reading.acceptance import (
    counted_fps,
    film_start,
    require_all,
    require_sound,
    settle,
)
from longtake.curation.reading.combs import Fields, FieldsFound
from longtake.curation.reading.cuts import Cut, CutDetector
from longtake.curation.reading.decoding import DecodeCount, DecodedFrame, decode
from longtake.curation.reading.early import EarlyLook
from longtake.curation.reading.judge import ClipScan, Judge, VideoScan
from longtake.curation.reading.motion import Pair, small_grey
from longtake.curation.reading.opening import UNKNOWN_FPS, OpenVideo
from longtake.curation.reading.pictures import AnalysisFrames, thumbnail
from longtake.curation.reading.samples import sample_of
from longtake.curation.reading.sampling import (
    LOOK_SECONDS,
    LOOSE,
    FrameBuffer,
    Span,
    centres,
    cut_windows,
    grid_step,
    pair_count,
    pair_starts,
)
from longtake.curation.reading.shots import build_detectors
from longtake.curation.reading.sizes import Sizes
from longtake.curation.reading.strips import strip_of_pictures
from longtake.curation.reading.video import VideoInfo, as_shown
from longtake.filters.base import Image, Sample
from longtake.filters.frozen import ChangeMeter
from longtake.manifests.frames import StoredStrip

_Kept = tuple[float, av.VideoFrame]  # A frame at the analysis size, after its time in seconds.

# Thumbnails. The detectors get this many at once: between two decoded frames they would find nothing of theirs in the caches, and
# take three times as long.
_LOOKS_AT_ONCE = 8


def whole_film(info: VideoInfo) -> Span:
    return Span(0.0, info.duration if math.isfinite(info.duration) else 0.0)


class Pass:
    """The state of one pass: what has been read, the shot that is open, and the clips that came out.

    begins_anew: whether FieldsFound is raised, if the film turns out to hold fields before there is a clip."""

    begins_anew = True

    def __init__(
        self, video: OpenVideo, info: VideoInfo, judge: Judge, early: EarlyLook, fields: Fields | None = None
    ) -> None:
        recipe = judge.recipe
        self.fields = fields or Fields()
        self.video, self.info, self.judge, self.early = video, info, judge, early
        self.splitting, self.sampling = recipe.splitting, recipe.sampling
        self.analysis = AnalysisFrames(info, judge.look, self.fields, video.aspects, video.turns)
        step = grid_step(self.splitting.min_seconds, self.sampling.keyframes, self.sampling.partner_seconds)
        if self.splitting.min_seconds >= self.splitting.window_seconds:
            step *= LOOSE
        self.buffer: FrameBuffer[av.VideoFrame, av.VideoFrame] = FrameBuffer(step, self._shrink)
        self.detectors: list[CutDetector] = build_detectors(self.splitting)
        self.pending: list[Cut] = []
        self.cuts: list[float] = []
        self.count = DecodeCount(digest=hashlib.sha256())
        self.clips: list[ClipScan] = []
        # The longest shot that is too short for a clip, its sample, and the frames that its strip shows.
        self.longest_short: tuple[ClipScan, Sample | None, list[_Kept]] | None = None
        self.none_long_enough = False
        self.window_start = 0.0
        self.shot_start = 0.0
        self.time = 0.0
        self.intact = 0.0  # Seconds. The time of the last frame that is not spoilt by damage.
        self.broken: float | None = None  # Seconds. Frames are spoilt from this time on.
        self.settled = 0.0  # Seconds. No cut before this time will be found any more.
        self.looked = -math.inf
        # The thumbnails that the detectors have not seen yet, with their times in seconds.
        self.looks: list[tuple[float, Image]] = []
        self.meter = ChangeMeter(video.gaps.within)
        self.sizes = Sizes(video.aspects, video.turns)
        self.left_out = 0.0

    def run(self) -> VideoScan:
        started = False
        for decoded in decode(self.video, self.info, self.count, enough=self._enough):
            if not started:
                started = True
                if (rejected := self._first(decoded)) is not None:
                    self.count.digest = None
                    return VideoScan(self.info, [rejected], [], self.count)
            self.push(decoded)
        self._finish()
        digest, self.count.digest = self.count.digest, None  # A hash cannot travel to another process.
        whole = None if self.count.damaged or digest is None else digest.hexdigest()
        return VideoScan(
            self.info, self.clips, self.cuts, self.count, self.time, left_out=self.left_out, stream_sha256=whole
        )

    def push(self, decoded: DecodedFrame) -> None:
        """The next frame. From where something does not decode to the next keyframe no shot goes on, and nothing is looked at."""
        self.time = decoded.time
        if decoded.spoilt:
            self.broken = self._shown_until(self.intact) if self.broken is None else self.broken
            return
        if self.broken is not None:
            self.meter.skip()
            self._take_cut(Cut(self.broken, decoded.time))
        self.intact, self.broken = decoded.time, None
        if (change := self.sizes.push(decoded.time, decoded.frame)) is not None:
            self._take_cut(Cut(change.before, change.time))
        self.buffer.push(decoded.time, decoded.frame)
        self._look_for_cuts(decoded.time, decoded.frame)

    # ── beginning and end ────────────────────────────────────────────────────────────────────────────────────────────

    def _first(self, first: DecodedFrame) -> ClipScan | None:
        """What only a frame can tell: how it is turned, when the film begins, and that it begins as no clip may be. The row of
        the whole video, if the gates reject it now."""
        turned = as_shown(self.video, self.info, first.frame)
        if turned is not self.info:
            self.set_info(turned)
        self._open_shot(film_start(first.time, self.info))
        whole = whole_film(self.info)
        if not self.judge.may_keep(self.info, whole):
            return ClipScan(whole, self.judge.probe_scores(self.info, whole))
        return self.early.rejected(self.info, self.analysis, first.frame)

    def set_info(self, info: VideoInfo) -> None:
        """What is known of the film once a frame of it was seen."""
        self.info = info
        self.analysis = AnalysisFrames(info, self.judge.look, self.fields, self.video.aspects, self.video.turns)

    def _finish(self) -> None:
        require_sound(self.count, self.judge.recipe.scan.max_corrupt)
        fps = counted_fps(self.info, self.count)
        end = max(self.time, self.count.last) + 1 / fps
        self.buffer.finish()
        if not self.count.restarts:
            # Where the clock starts anew, the header does not know how long the film is.
            require_all(self.info, end, self.judge.source)
        self._finish_shots(self._shown_until(end))
        if not self.clips:
            # A transition can fill a short film whole: then the film itself is a clip, which says why nothing is kept.
            self.none_long_enough = True
            clip, sample, seen = self.longest_short or (self._new_clip(Span(0.0, end)), None, [])
            self._add(clip, sample, seen)
        self.info = replace(self.info, fps=fps, duration=end)
        settle(self.clips, self.info, self.judge, self.count, self.none_long_enough)

    def _shown_until(self, end: float) -> float:
        """Until when a film that ends at `end` seconds can be shown: to its end, or to what does not decode before it."""
        met = self.video.damages.last
        return end if met is None or met.end <= self.intact else min(self.intact, met.start)

    def _enough(self, last: float) -> bool:
        """Whether nothing that comes can change the clips of this film, if it ends where its header says, or at `last` seconds,
        where it is longer: what is left of the open shot is too short for a clip, and so is any shot that a cut may begin."""
        by, began = self.splitting, self.window_start > self.shot_start
        if by.longer == "faster":
            # The last window of a shot reaches to the end of the shot, which is still to come.
            return False
        least, whole = by.min_seconds, by.window_seconds if began else by.min_seconds
        if not self.clips:
            # Without any clip, the longest shot stands for the film.
            least = whole = self.longest_short[0].span.seconds if self.longest_short else 0.0
        # The end is nan, and the answer False, where the header does not say how long the film is.
        end = max(self.info.duration, last) + 1 / UNKNOWN_FPS
        return end - self.settled < least and (self._trimmed or end - self.window_start < whole)

    def _finish_shots(self, end: float) -> None:
        if self.count.passed_over:
            self.left_out += end - self.window_start if self.window_start > self.shot_start else 0.0
        else:
            self._detect()
            for detector in self.detectors:
                self.pending += detector.finish()
            self._apply_cuts(math.inf)
            self._close_shot(end)

    # ── shots ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _look_for_cuts(self, now: float, frame: av.VideoFrame) -> None:
        settled = now
        if now - self.looked < LOOK_SECONDS:
            return
        self.looked = now
        thumb = thumbnail(frame)
        self._see(now, thumb)
        if self.detectors:
            self.looks.append((now, thumb))
            if len(self.looks) < _LOOKS_AT_ONCE:
                return
            self._detect()
            settled = self._settled()
        self._apply_cuts(settled)
        window = self.splitting.window_seconds
        # A window is closed when all of it is sure to lie in the shot. Where the rest of the shot would join it, it is closed
        # when a whole window follows.
        sure = (2 if self.splitting.longer == "faster" else 1) * window + self._trim
        while settled > self.window_start + sure and not self._trimmed:
            self._clip(Span(self.window_start, self.window_start + window))
            self.window_start += window
            self._want_windows(self.window_start)
        self.settled = settled
        needed = settled if self._trimmed else min(self.window_start, settled)
        self.buffer.drop_before(needed)
        self.meter.drop_before(needed)
        for detector in self.detectors:
            detector.forget(needed)

    def _see(self, now: float, thumb: Image) -> None:
        """A picture that was looked at."""
        self.meter.push(now, thumb)

    def _settled(self) -> float:
        """The time before which no cut will be found any more, seconds."""
        return min(detector.settled for detector in self.detectors)

    def _detect(self) -> None:
        """Show the detectors what they have not seen yet."""
        for detector in self.detectors:
            for time, thumb in self.looks:
                for cut in detector.push(time, thumb):
                    self._take_cut(cut)
        self.looks.clear()

    def _take_cut(self, cut: Cut) -> None:
        """A cut that was found. Another one may come before it."""
        self.pending.append(cut)
        # The cut is not certain yet, but if it is one, these are the frames to keep.
        self._want_windows(cut.end + self._trim)

    def _apply_cuts(self, settled: float) -> None:
        self.pending.sort()
        while self.pending and self.pending[0].start <= settled:
            cut = self.pending.pop(0)
            if cut.end <= self.shot_start:
                # Another detector has found a cut that is known already.
                continue
            if cut.start > self.shot_start and not (cut.end >= self.looked and settled == math.inf):
                # A fade at the end of the film is not counted as a cut, since no shot follows.
                self.cuts.append(cut.end)
            self._close_shot(cut.start - self._trim)
            self._open_shot(cut.end + self._trim)

    @property
    def _trim(self) -> float:
        return self.splitting.trim_frames / self.info.assumed_fps

    @property
    def _trimmed(self) -> bool:
        """Whether the open shot has given all that it gives."""
        return self.splitting.longer == "trim" and self.window_start > self.shot_start

    def _open_shot(self, start: float) -> None:
        self.shot_start = self.window_start = start
        self.buffer.forget()  # The buffer still waits for the windows of the shot before.
        for begin in (start, *(cut.end + self._trim for cut in self.pending)):
            self._want_windows(begin)

    def _close_shot(self, end: float) -> None:
        """The open shot ends: its last windows become clips."""
        rest = Span(self.window_start, end)
        by, began = self.splitting, self.window_start > self.shot_start
        least = by.window_seconds if began else by.min_seconds
        windows = [] if self._trimmed else cut_windows(rest, by.window_seconds, least, by.longer)
        for span in windows:
            self._clip(span)
        if began or windows:
            self.left_out += max(0.0, end - (windows[-1].end if windows else self.window_start))
        if not windows and rest.seconds > 0 and not self.clips:
            best = self.longest_short
            if best is None or rest.seconds > best[0].span.seconds:
                clip = self._new_clip(rest)
                # The shot is too short for a clip. Unless a gate rejects it, its row is an error, and measuring it would be in
                # vain.
                measured = self.judge.all_scores and self.judge.rejects(clip.seen(self.info), rest)
                sample = self._sample(clip) if measured else None
                self.longest_short = (clip, sample, [] if sample else self._glimpses(rest))

    # ── clips ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _want(self, span: Span) -> None:
        gap = self.sampling.partner_seconds
        self.buffer.want(centres(span, self.sampling.keyframes), gap)
        self.buffer.want(pair_starts(span, pair_count(self.sampling.keyframes), gap), gap)

    def _want_windows(self, start: float) -> None:
        """The moments that will be right if the shot goes on, so many windows ahead that all of the next one, and more, is not
        read yet when it opens. Also those of a window that the end of the video makes longer."""
        window = self.splitting.window_seconds
        for begin in (start, start + window, start + 2 * window):
            self._want(Span(begin, begin + window))
            joins = self.splitting.longer == "faster"
            if joins and begin + window < self.info.duration < begin + 2 * window + self._trim:
                self._want(Span(begin, self.info.duration))

    def _clip(self, span: Span) -> None:
        clip = self._new_clip(span)
        self._add(clip, self._sample(clip))

    def _new_clip(self, span: Span) -> ClipScan:
        doubts = [detector.doubt(span.start, span.end) for detector in self.detectors]
        known = [doubt for doubt in doubts if not math.isnan(doubt)]
        certainty = 1 - max(known) if known else math.nan
        return ClipScan(span, certainty=certainty, size=self.sizes.at(span.start), fields_since=self.fields.since)

    def _add(self, clip: ClipScan, sample: Sample | None, seen: Sequence[_Kept] = ()) -> None:
        self.judge.add(self.info, clip, sample, self._strip(seen))
        self.clips.append(clip)

    def _strip(self, seen: Sequence[_Kept]) -> StoredStrip | None:
        """The strip of some kept frames; None if there are none."""
        strip = None
        if seen:
            strip = strip_of_pictures([self.analysis.rgb(small) for _, small in seen], [time for time, _ in seen])
        self.analysis.forget()
        return strip

    def _glimpses(self, span: Span) -> list[_Kept]:
        """Of the kept frames of a span those that its strip shows: the nearest to its keyframes' times, each once."""
        nearest = [self.buffer.near(moment, span) for moment in centres(span, self.sampling.keyframes)]
        return list({kept[0]: kept for kept in nearest if kept is not None}.values())

    def _sample(self, clip: ClipScan) -> Sample | None:
        """The sample of a clip out of the buffer; None, with the clip's error set, if there are too few frames."""
        frames = [
            frame for pair in self._pairs(clip.span, centres(clip.span, self.sampling.keyframes)) for frame in pair
        ]
        gap, count = self.sampling.partner_seconds, pair_count(self.sampling.keyframes)
        greys: dict[float, Image] = {}
        pairs: list[Pair] = []
        for (time, a), (later, b) in self._pairs(clip.span, pair_starts(clip.span, count, gap)):
            for moment, small in ((time, a), (later, b)):
                if moment not in greys:
                    greys[moment] = small_grey(small, self.analysis)
            pairs.append((time, greys[time], later, greys[later]))
        sample = sample_of(clip, frames, self.sampling.keyframes, self.analysis, pairs, self.meter)
        self.analysis.forget()
        return sample

    def _pairs(self, span: Span, moments: Sequence[float]) -> list[tuple[_Kept, _Kept]]:
        """The kept frame nearest to each moment, and the one nearest to half a second later, within `span`; where there are.
        The last one that is kept of a shot that a cut ends early is a partner itself."""
        pairs, gap = [], self.sampling.partner_seconds
        for moment in moments:
            first = self.buffer.near(moment, span)
            if first is not None:
                rest = Span(math.nextafter(first[0], math.inf), span.end)
                second = self.buffer.near(first[0] + gap, rest)
                if second is None:
                    first, second = self.buffer.near(first[0] - gap, Span(span.start, first[0])), first
                if first is not None and second is not None:
                    pairs.append((first, second))
        return pairs

    def _shrink(self, time: float, frame: av.VideoFrame) -> av.VideoFrame:
        small = self.analysis.shrink(frame, time)
        if 0 < self.fields.since == time and self.begins_anew and not self.clips:
            raise FieldsFound
        return small
