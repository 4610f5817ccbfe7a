"""The clips that a source list names: each is sought, and only its own moments are kept.

No more is read than the groups of pictures in which those moments lie: fifteen seconds at the end of a film cost what they
cost at its beginning, and a clip of an hour holds no more in memory than one of fifteen seconds.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

import av
import av.error

from longtake.curation.errors import RowError
from longtake.curation.reading.acceptance import film_start, require_sound, require_undamaged
from longtake.curation.reading.combs import Fields, FieldsFound
from longtake.curation.reading.decoding import DecodeCount, DecodedFrame, decode
from longtake.curation.reading.judge import ClipScan, Judge, VideoScan
from longtake.curation.reading.motion import Pair, small_grey
from longtake.curation.reading.opening import OpenVideo
from longtake.curation.reading.pictures import AnalysisFrames, thumbnail
from longtake.curation.reading.samples import sample_of
from longtake.curation.reading.sampling import LOOK_SECONDS, Span, centres, pair_count, pair_starts
from longtake.curation.reading.seeking import CLOCK, LEADS, seek
from longtake.curation.reading.sizes import Sizes
from longtake.curation.reading.timeline import may_leap
from longtake.curation.reading.video import VideoInfo, as_shown
from longtake.filters.base import Image, Sample
from longtake.filters.frozen import ChangeMeter

# Seconds. A source list may be wrong about the end of a video by so much: lists round, and some durations are of the sound.
SLACK = 0.2
# Seconds. A gap between two wanted moments that is longer is passed over by seeking; a shorter one is decoded through, since a
# seek goes back to a keyframe, of which there is one in 2 to 10 s.
SKIP = 12.0
_TIE = 1e-3  # Seconds. Matroska rounds times to milliseconds.


@dataclass(slots=True)
class _Listed:
    """A clip of the list while it is read. frames: those of its sample that were found, by their place in it; motion: likewise.
    left: moments that are still to come."""

    span: Span
    frames: dict[int, tuple[float, av.VideoFrame]] = field(default_factory=dict)
    motion: dict[int, tuple[float, Image]] = field(default_factory=dict)
    left: int = 0


@dataclass(order=True, frozen=True, slots=True)
class _Moment:
    """A time at which a frame is wanted. place: in the sample of the clip, keyframes even, partners odd; −1: the clip's end.
    motion: in its motion instead, first pictures even, their partners odd. after: the frame must be later than this."""

    time: float
    clip: int
    place: int
    after: float
    motion: bool = False


class ListedPass:
    """Reads the clips of a list, in the order of their moments."""

    def __init__(
        self,
        video: OpenVideo,
        info: VideoInfo,
        judge: Judge,
        spans: Sequence[Span],
        whole: float | None = None,
        fields: Fields | None = None,
    ) -> None:
        self.fields = fields or Fields()
        self.video, self.info, self.judge = video, info, judge
        self.whole = whole  # The end of the video by its header, in seconds, if a clip of the list goes there.
        self.sampling = judge.recipe.sampling
        self.analysis = AnalysisFrames(info, judge.look, self.fields, video.aspects, video.turns)
        self.count = DecodeCount()
        self.listed = [_Listed(span) for span in sorted(spans, key=lambda span: span.end)]
        self.moments: list[_Moment] = []  # The moments are a heap, the earliest first.
        self.clips: list[ClipScan] = []
        self.frames: Iterator[DecodedFrame] | None = None
        self.previous: DecodedFrame | None = None
        self.earlier: DecodedFrame | None = None  # The frame before the previous one.
        # The two newest frames at the analysis size, by their times, if a clip wanted them.
        self.shrunk: dict[float, av.VideoFrame] = {}
        self.meter = ChangeMeter(video.gaps.within)
        self.sizes = Sizes(video.aspects, video.turns)
        self.looked = -math.inf
        self.decoded_seconds = 0.0
        self.joined = 0  # Times that the video's clock starts anew, as far as that was looked into.
        self.begins = 0.0  # Seconds. Before it the film cannot be shown.
        for number, listed in enumerate(self.listed):
            span, keyframes = listed.span, self.sampling.keyframes
            for place, moment in enumerate(centres(span, keyframes)):
                self._want(number, moment, 2 * place)
            for place, moment in enumerate(pair_starts(span, pair_count(keyframes), self.sampling.partner_seconds)):
                self._want(number, moment, 2 * place, motion=True)
            self._want(number, span.end, -1)

    def run(self) -> VideoScan:
        """Read, measure, and hand samples over in the order in which clips are complete. Raises VideoError."""
        started, ended = False, False
        while self.moments and not ended:
            ended, sought = True, self.moments[0].time
            for decoded in self._from(max(sought, 0.0)):
                if not started:
                    started = True
                    self.begins = film_start(decoded.time, self.info) if sought <= SKIP else 0.0
                    if not self._first(decoded.frame):
                        spans = [listed.span for listed in self.listed]
                        clips = [ClipScan(span, self.judge.probe_scores(self.info, span)) for span in spans]
                        return VideoScan(self.info, clips, [], self.count, whole=self.whole)
                self._push(decoded)
                # A keyframe may lie farther back than SKIP. To seek the same moment again would lead there once more.
                if not self.moments or self.moments[0].time > max(sought, decoded.time + SKIP):
                    ended = False
                    break
        self._end()
        self.video.damages.stop()
        require_sound(self.count, self.judge.recipe.scan.max_corrupt)
        self.count.restarts = max(self.count.restarts, self.joined)
        if not math.isfinite(self.info.fps):
            self.info = replace(self.info, fps=self.count.fps)
        for clip in self.clips:
            clip.scores |= self.judge.probe_scores(clip.seen(self.info), clip.span)
            require_undamaged(clip, self.count)
            if clip.error is None and clip.span.start < self.begins - _TIE:
                words = f"the video begins at {self.begins:.3f} s, after this clip does ({clip.span.start:.3f} s)"
                clip.error, clip.has_frames = RowError("missing", words), False
        return VideoScan(self.info, self.clips, [], self.count, self.decoded_seconds, self.whole)

    def _first(self, frame: av.VideoFrame) -> bool:
        """What only a frame can tell: how it is turned. False if the gates reject all clips now."""
        turned = as_shown(self.video, self.info, frame)
        if turned is not self.info:
            self.info = turned
            self.analysis = AnalysisFrames(turned, self.judge.look, self.fields, self.video.aspects, self.video.turns)
        return any(self.judge.may_keep(self.info, listed.span) for listed in self.listed)

    # ── moving ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _from(self, start: float) -> Iterator[DecodedFrame]:
        """Frames from the last one at or before `start` on, if the video can be entered there; else from where reading stands,
        or from the beginning."""
        here = self.previous.time if self.previous else 0.0
        if start - here > SKIP and not self._starts_anew():
            moved = False
            for lead in LEADS:
                if not seek(self.video, start - lead):
                    break
                moved = True
                self.frames = decode(self.video, self.info, self.count, since=start)
                first = next(self.frames, None)
                if first is not None and first.time <= start + CLOCK:
                    self.previous = self.earlier = None
                    self.shrunk.clear()
                    return chain([first], self.frames)
            if moved:
                seek(self.video, 0.0)
                self.frames = decode(self.video, self.info, self.count)
                return (frame for frame in self.frames if self.previous is None or frame.time > here)
        if self.frames is None:
            self.frames = decode(self.video, self.info, self.count)
        return self.frames

    def _starts_anew(self) -> bool:
        """Whether the video's clock starts anew somewhere: then one time is in several places, and it cannot be sought in."""
        if not self.joined and may_leap(self.video):
            self.joined = max(len(self.judge.recordings()) - 1, 0)
        return self.joined > 0 or self.count.restarts > 0

    def _want(self, clip: int, time: float, place: int, after: float = -math.inf, motion: bool = False) -> None:
        self.listed[clip].left += 1
        heapq.heappush(self.moments, _Moment(time, clip, place, after, motion))

    def _push(self, decoded: DecodedFrame) -> None:
        """The next frame. A moment is settled when a frame at or behind it has come: the nearer of the two around it is its."""
        previous = self.previous
        if previous is not None:
            self.decoded_seconds += decoded.time - previous.time
        self.sizes.push(decoded.time, decoded.frame)
        self._look(decoded)
        later: list[_Moment] = []
        while self.moments and self.moments[0].time <= decoded.time:
            moment = heapq.heappop(self.moments)
            if decoded.time <= moment.after:
                later.append(moment)
                continue
            if previous is not None and moment.time - previous.time <= decoded.time - moment.time:
                self._settle(moment, previous if previous.time > moment.after else decoded, decoded)
            else:
                self._settle(moment, decoded, previous)
        for moment in later:
            heapq.heappush(self.moments, moment)
        self.earlier, self.previous = previous, decoded
        self.shrunk = {time: small for time, small in self.shrunk.items() if time == decoded.time}

    def _look(self, decoded: DecodedFrame) -> None:
        if self.previous is None:
            # Reading begins at this frame, or was moved to it.
            self.meter.skip()
        elif decoded.time - self.looked < LOOK_SECONDS:
            return
        self.looked = decoded.time
        self.meter.push(decoded.time, thumbnail(decoded.frame))

    def _settle(self, moment: _Moment, best: DecodedFrame, other: DecodedFrame | None) -> None:
        listed = self.listed[moment.clip]
        span = listed.span
        fitting = [f for f in (best, other) if f and span.start <= f.time < span.end and f.time > moment.after]
        if fitting and moment.place >= 0:
            chosen = fitting[0]
            if moment.motion:
                listed.motion[moment.place] = chosen.time, small_grey(self._small(chosen), self.analysis)
            else:
                listed.frames[moment.place] = chosen.time, self._small(chosen)
            if moment.place % 2 == 0:
                partner = min(chosen.time + self.sampling.partner_seconds, span.end - CLOCK)
                self._want(moment.clip, partner, moment.place + 1, chosen.time, moment.motion)
        elif moment.place % 2 and self.previous is not None and self.previous.time == moment.after:
            self._pair_with_earlier(listed, moment)
        listed.left -= 1
        if not listed.left:
            self._clip(listed)

    def _pair_with_earlier(self, listed: _Listed, moment: _Moment) -> None:
        """The first picture of a pair is the last one in the clip, since nothing changes behind it: then it is the partner of the
        one before it, as in a shot."""
        earlier = self.earlier
        if earlier is None or not listed.span.start <= earlier.time < moment.after:
            return
        if moment.motion:
            listed.motion[moment.place] = listed.motion[moment.place - 1]
            listed.motion[moment.place - 1] = earlier.time, small_grey(self._small(earlier), self.analysis)
        else:
            listed.frames[moment.place] = listed.frames[moment.place - 1]
            listed.frames[moment.place - 1] = earlier.time, self._small(earlier)

    def _small(self, decoded: DecodedFrame) -> av.VideoFrame:
        if decoded.time not in self.shrunk:
            self.shrunk[decoded.time] = self.analysis.shrink(decoded.frame, decoded.time)
            if 0 < self.fields.since == decoded.time and not self.clips:
                raise FieldsFound
        return self.shrunk[decoded.time]

    # ── clips ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _clip(self, listed: _Listed) -> None:
        clip = ClipScan(listed.span, size=self.sizes.at(listed.span.start), fields_since=self.fields.since)
        clip.error = self.sizes.within(listed.span)
        frames = [frame for _, frame in sorted(listed.frames.items())]
        first = [place for place in sorted(listed.motion) if place % 2 == 0 and place + 1 in listed.motion]
        sample: Sample | None = None
        pairs: list[Pair] = [(*listed.motion[place], *listed.motion[place + 1]) for place in first]
        if clip.error is None:
            sample = sample_of(clip, frames, self.sampling.keyframes, self.analysis, pairs, self.meter)
        self.analysis.forget()
        self.judge.add(self.info, clip, sample)
        self.clips.append(clip)
        listed.motion.clear()
        self.meter.drop_before(min((other.span.start for other in self.listed if other.left), default=math.inf))

    def _end(self) -> None:
        """The video has no more frames: the last one is nearest to all that is still wanted."""
        last = self.previous
        if last is None:
            return
        end = max(last.time, self.count.last if math.isfinite(self.count.last) else last.time)
        end += 1 / self.info.assumed_fps
        for listed in self.listed:
            if listed.left and listed.span.end == self.whole and listed.span.start < end < listed.span.end:
                # This clip goes to the end of the film, whose frames end before its header says so.
                listed.span = Span(listed.span.start, end)
        if self.whole is not None:
            self.whole = min(self.whole, end)
        while self.moments:
            moment = heapq.heappop(self.moments)
            listed = self.listed[moment.clip]
            if listed.span.end <= end + SLACK:
                self._settle(moment, last, None)
                continue
            listed.left -= 1
            if not listed.left:
                words = f"the video ends at {end:.3f} s, before this clip does ({listed.span.end:.3f} s)"
                self.clips.append(ClipScan(listed.span, error=RowError("missing", words)))
