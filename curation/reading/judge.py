"""What a scan finds out about clips. The judge measures a clip: cheap filters first, and no further once every tier is lost."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress
from typing import Any

from longtake.curation.access import Source
from longtake.curation.errors import RowError
from longtake.curation.reading.box import NONE, Box
from longtake.curation.reading.cropping import cropped, find_crop
from longtake.curation.reading.decoding import DecodeCount
from longtake.curation.reading.native import NativeLook
from longtake.curation.reading.opening import open_video
from longtake.curation.reading.orientation import Orientation
from longtake.curation.reading.sampling import Span
from longtake.curation.reading.sizes import Size
from longtake.curation.reading.sound import read_sound
from longtake.curation.reading.strips import strip_of_pictures
from longtake.curation.reading.timeline import Recording, recordings
from longtake.curation.reading.video import VideoInfo, probe, resized
from longtake.curation.recipe import Recipe
from longtake.filters.base import Filter, MeasureError, Needs, Probe, Sample, Score
from longtake.filters.verdicts import failed_by
from longtake.manifests.frames import StoredStrip

# Answers. The judge remembers at most this number of scores with the tiers that they lose, so that they take little memory.
_ANSWERS = 1000
# The clock of these containers is in their index, and cannot start anew.
_ONE_CLOCK = {"mov,mp4,m4a,3gp,3g2,mj2", "avi"}

Keep = Callable[[Span, Sample], None]
Show = Callable[[Span, StoredStrip], None]


def keep_nothing(span: Span, sample: Sample) -> None:
    """Where samples are not stored."""


def show_nothing(span: Span, strip: StoredStrip) -> None:
    """Where strips are not stored."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A score, and the protocol it was measured under."""

    score: Score
    protocol: str


@dataclass(slots=True)
class ClipScan:
    """One clip as the scan leaves it. has_frames: its sample was handed to `keep`. has_strip: it was, or its strip was handed to
    `show`. certainty: that it is one take, 0 to 1; nan where nobody looked. crop: the part of its picture that is kept, None: all
    of it; not_cropped: why borders of it were left. size: of its frames; None where none was seen.
    fields_since: seconds; from then on its film is one of fields (`combs.Fields`)."""

    span: Span
    scores: dict[str, Measured] = field(default_factory=dict)
    has_frames: bool = False
    has_strip: bool = False
    error: RowError | None = None
    certainty: float = math.nan
    crop: Box | None = None
    not_cropped: str = ""
    size: Size | None = None
    fields_since: float = math.inf

    def seen(self, info: VideoInfo) -> VideoInfo:
        """Its video, as large as what is kept of its picture."""
        if (size := self.size) is not None:
            info = resized(info, size.width, size.height, size.aspect, size.turn)
        return replace(info, width=self.crop.width, height=self.crop.height) if self.crop else info


@dataclass(slots=True)
class VideoScan:
    """One video as the scan leaves it. cuts: in seconds, the first frame of each new shot. decoded_seconds: of video.
    left_out: seconds at the ends of shots that gave clips and were longer (`Splitting.longer`). pieces: in which a long film was
    read."""

    info: VideoInfo
    clips: list[ClipScan]
    cuts: list[float]
    count: DecodeCount
    decoded_seconds: float = 0.0
    whole: float | None = None  # Seconds. If a clip of the list goes to the end of the video, this is the end.
    left_out: float = 0.0
    # The hash of all packets of the video stream in their order; None where not all were read.
    stream_sha256: str | None = None
    pieces: int = 1


class Judge:
    """Measures clips and runs the cascade: cheap filters first, and no further once every tier is lost."""

    def __init__(
        self,
        recipe: Recipe,
        all_scores: bool,
        keep: Keep = keep_nothing,
        show: Show = show_nothing,
        source: str | Source = "",
    ) -> None:
        """keep: called with the sample of each clip that some tier may still keep. show: with the strip of any other clip whose
        pictures were seen. source: the video, for filters that measure its sound."""
        self.recipe, self.source = recipe, source
        self.all_scores = all_scores
        self.keep, self.show = keep, show
        self._answers: dict[tuple[str, Measured], frozenset[str]] = {}
        self._on_probe = recipe.needing(Needs.PROBE)
        later = [f.lower_bound for f in recipe.built.values()]
        on_sample: list[Filter[Any]] = [*recipe.needing(Needs.SAMPLE).values(), *(f for f in later if f)]
        self._on_sample = sorted(on_sample, key=lambda f: f.cost)
        tiles = any(f.of_tiles for f in on_sample)
        # The passes keep this of pictures before they reduce them; with None they keep nothing.
        self.look = NativeLook(tiles, edges=bool(recipe.crop)) if tiles or recipe.crop else None
        artifacts = recipe.built.get("artifacts")
        self._borders = NONE  # The borders of the clip that was cropped last.
        # The film is known to be read in pieces, which is not done where its clock starts anew.
        self.one_clock = False
        self._parts: Sequence[Recording] | None = (
            None  # The recordings that the film is joined of; None until they are asked for.
        )
        self._looks_for_text = artifacts is not None and artifacts.backend == "rapidocr"

    def probe_scores(self, info: VideoInfo, span: Span, certainty: float = math.nan) -> dict[str, Measured]:
        """The metadata scores of a clip; what the container does not say has none. certainty: that it is one take."""
        scores: dict[str, Measured] = {}
        known = Probe(info.width, info.height, info.fps, span.seconds, info.tone_mapped, certainty, info.bits_per_pixel)
        for name, filter_ in self._on_probe.items():
            (score,) = filter_.measure([known])
            if isinstance(score, Score):
                scores[name] = Measured(score, filter_.protocol)
        return scores

    def may_keep(self, info: VideoInfo, span: Span) -> bool:
        """Whether decoding can still be worth it, by metadata alone. A span of no length is one of unknown length."""
        scores = self.probe_scores(info, span)
        return self.goes_on(scores if span.seconds > 0 else _without(scores, "duration"))

    def rejects(self, info: VideoInfo, span: Span) -> bool:
        """Whether metadata alone rejects a clip in every tier; what is measured all the same (`all_scores`) does not count."""
        return not self._alive(self.probe_scores(info, span))

    def measure(self, clip: ClipScan, sample: Sample) -> Sample:
        """Add the sample's scores to `clip`, as far as the cascade goes; the sample comes back with its marks."""
        goes_on = self.goes_on(clip.scores)
        for filter_ in self._on_sample:
            if not goes_on:
                break
            if filter_.hears and sample.sound is None:
                # Only clips that came so far are worth a second opening of the file.
                parts = self.recordings()
                sound = read_sound(self.source, clip.span.start, clip.span.seconds, keep=False, parts=parts)
                sample = replace(sample, sound=sound.seen())
            sample = filter_.annotate(sample)
            (score,) = filter_.measure([sample])
            if isinstance(score, MeasureError):
                clip.error = RowError("measure", f"{filter_.name}: {score}")
                break
            clip.scores[filter_.name] = Measured(score, score.protocol or filter_.protocol)
            goes_on = self.goes_on(clip.scores)
        clip.has_frames = clip.error is None and goes_on
        return sample

    def add(self, info: VideoInfo, clip: ClipScan, sample: Sample | None, strip: StoredStrip | None = None) -> None:
        """The scores of a clip; its sample goes to `keep` where some tier may still keep it, and else its strip to `show`.
        sample: None if there is none; then strip: what was seen of it all the same."""
        if sample is not None and self.recipe.crop:
            sample = self._cropped(clip.seen(info), clip, sample)
        clip.scores |= self.probe_scores(clip.seen(info), clip.span, clip.certainty)
        if sample is not None:
            sample = self.measure(clip, sample)
            if clip.has_frames:
                self.keep(clip.span, sample)
                clip.has_strip = True
                return
            strip = strip_of_pictures(sample.keyframes, sample.times)
        self.show_strip(clip, strip)

    def show_strip(self, clip: ClipScan, strip: StoredStrip | None) -> None:
        """Hand over the strip of a clip that has no sample."""
        if strip is not None:
            self.show(clip.span, strip)
            clip.has_strip = True

    def recordings(self) -> Sequence[Recording]:
        """The recordings that the film is joined of; empty, where its clock cannot start anew. Reads all of its packets, once."""
        if self._parts is None:
            self._parts = ()
            if not self.one_clock:
                with open_video(self.source) as video:
                    info = probe(video)
                    if info.container not in _ONE_CLOCK:
                        self._parts = recordings(video, info.fps)
        return self._parts

    def _cropped(self, info: VideoInfo, clip: ClipScan, sample: Sample) -> Sample:
        """The sample within the box that is kept of the picture, which becomes the clip's."""
        if not self.goes_on(self.probe_scores(info, clip.span, clip.certainty)):
            return sample
        shown, tiers = Orientation(info.rotation, info.mirrored), list(self.recipe.tiers.values())
        text, known = self._looks_for_text, self._borders
        search = find_crop(sample, info.width, info.height, shown, tiers, text=text, known=known)
        clip.crop, clip.not_cropped = search.box, search.why
        if search.box is not None:
            self._borders = search.borders
            return cropped(sample, search.box, info.width, info.height, shown)
        return replace(sample, marks=search.seen.mask, marks_known=search.seen.known)

    def goes_on(self, scores: Mapping[str, Measured]) -> bool:
        """Whether a clip with these scores is worth another measurement: some tier may still keep it."""
        return self.all_scores or self._alive(scores)

    def _alive(self, scores: Mapping[str, Measured]) -> bool:
        lost = {tier for name, measured in scores.items() for tier in self._lost(name, measured)}
        return len(lost) < len(self.recipe.tiers)

    def _lost(self, name: str, measured: Measured) -> frozenset[str]:
        """The tiers that one score alone loses. It is asked again and again of one clip, so the answer is remembered: of all
        gates at once, after each filter, the question would cost as much as a filter."""
        tiers = {tier: gates[name] for tier, gates in self.recipe.tiers.items() if name in gates}
        if not tiers:
            return frozenset()
        if (name, measured) not in self._answers:
            if len(self._answers) >= _ANSWERS:
                self._answers.clear()
            failed = failed_by(self.recipe.built[name], measured.score, measured.protocol, list(tiers.values()))
            self._answers[name, measured] = frozenset(compress(tiers, failed))
        return self._answers[name, measured]


def _without(scores: dict[str, Measured], name: str) -> dict[str, Measured]:
    return {key: value for key, value in scores.items() if key != name}
