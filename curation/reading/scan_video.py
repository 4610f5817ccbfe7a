"""The scan of a film, with nothing but the film: which way it is read, by its header and by what is asked for.

open → probe → metadata gates ─(all tiers lost)→ one rejected clip row, nothing decoded
                    ├─(clips of a list)→ `listed`
                    └─→ `one_pass`
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress

from longtake.curation.access import Source
from longtake.curation.errors import RowError
from longtake.curation.reading.acceptance import checked
from longtake.curation.reading.combs import Fields, FieldsFound
from longtake.curation.reading.decoding import DecodeCount
from longtake.curation.reading.early import EarlyLook
from longtake.curation.reading.judge import ClipScan, Judge, Keep, Show, VideoScan, show_nothing
from longtake.curation.reading.listed import ListedPass
from longtake.curation.reading.one_pass import Pass, whole_film
from longtake.curation.reading.opening import OpenVideo, open_video
from longtake.curation.reading.sampling import Span
from longtake.curation.reading.video import VideoInfo
from longtake.curation.recipe import Recipe


def scan_video(
    uri: str | Source,
    recipe: Recipe,
    keep: Keep,
    *,
    spans: Sequence[Span] = (),
    all_scores: bool = False,
    on_duration: Callable[[float], None] = lambda seconds: None,
    show: Show = show_nothing,
) -> VideoScan:
    """Scan one video.

    keep: called with the sample of each clip that some tier may still keep (of every clip, with `all_scores`), in the order
    of their ends. spans: clips that the source list gives, one to infinity being of the whole film; shots are then
    not looked for. on_duration: told the seconds
    of video to come, before the first is decoded. show: called with the strip of each other clip whose pictures were seen, in the
    same order. Raises VideoError.
    """
    with open_video(uri) as video:
        info, judge = checked(video, recipe), Judge(recipe, all_scores, keep, show, source=uri)
        return scan_opened(video, info, uri, judge, spans, on_duration)


def scan_opened(
    video: OpenVideo,
    info: VideoInfo,
    source: str | Source,
    judge: Judge,
    spans: Sequence[Span],
    on_duration: Callable[[float], None],
) -> VideoScan:
    """Scan a video that is open. info: as `checked` gives it. The other arguments are those of `scan_video`. If it turns out that
    the film holds fields before any clip of it was given out, it is opened anew, and read as such from its beginning."""
    with suppress(FieldsFound):
        return _scan(video, info, source, judge, spans, on_duration, Fields())
    with open_video(source) as anew:
        return _scan(anew, info, source, judge, spans, on_duration, Fields(since=0.0))


def _scan(
    video: OpenVideo,
    info: VideoInfo,
    source: str | Source,
    judge: Judge,
    spans: Sequence[Span],
    on_duration: Callable[[float], None],
    fields: Fields,
) -> VideoScan:
    if spans:
        return _scan_listed(video, info, judge, spans, on_duration, fields)
    if (lost := lost_at_once(info, judge)) is not None:
        return lost
    on_duration(info.duration if math.isfinite(info.duration) else 0.0)
    return Pass(video, info, judge, EarlyLook(source, judge), fields).run()


def lost_at_once(info: VideoInfo, judge: Judge) -> VideoScan | None:
    """The scan of a film whose header alone rejects it: one clip, nothing decoded."""
    whole = whole_film(info)
    if judge.may_keep(info, whole):
        return None
    return VideoScan(info, [ClipScan(whole, judge.probe_scores(info, whole))], [], DecodeCount())


def _scan_listed(
    video: OpenVideo,
    info: VideoInfo,
    judge: Judge,
    spans: Sequence[Span],
    on_duration: Callable[[float], None],
    fields: Fields,
) -> VideoScan:
    given, endless, whole = _resolved(spans, info)
    if endless and not given:
        return VideoScan(info, endless, [], DecodeCount())
    if not any(judge.may_keep(info, span) for span in given):
        clips = [ClipScan(span, judge.probe_scores(info, span)) for span in given]
        return VideoScan(info, clips + endless, [], DecodeCount(), whole=whole)
    on_duration(info.duration if math.isfinite(info.duration) else 0.0)
    scanned = ListedPass(video, info, judge, given, whole, fields).run()
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
