"""One clip as a recording that the Rerun viewer shows: its frames, its scores and its captions, over the time of its video.

https://rerun.io. Rerun is an extra: `pip install 'longtake[rerun]'`. Nothing is sent, and no viewer is started.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from longtake.curation.errors import SetupError
from longtake.curation.looking.pictures import Strip, parts_of, strip_of
from longtake.curation.looking.tiering import describe_clip
from longtake.curation.recipe import Recipe
from longtake.curation.workspace import Workspace
from longtake.filters.gates import Gate
from longtake.manifests.folder import whole_file
from longtake.manifests.frames import read_frames

if TYPE_CHECKING:
    from rerun import RecordingStream

TIMELINE = "video"  # Seconds since the start of the video.
_VIEWS = 8  # Scores that are shown at first; the viewer lists the others.
_NEEDED = "a recording needs Rerun, which is not installed: pip install 'longtake[rerun]'"


def write_recording(workspace: Workspace, recipe: Recipe, clip_id: str, target: Path) -> str:
    """Write an .rrd file about the clip with this id, or whose id alone begins so; its id. Raises SetupError."""
    try:
        import rerun as rr
        import rerun.blueprint as rrb
    except ModuleNotFoundError as error:
        raise SetupError(_NEEDED) from error
    known = describe_clip(workspace, recipe, clip_id)
    stream = rr.RecordingStream("longtake", recording_id=f"{known['clip_id']}", send_properties=False)
    try:
        with whole_file(target.absolute()) as part:
            named = part.with_name(f"{part.name}.rrd")  # Rerun only saves to names with this ending.
            stream.save(named)
            stream.send_recording_name(f"{known['clip_id']} of {known['uri']}")
            stream.send_blueprint(
                rrb.Blueprint(
                    rrb.Horizontal(
                        rrb.Vertical(
                            rrb.Spatial2DView(origin="/frames", name="frames"),
                            rrb.TextDocumentView(origin="/captions", name="captions"),
                        ),
                        rrb.Vertical(
                            *(
                                rrb.TimeSeriesView(origin=f"/scores/{rr.escape_entity_path_part(name)}", name=name)
                                for name in _drawn(known)[:_VIEWS]
                            )
                        ),
                        rrb.TextDocumentView(origin="/clip", name="clip"),
                    ),
                    collapse_panels=True,
                )
            )
            stream.log("clip", rr.TextDocument(_told(known), media_type=rr.MediaType.MARKDOWN), static=True)
            times = _frames(stream, workspace, known)
            _scores(stream, known, recipe, times)
            _captions(stream, known)
            stream.flush()
            stream.disconnect()
            named.replace(part)
    except OSError as error:
        raise SetupError(f"cannot write {target}: {error.strerror or error}") from error
    return str(known["clip_id"])


def _frames(stream: RecordingStream, workspace: Workspace, known: Mapping[str, Any]) -> list[float]:
    """Log the stored keyframes and their partners, or else the strip; the times of the keyframes, seconds."""
    import rerun as rr

    clip = known["clip_id"]
    try:
        stored = read_frames(workspace.path, known["video_id"], [clip]).get(clip)
    except (OSError, pa.ArrowException):
        stored = None
    if stored is not None:
        frames = [*zip(stored.times, stored.keyframes, strict=True)]
        frames += zip(stored.partner_times, stored.partners, strict=True)
        times = stored.times
    else:
        strip = strip_of(workspace, known)
        if not isinstance(strip, Strip):
            stream.log("frames/why", rr.TextDocument(strip.why), static=True)
            return []
        frames, times = list(zip(strip.times, parts_of(strip), strict=True)), strip.times
    for time, jpeg in sorted(frames):
        stream.set_time(TIMELINE, duration=time)
        stream.log("frames/picture", rr.EncodedImage(contents=jpeg, media_type="image/jpeg"))
    return times


def moments(count: int, times: Sequence[float], start: float, end: float) -> npt.NDArray[np.float64]:
    """When the values of a detail were measured, seconds [count]. One for each keyframe (times): at it. One less: between two
    neighbours. Else they are spread evenly over the clip, as the pairs of its motion are."""
    if count == len(times):
        return np.array(times)
    if count and count == len(times) - 1:
        return np.asarray((np.array(times[:-1]) + np.array(times[1:])) / 2)
    return np.asarray(start + (end - start) * (2 * np.arange(count) + 1) / (2 * max(count, 1)))


def _drawn(known: Mapping[str, Any]) -> list[str]:
    """The scores with more than one value over time."""
    return [name for name, score in known["scores"].items() if len(score["detail"] or ()) > 1]


def _scores(stream: RecordingStream, known: Mapping[str, Any], recipe: Recipe, times: Sequence[float]) -> None:
    import rerun as rr

    start, end = known["start"], known["end"]
    for name in _drawn(known):
        detail = known["scores"][name]["detail"]
        for time, value in zip(moments(len(detail), times, start, end), detail, strict=True):
            if value is not None:
                stream.set_time(TIMELINE, duration=float(time))
                stream.log(["scores", name, "measured"], rr.Scalars(value))
        for tier, gates in recipe.tiers.items():
            for side, limit in _limits(gates.get(name)):
                for time in (start, end):
                    stream.set_time(TIMELINE, duration=time)
                    stream.log(["scores", name, tier, side], rr.Scalars(limit))


def _limits(gate: Gate | None) -> list[tuple[str, float]]:
    ends = [] if gate is None else [("at_least", gate.low), ("at_most", gate.high)]
    return [(side, limit) for side, limit in ends if np.isfinite(limit)]


def _captions(stream: RecordingStream, known: Mapping[str, Any]) -> None:
    """Each sub-caption from the beginning of its segment on."""
    import rerun as rr

    captions = known["captions"]
    if not captions or captions["status"] != "ok" or captions["scan_id"] != known["scan_id"]:
        return
    if captions["caption"]:
        stream.log("captions/overall", rr.TextDocument(captions["caption"]), static=True)
    told = captions["sub_captions"] or []
    for number, text in enumerate(told):
        stream.set_time(TIMELINE, duration=known["start"] + (known["end"] - known["start"]) * number / len(told))
        stream.log("captions/now", rr.TextDocument(text or ""))


def _told(known: Mapping[str, Any]) -> str:
    """The clip in words: where it is from, its verdicts, its scores. Markdown."""
    lines = [f"# {known['clip_id']}", "", f"`{known['uri']}`, {known['start']:.2f} to {known['end']:.2f} s", ""]
    for tier, verdict in known["tiers"].items():
        failed = "; ".join(
            f"{name} {why['score']:.4g} is outside {why['range']} by {why['outside by']:.4g}"
            for name, why in verdict["failed"].items()
        )
        missing = f"; no score yet: {', '.join(verdict['no score'])}" if verdict["no score"] else ""
        lines.append(f"- {tier}: **{verdict['verdict']}** {failed}{missing}")
    lines += ["", "| score | value | protocol |", "|---|---|---|"]
    for name, score in known["scores"].items():
        value = "not known" if score["value"] is None else f"{score['value']:.4g}"
        lines.append(f"| {name} | {value} | {score['protocol']} |")
    return "\n".join(lines)
