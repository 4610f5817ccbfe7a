"""The base class of filters: a filter measures, and never decides.

A filter turns a batch of inputs (probes, samples, stored frames or captions) into one `Score` per clip. The score's
*protocol* says how it was measured: the exact frames, size, reduction, model and weights. Two scores are comparable if and
only if their protocols are equal. A gate decides whether a score is good enough (`longtake.filters.gates`).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise
from typing import Any, ClassVar, Generic, Literal, Self, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from longtake.settings import checked

Reduce = Literal["mean", "min", "max", "every"]
Image = npt.NDArray[np.uint8]
Input = TypeVar("Input")


class Needs(StrEnum):
    """What a filter measures on; this alone decides the stage in which it runs."""

    PROBE = "probe"  # The scan measures it before any frame is decoded.
    SAMPLE = "sample"  # The scan measures it in the decode pass.
    FRAMES = "frames"  # The stage score measures it on the stored frames.
    CORPUS = "corpus"  # The end of the stage score measures it on the embeddings of all clips at once.
    CAPTIONS = "captions"  # The stage caption measures it on the five sub-captions.


class MeasureError(ValueError):
    """A filter cannot measure one input; that clip gets an error, and no score."""


class FilterUnavailable(Exception):
    """A filter cannot work on this machine (a package or a weight is missing); says how to get it."""


@dataclass(frozen=True, slots=True)
class Probe:
    """The facts of a video from its container, without decoding it.

    width, height: displayed size in pixels, rotation and sample aspect ratio applied. fps: average frames per second.
    duration: seconds. hdr: its transfer is PQ or HLG. shot_confidence: how sure the splitter is that the clip is one take, 0 to
    1; nan where no scan looked. bits_per_pixel: of the whole film's stream, for each pixel of a frame; nan if unknown.
    """

    width: int
    height: int
    fps: float
    duration: float
    hdr: bool = False
    shot_confidence: float = math.nan
    bits_per_pixel: float = math.nan


@dataclass(frozen=True, slots=True, eq=False)
class Motion:
    """Pairs of small grey pictures of a clip, spread evenly over it.

    first, second: uint8 [n, height, width], full range, long side at most 480. times, partner_times: float64 [n], seconds in
    the video; the second picture is the later one, by half a second where the frames allow it.
    """

    first: Image
    second: Image
    times: npt.NDArray[np.float64]
    partner_times: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Changes:
    """How the picture changed from look to look in a clip (`longtake.filters.frozen`), for every look but the first; what
    `longtake.filters.repeats` looks at, too.

    starts, ends: float64 [n], seconds in the video: the look before, and this one. steps: float64 [n], grey levels, how
    much the most changed part of the picture differs between them. since: float64 [n], seconds: the earliest look since
    which no part of the picture has changed; equal to `ends` where some part has. grids: float16 [n, fields], mean
    grey levels of equal fields of this look. stood: float64 [n], seconds between the two looks in which the film had no new
    frame for half a second or longer.
    """

    starts: npt.NDArray[np.float64]
    ends: npt.NDArray[np.float64]
    steps: npt.NDArray[np.float64]
    since: npt.NDArray[np.float64]
    grids: npt.NDArray[np.float16]
    stood: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Native:
    """What is kept of a picture before it is reduced, as it was decoded; None: nobody asked for it.

    width, height: of the picture, px. tiles: uint8 [n, side, side], luma; places: int32 [n, 2], the left upper corner (x, y) of
    each in the picture. rows, columns: float32 [height], [width], by how much each row, or column, differs from the one before
    it in the mean, grey levels.
    """

    width: int
    height: int
    tiles: Image | None = None
    places: npt.NDArray[np.int32] | None = None
    rows: npt.NDArray[np.float32] | None = None
    columns: npt.NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class SoundSeen:
    """What was heard of a clip. covered: share of its time for which the file has sound. loudness: LUFS, nan where there is
    nothing to measure. silence: share of its time (`longtake.filters.loudness`)."""

    covered: float
    loudness: float
    silence: float


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """The frames kept of a clip: keyframes at the centres of its equal segments, each with a later partner.

    keyframes, partners: uint8 [n, height, width, 3], RGB, full range. times, partner_times: float64 [n], seconds in the
    video, the true timestamps of those frames. marks: bool [height, width], what is under borders and static marks in every
    frame, or None where they were not looked for. marks_known: False if the scene stood too still to show them. motion,
    changes, native (of each keyframe, then of each partner), sound: measurements that need the decode pass; None in a stored
    sample.
    """

    keyframes: Image
    partners: Image
    times: npt.NDArray[np.float64]
    partner_times: npt.NDArray[np.float64]
    marks: npt.NDArray[np.bool_] | None = None
    marks_known: bool = True
    motion: Motion | None = None
    changes: Changes | None = None
    native: tuple[Native, ...] | None = None
    sound: SoundSeen | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Captioned:
    """The captions of a clip, for a filter that holds them against its pictures.

    texts: the sub-captions, in order. embeddings: float16 [n, dim], of its keyframes, each of length 1, from the filter of the
    recipe that embeds; None: there are none.
    """

    texts: tuple[str, ...]
    embeddings: npt.NDArray[np.float16] | None


@dataclass(frozen=True, slots=True)
class Score:
    """One clip under one filter: the reduced value, and what it was reduced from (per frame or per pair).

    value: nan if the clip was measured, but its score cannot be known; it is stored as null, and the detail is then a lower
    bound. embedding: float16 [dim], of length 1, a description of the clip's look by a filter that computes it anyway; it
    is stored, as are those of the keyframes, float16 [n, dim]. standard_error: the error of the value, where that is the
    mean over a sample of the clip's moments; else None. protocol: the protocol of this clip, if it could only be measured
    under another one than the filter's.
    """

    value: float
    detail: tuple[float, ...] = ()
    embedding: npt.NDArray[np.float16] | None = field(default=None, compare=False, repr=False)
    keyframe_embeddings: npt.NDArray[np.float16] | None = field(default=None, compare=False, repr=False, kw_only=True)
    standard_error: float | None = None
    protocol: str | None = None

    @property
    def known(self) -> float | None:
        """The value as it is stored: None if it cannot be known."""
        return None if math.isnan(self.value) else self.value


def standard_error(detail: Sequence[float]) -> float | None:
    """The standard error of the mean of `detail`, measured at moments that are spread evenly; None for fewer than three.

    The moments are no random draw, and the values follow each other in time: the scatter about a straight run through the
    clip is what another set of moments would change. So it is taken from the n − 1 differences d of neighbours:
    √(Σ d² / (2 (n − 1) n)) (Wolter, "Introduction to Variance Estimation", systematic samples). On 56 real clips, flow from 15
    pairs lies within it of the flow from 60 for 71 % of them, as it should for 68 %; σ/√n, which takes a camera that speeds up
    for scatter, is too wide (84 %).
    """
    if len(detail) < 3:
        return None
    squares = math.fsum((b - a) ** 2 for a, b in pairwise(detail))
    return math.sqrt(squares / (2 * (len(detail) - 1) * len(detail)))


def reduce_detail(detail: Sequence[float], reduce: Reduce) -> float:
    """One number for `detail`. `every` is a rule for gates (each value must pass); its number is the mean.

    Raises MeasureError if `detail` is empty or holds a value that is not finite.
    """
    values = [float(v) for v in detail]
    if not values:
        raise MeasureError("nothing was measured")
    if not all(math.isfinite(v) for v in values):
        raise MeasureError(f"not a finite number: {values}")
    if reduce == "min":
        return min(values)
    if reduce == "max":
        return max(values)
    return math.fsum(values) / len(values)


class FilterSettings(BaseModel):
    """The settings of a filter: what a recipe gives it besides its backend. A filter with settings of its own extends this
    model; unknown keys, wrong types and values out of range are refused when the filter is made.

    `without_effect` names the settings that change only the speed, and no score.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    without_effect: ClassVar[frozenset[str]] = frozenset()

    reduce: Reduce = Field(
        "mean",
        description="how the values of the detail become one score; `every`: each of them must pass the gate",
    )


class Filter(ABC, Generic[Input]):
    """One measurement. A subclass sets the class variables and `measure_one`, or `measure` where batching pays.

    Its settings are keyword arguments, which its `settings_model` checks; a subclass that has one of its own annotates
    `settings` with it. Everything that changes a value must be in `method`. Raises SettingsError, a ValueError.
    """

    name: ClassVar[str]  # The name of its column in the clips manifest, and of its gate.
    backend: ClassVar[str]  # Distinguishes the ways in which one name may be measured.
    unit: ClassVar[str]
    needs: ClassVar[Needs]
    cost: ClassVar[float] = 1.0  # The relative CPU cost per clip: in a cascade the cheap filters go first.
    embeds: ClassVar[bool] = False  # Its scores carry embeddings.
    asks: ClassVar[bool] = False  # Its input is the answer of a vision-language model, and not pictures.
    # Its input: the embeddings of the keyframes, within `Captioned` where it needs captions. A recipe needs a filter that embeds.
    reads_embeddings: ClassVar[bool] = False
    # The name of another filter, whose details a filter on the corpus compares: the recipe needs it, too.
    reads_scores_of: ClassVar[str | None] = None
    of_tiles: ClassVar[bool] = False  # It measures on parts of the pictures at full size (`Native.tiles`).
    hears: ClassVar[bool] = False  # It measures the clip's sound (`Sample.sound`), which is read for such filters only.
    # Its detail is a sample of the clip's moments (pairs, in order of time), so that their mean has a standard error.
    samples_time: ClassVar[bool] = False
    settings_model: ClassVar[type[FilterSettings]] = FilterSettings
    # Raise it when the same input gives other values and no other part of `method` shows it; old scores become stale.
    version: ClassVar[int] = 1

    settings: FilterSettings
    # How the recipe cuts borders away before this filter sees the picture; "": it does not. The scores are other scores.
    crop: str = ""

    def __init__(self, /, **settings: Any) -> None:
        self.settings = checked(self.settings_model, settings)

    @property
    def reduce(self) -> Reduce:
        """How its detail becomes one score."""
        return self.settings.reduce

    @property
    @abstractmethod
    def method(self) -> str:
        """How `detail` is measured: frames, size, model, weights hash. Any change of it makes old scores stale."""

    @property
    def protocol(self) -> str:
        """`backend/method/reduce`: scores are comparable when this is equal. From version 2 on, the method ends in it, and, where
        borders are cut away first, in how."""
        version = f",v{self.version}" if self.version > 1 else ""
        crop = f",{self.crop}" if self.crop else ""
        return f"{self.backend}/{self.method}{version}{crop}/{self.reduce}"

    def seeing(self, crop: str) -> Self:
        """Itself, from now on for pictures whose borders are cut away in this way."""
        self.crop = crop
        return self

    def counts(self, stored: str, wanted: str) -> bool:
        """Whether a score that is stored under one protocol counts where this filter's protocol is `wanted`. Both are
        without the reduction."""
        return stored == wanted

    def settles(self, stored: str, wanted: str) -> bool:
        """Whether a second measurement of a clip would give the stored score again, although that does not count: the clip
        differs, and not the filter. stored, wanted: as in `counts`."""
        return False

    @property
    def lower_bound(self) -> Filter[Sample] | None:
        """A cheaper filter of the same name for the scan. Its value is never above this filter's (see artifacts)."""
        return None

    @property
    def early(self) -> Filter[Sample] | None:
        """A filter of the same name for an early look at a few pictures of a film: its detail holds the least and the
        greatest value that this filter can give for any clip of the film. It may therefore reject a film, and lets none
        pass."""
        return None

    @property
    def on_stored(self) -> Filter[Any]:
        """The filter that measures stored frames in this one's way; itself, unless it needs what only the scan sees."""
        return self

    def annotate(self, item: Input) -> Input:
        """`item` with facts that this filter adds for later filters (a sample's marks). By default it is unchanged."""
        return item

    def measure_one(self, item: Input) -> Sequence[float]:
        """The detail of one clip: a value per frame or per pair. Raises MeasureError."""
        raise NotImplementedError(f"{type(self).__name__} measures in batches only")

    def measure(self, items: Sequence[Input]) -> list[Score | MeasureError]:
        """One score per item, in order. An item that cannot be measured gives a MeasureError in its place, and does not
        affect the others."""
        return [self._score(item) for item in items]

    def _score(self, item: Input) -> Score | MeasureError:
        try:
            return self.reduced(self.measure_one(item))
        except MeasureError as error:
            return error

    def reduced(self, detail: Iterable[float]) -> Score:
        """The score whose detail is this. Raises MeasureError: see `reduce_detail`."""
        values = tuple(float(value) for value in detail)
        error = standard_error(values) if self.samples_time and self.reduce == "mean" else None
        return Score(reduce_detail(values, self.reduce), values, standard_error=error)
