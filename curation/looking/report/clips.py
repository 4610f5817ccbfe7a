"""A clip as people look at it: its five keyframes over their sub-captions, its scores, and why a tier rejects it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from longtake.curation.clip_table import UNDER_SCAN, clip_row, written_captions
from longtake.curation.looking.html import render
from longtake.curation.looking.pictures import NoStrip, Pictures, parts_of
from longtake.curation.looking.report.columns import Columns, crop_words
from longtake.curation.recipe import Recipe
from longtake.curation.workspace import Workspace
from longtake.filters.verdicts import Alone, TierResult, Verdict
from longtake.manifests.frames import read_frames

PICTURE = 320  # Pixels: the width of a keyframe on a page.
STRIP = 160  # Pixels: the width of a keyframe from a strip.
_MOST_PIXELS = 2**26  # Pixels of a picture, which is left out if it has more: a stored frame is at most 960 long.


@dataclass(frozen=True, slots=True)
class Failure:
    """A gate that rejects a clip: the score that lies outside of its range, and by how much (positive above)."""

    gate: str
    range: str
    score: float
    excess: float


@dataclass(frozen=True, slots=True)
class Doubt:
    """A gate that passes or fails a clip by less than the standard error of its score."""

    gate: str
    range: str
    score: float
    error: float
    passed: bool

    def __str__(self) -> str:
        how = "passes" if self.passed else "fails"
        return f"uncertain: {self.gate} {self.score:.4g} {how} {self.range} by less than its standard error, {self.error:.2g}"


@dataclass(frozen=True, slots=True)
class ClipView:
    """What is known of one clip; a notebook shows it as keyframes over their sub-captions.

    start, end: seconds in the video. error: its kind and message, or None. scores: by filter, those under the recipe's
    protocols. verdicts, failures, missing, unknown (measured, and not to be known), doubts, alone: by tier. caption: None, and
    sub_captions: empty, unless they are good. pictures: small JPEGs of the keyframes, and times: where each is, seconds in the
    video; empty if there are none, which no_picture then tells why, in a sentence. crop: what became of its borders, in words; ""
    where the recipe cuts none away, or it has none.
    """

    clip_id: str
    uri: str
    start: float
    end: float
    error: str | None
    scores: dict[str, float]
    verdicts: dict[str, str]
    failures: dict[str, list[Failure]]
    missing: dict[str, list[str]]
    doubts: dict[str, list[Doubt]]
    unknown: dict[str, list[str]]
    alone: dict[str, Alone | None]
    caption: str | None
    sub_captions: list[str]
    pictures: list[bytes] = field(repr=False)
    times: list[float]
    no_picture: str | None = None
    crop: str = ""

    def reasons(self, tier: str) -> list[str]:
        """Why a tier does not keep the clip, a line per gate; empty if it does."""
        if self.error is not None:
            return [self.error]
        lines = [
            f"{f.gate} {f.score:.4g} is outside {f.range} by {abs(f.excess):.4g}" for f in self.failures.get(tier, [])
        ]
        if self.missing.get(tier):
            lines.append(f"no score yet: {', '.join(self.missing[tier])}")
        if self.unknown.get(tier):
            lines.append(f"cannot be known of this clip: {', '.join(self.unknown[tier])}")
        return lines

    def _repr_html_(self) -> str:
        """For notebooks."""
        return render("report/notebook.html.jinja", view=self)


@dataclass(slots=True)
class Looker:
    """Looks clips up. Captions are read at the first question, and kept. pictures: of clips without stored frames; None: those
    of this workspace. Close it after looking at pictures."""

    workspace: Workspace
    columns: Columns
    pictures: Pictures | None = None
    _captions: pa.Table | None = None

    def captions(self) -> pa.Table:
        """clip_id, scan_id, status, reason, caption, sub_captions of every clip that the recipe's captioner wrote of, and that is
        there as it was then."""
        if self._captions is None:
            names = [*UNDER_SCAN, "status", "reason", "caption", "sub_captions"]
            written, _ = written_captions(self.workspace, self.columns.recipe, names)
            self._captions = self.columns.current.among(written)
        return self._captions

    def close(self) -> None:
        """End what reads sources."""
        if self.pictures is not None:
            self.pictures.close()

    def look(self, rows: Sequence[int], width: int = 0, *, most: int = 5, sources: bool = True) -> list[ClipView]:
        """The clips in these rows of the table. width: of the pictures in pixels; STRIP: those of the strip; 0: none.
        most: pictures of a clip. sources: whether a source may be read where nothing is stored, for some seconds."""
        clips = self.columns.clips(rows)
        told = self._told([clip["clip_id"] for clip in clips])
        views = []
        for row, clip in zip(rows, clips, strict=True):
            text = told.get(clip["clip_id"], {})
            if text.get("status") != "ok":
                text = {}
            pictures, times, why = self._pictures(clip, width, sources) if width and most else ([], [], None)
            few = _spread(len(pictures), most)
            values = {name: float(self.columns.values(name, slice(row, row + 1))[0]) for name in self.columns.scales}
            results = {tier: self.columns.result(tier, np.array([row])) for tier in self.columns.tiers}
            views.append(
                ClipView(
                    clip_id=clip["clip_id"],
                    uri=clip["uri"],
                    start=clip["start"],
                    end=clip["end"],
                    error=f"{clip['error_kind']}: {clip['error']}" if clip["status"] != "ok" else None,
                    scores={name: value for name, value in values.items() if not np.isnan(value)},
                    verdicts={tier: Verdict(result.verdicts[0]).name.lower() for tier, result in results.items()},
                    failures={tier: _failures(result) for tier, result in results.items()},
                    missing={tier: list(result.missing(0)) for tier, result in results.items()},
                    doubts={tier: _doubts(result) for tier, result in results.items()},
                    unknown={tier: list(result.unknown(0)) for tier, result in results.items()},
                    alone={tier: result.alone(0) for tier, result in results.items()},
                    caption=text.get("caption"),
                    sub_captions=text.get("sub_captions") or [],
                    pictures=[pictures[i] for i in few],
                    times=[times[i] for i in few],
                    no_picture=why,
                    crop=crop_words(clip),
                )
            )
        return views

    def _pictures(
        self, clip: Mapping[str, Any], width: int, sources: bool
    ) -> tuple[list[bytes], list[float], str | None]:
        """Pictures of a clip and their times, or why there are none."""
        if clip["has_frames"] and width > STRIP:
            pictures, times = thumbnails(self.workspace, clip["video_id"], clip["clip_id"], width)
            if pictures:
                return pictures, times, None
        if self.pictures is None:
            self.pictures = Pictures(self.workspace)
        strip = self.pictures.strip_of(clip, sources)
        if isinstance(strip, NoStrip):
            return [], [], strip.why
        parts = parts_of(strip)
        return parts, strip.times[: len(parts)], None if parts else "The stored strip of this clip does not decode."

    def saying(self, text: str) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """The clips whose caption or a sub-caption holds `text`, in capitals or not [clips]."""
        captions = self.captions()
        whole = pc.match_substring(captions["caption"], text, ignore_case=True).fill_null(False)
        parts = captions["sub_captions"].combine_chunks()
        says = np.asarray(whole.to_numpy()).astype(bool)
        inside = pc.match_substring(pc.list_flatten(parts), text, ignore_case=True).fill_null(False)
        owners = pc.list_parent_indices(parts).to_numpy(zero_copy_only=False)
        says[owners[inside.to_numpy(zero_copy_only=False).astype(bool)]] = True
        ids = captions["clip_id"].filter(pa.array(says))
        return np.asarray(pc.is_in(self.columns.scores.table["clip_id"], value_set=ids).to_numpy()).astype(bool)

    def _told(self, clip_ids: Iterable[str]) -> dict[str, dict[str, Any]]:
        captions = self.captions()
        rows = captions.filter(pc.is_in(captions["clip_id"], value_set=pa.array(clip_ids, pa.string())))
        return {row["clip_id"]: row for row in rows.to_pylist()}


def _spread(count: int, most: int) -> list[int]:
    """Which of so many pictures are shown: the middle one, or some from the first to the last."""
    if count <= most:
        return list(range(count))
    return [count // 2] if most == 1 else [round(i * (count - 1) / (most - 1)) for i in range(most)]


def _failures(result: TierResult) -> list[Failure]:
    """Of a single clip."""
    failures = []
    for name, gate in result.gates.items():
        if gate.failed[0]:
            (score,), (excess,) = gate.outside(slice(0, 1))
            failures.append(Failure(name, str(gate.gate), float(score), float(excess)))
    return failures


def _doubts(result: TierResult) -> list[Doubt]:
    """Of a single clip."""
    return [
        Doubt(name, str(gate.gate), float(gate.low[0]), float(gate.error[0]), bool(gate.passed[0]))
        for name, gate in result.gates.items()
        if gate.error is not None and gate.uncertain[0]
    ]


def thumbnails(
    workspace: Workspace, video_id: str, clip_id: str, width: int, quality: int = 72
) -> tuple[list[bytes], list[float]]:
    """A clip's keyframes as JPEGs `width` pixels wide, and their times in seconds; none where they cannot be read."""
    try:
        stored = read_frames(workspace.path, video_id, [clip_id]).get(clip_id)
    except (OSError, pa.ArrowException):
        return [], []
    if stored is None:
        return [], []
    return [small(picture, width, quality) for picture in stored.keyframes], stored.times


def small(encoded: bytes, width: int, quality: int) -> bytes:
    """A smaller JPEG of a picture; empty where it does not decode."""
    import cv2

    try:
        picture = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        return b""
    if picture is None or picture.shape[0] * picture.shape[1] > _MOST_PIXELS:
        return b""
    height = max(1, round(picture.shape[0] * width / picture.shape[1]))
    resized = cv2.resize(picture, (width, min(height, 4 * width)), interpolation=cv2.INTER_AREA)
    return bytes(cv2.imencode(".jpg", resized, [cv2.IMWRITE_JPEG_QUALITY, quality])[1])


def open_clip(workspace: Workspace, recipe: Recipe, clip_id: str) -> ClipView:
    """One clip by its id or its first digits, with pictures 320 pixels wide. Raises SetupError."""
    columns = Columns.load(workspace, recipe)
    row = clip_row(workspace, columns.scores.table, clip_id)
    looker = Looker(workspace, columns)
    try:
        return looker.look([row], width=320)[0]
    finally:
        looker.close()
