"""An early look at a film that begins as no clip may be: at the keyframes of its container, before all of it is decoded.

A pass over six minutes of black costs ten seconds, its keyframes half a second. A film that begins as clips may be pays nothing,
and one that begins in the dark, as many do, a keyframe or two: the look ends at the first that a gate may let pass.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import av
import av.error
import numpy as np

from longtake.curation.access import Source
from longtake.curation.errors import RowError
from longtake.curation.reading.aperture import within
from longtake.curation.reading.graphs import top_down
from longtake.curation.reading.judge import ClipScan, Judge, Measured
from longtake.curation.reading.opening import OpenVideo, open_video, packets_of
from longtake.curation.reading.pictures import AnalysisFrames
from longtake.curation.reading.sampling import Span
from longtake.curation.reading.strips import Glimpses
from longtake.curation.reading.video import VideoInfo
from longtake.filters.base import Filter, Image, Sample, Score


class EarlyLook:
    """Whether a film can be rejected by its keyframes alone, by filters that say what they tell of its clips (`Filter.early`)."""

    def __init__(self, source: str | Source, judge: Judge) -> None:
        self._source, self._judge = source, judge
        # Where borders are cut away, whole pictures say nothing of a clip.
        known = [] if judge.recipe.crop else judge.recipe.built.values()
        self._filters: list[Filter[Any]] = [f.early for f in known if f.early is not None]
        # Seconds from one keyframe to the next, at most. If a clip holds no keyframe, nothing is known of it.
        self._longest = judge.recipe.splitting.window_seconds

    def rejected(self, info: VideoInfo, analysis: AnalysisFrames, first: av.VideoFrame) -> ClipScan | None:
        """The row of the whole film, if it is rejected. first: its first frame, as it was decoded."""
        if self._judge.all_scores or not self._filters or not math.isfinite(info.duration):
            return None
        whole = Span(0.0, info.duration)
        known = self._judge.probe_scores(info, whole)
        if self._judge.goes_on(known | self._measured(_painted(analysis, first))):
            return None
        scores: dict[str, Measured] = {}
        seen = Glimpses(whole, self._judge.recipe.sampling.keyframes)
        count, last = 0, 0.0
        try:
            with open_video(self._source) as video:
                coded = video.stream.codec_context
                for time, frame in within(_keyframes(video), info.aperture, coded.width, coded.height):
                    count += 1
                    picture = _painted(analysis, frame)
                    seen.push(time, picture)
                    scores = _united(scores, self._measured(picture), 1 / count)
                    if time - last > self._longest or self._judge.goes_on(known | scores):
                        return None
                    last = time
        except (RowError, av.error.FFmpegError, OSError, ValueError):
            # The pass over the film meets the same error, and reports it.
            return None
        if not count or info.duration - last > self._longest:
            return None
        clip = ClipScan(whole, known | scores)
        self._judge.show_strip(clip, seen.strip())
        return clip

    def _measured(self, picture: Image) -> dict[str, Measured]:
        sample = Sample(picture[None], picture[None], np.zeros(1), np.zeros(1))
        scores = [(filter_, filter_.measure([sample])[0]) for filter_ in self._filters]
        return {by.name: Measured(score, by.protocol) for by, score in scores if isinstance(score, Score)}


def _painted(analysis: AnalysisFrames, frame: av.VideoFrame) -> Image:
    picture = analysis.rgb(analysis.shrink(frame))
    analysis.forget()
    return picture


def _united(known: dict[str, Measured], new: dict[str, Measured], share: float) -> dict[str, Measured]:
    """What two looks tell together: the mean, and ends that hold both. share: of the new one in the mean."""
    united = dict(new)
    for name in known.keys() & new.keys():
        old, now = known[name].score, new[name].score
        ends = min(old.detail[0], now.detail[0]), max(old.detail[1], now.detail[1])
        united[name] = Measured(Score(old.value + share * (now.value - old.value), ends), new[name].protocol)
    return united


def _keyframes(video: OpenVideo) -> Iterator[tuple[float, av.VideoFrame]]:
    """The keyframes of a video with their times, seconds; those that have none are left out."""
    video.stream.codec_context.skip_frame = "NONKEY"
    for packet in packets_of(video, video.stream):
        if packet.is_keyframe or not packet.size:
            for frame in packet.decode():
                if frame.pts is not None:
                    video.tag(frame)
                    yield video.clock.seconds(frame.pts), top_down(frame)
