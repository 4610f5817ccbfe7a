"""What every scan requires of a film: that its header can be believed, that it decodes, and that all of it is there.

Pass, pieces and lists read in different ways; what is an error of the film or of a clip is said of all of them here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress

import av
import av.error

from longtake.curation.access import Source
from longtake.curation.errors import RowError, VideoError
from longtake.curation.reading.decoding import DecodeCount
from longtake.curation.reading.judge import ClipScan, Judge
from longtake.curation.reading.matroska import is_whole
from longtake.curation.reading.opening import OpenVideo, open_video, packets_of
from longtake.curation.reading.video import VideoInfo, has_all_frames, missing_tail, probe
from longtake.curation.recipe import Recipe

# The headers of these containers count their length from zero, wherever the film begins (as does Matroska: see `probe`).
_FROM_ZERO = {"flv", "asf"}
_STEP = 1 / 30  # Seconds. One frame of an exported clip lasts so long, unless a recipe says otherwise.
_TIE = 1e-3  # Seconds. Matroska rounds times to milliseconds.


def checked(video: OpenVideo, recipe: Recipe) -> VideoInfo:
    """What the container says of a film that can be scanned. Raises VideoError (too_large, truncated, too_short, unsupported)."""
    info = probe(video)
    coded = video.stream.codec_context
    if coded.width * coded.height > recipe.scan.max_pixels:
        size = f"{coded.width}×{coded.height}"
        raise VideoError("too_large", f"{size} pixels to a frame; scan.max_pixels is {recipe.scan.max_pixels}")
    if missing_tail(video):
        raise VideoError("truncated", f"the file ends at byte {video.size}, before the frames its index names")
    if info.frames == 1 or info.duration * info.fps < 1.5:
        raise VideoError("too_short", "a single frame")
    return info


def require_sound(count: DecodeCount, limit: float) -> None:
    """Raises VideoError (corrupt, too_short) if what was decoded is no video, or too damaged. limit: share of the packets; one
    may be damaged of any film, as where a recording broke off, unless it is 0."""
    if count.frames == 0:
        raise VideoError("corrupt", f"no frame decodes ({count.packets} packets)")
    if count.corrupt > (max(limit * count.packets, 1) if limit else 0):
        raise VideoError(
            "corrupt", f"{count.corrupt} of {count.packets} packets are damaged; scan.max_corrupt is {limit}"
        )
    if count.frames == 1 and count.packets <= 1:
        raise VideoError("too_short", "a single frame")


def require_all(info: VideoInfo, end: float, source: str | Source) -> None:
    """Raises VideoError (truncated) if the frames end early, and all else in the file, too. The headers of some containers
    (Matroska, FLV, ASF) only tell how long the longest of its streams is. In a Matroska file that has all of its bytes, the
    header is wrong: it may be that of a longer film, or count subtitles. The last frame may stand for long, as in a recording of
    a screen: where an index names all frames, none is missing."""
    if ends_early(info, end) and ends_early(info, _last_of_all(source)) and not _is_whole(source):
        raise VideoError("truncated", f"the frames end at {end:.1f} s of {info.duration:.1f} s")


def ends_early(info: VideoInfo, end: float) -> bool:
    """Whether the frames end, at `end` seconds, long before the header says."""
    return info.duration - end > max(1.0, 0.05 * info.duration)


def _is_whole(source: str | Source) -> bool:
    with open_video(source) as video:
        return is_whole(video.file) or has_all_frames(video)


def _last_of_all(source: str | Source) -> float:
    """The greatest time of a packet of any stream, seconds on the clock by which the header tells how long the file is."""
    last = 0.0
    # A seek in such a file may lead anywhere, so all of it is read; nothing is decoded.
    with open_video(source) as video, suppress(av.error.FFmpegError, ValueError):
        origin = 0.0 if video.container.format.name in _FROM_ZERO else video.clock.origin
        for packet in packets_of(video):
            if packet.pts is not None and packet.time_base is not None and packet.stream.type in ("audio", "video"):
                last = max(last, float(packet.pts * packet.time_base) - origin)
    return last


def film_start(first: float, info: VideoInfo) -> float:
    """The time from which a film can be shown, seconds. first: the time of its first frame. A recording that was cut in the
    middle of a group of pictures begins with packets that do not decode. An export bridges one frame of them: then it is 0."""
    return first if first > max(1 / info.assumed_fps, _STEP) + _TIE else 0.0


def counted_fps(info: VideoInfo, count: DecodeCount) -> float:
    """The rate of a film, frames per second: what its header says, unless its frames say otherwise."""
    known = math.isfinite(info.fps) and info.fps > 0
    if math.isfinite(count.fps) and (not known or abs(count.fps / info.fps - 1) > 0.01):
        return count.fps
    return info.assumed_fps


def require_undamaged(clip: ClipScan, count: DecodeCount) -> None:
    """Set the error of a clip in which something does not decode: an export would refuse it, after all else was paid for."""
    if clip.error is None and (damage := count.damage_within(clip.span.start, clip.span.end)) is not None:
        clip.error = RowError("corrupt", f"something of it does not decode ({damage}): it could not be exported")
        clip.has_frames = False


def too_short(seconds: float, least: float) -> RowError:
    """The error of a film none of whose shots is long enough for a clip, where no gate tells that it is too short."""
    return RowError(
        "too_short", f"the longest shot lasts {seconds:.1f} s; a clip has {least:g} s at least (splitting.min_seconds)"
    )


def settle(
    clips: Sequence[ClipScan], info: VideoInfo, judge: Judge, count: DecodeCount, none_long_enough: bool
) -> None:
    """Set what depends on the whole film: its rate and length are known now."""
    for clip in clips:
        clip.scores |= judge.probe_scores(clip.seen(info), clip.span, clip.certainty)
        require_undamaged(clip, count)
        if none_long_enough and not judge.rejects(clip.seen(info), clip.span):
            least = judge.recipe.splitting.min_seconds
            clip.error, clip.has_frames = too_short(clip.span.seconds, least), False
