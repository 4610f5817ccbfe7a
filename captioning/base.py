"""What a captioner is: it gives a clip five sub-captions and an overall caption, or says why not.

Whatever happens on the way, a batch of clips comes back as exactly one result per clip, in order, each under its own
clip id. `Captioner.caption` sees to that for every backend, so that no caption can end up on another clip.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from captioning.checks import SUB_CAPTIONS, CaptionError, Status, check_captions

log = logging.getLogger(__name__)

MAX_REASON = 300  # characters


@dataclass(frozen=True, slots=True, eq=False)
class ClipFrames:
    """What a captioner sees of a clip: its sample, what was measured on it, and what its source says of it.

    keyframes, partners: uint8 [5, height, width, 3], RGB, full range; a partner follows its keyframe by about 0.5 s.
    times, partner_times: float64 [5], seconds in the video. measured: scores by filter name. sidecar: captions that
    came with the source list (untrusted, see captioning.sidecar), or None.
    """

    clip_id: str
    keyframes: npt.NDArray[np.uint8]
    partners: npt.NDArray[np.uint8]
    times: npt.NDArray[np.float64]
    partner_times: npt.NDArray[np.float64]
    measured: dict[str, float] = field(default_factory=dict)
    sidecar: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Captions:
    """How captioning one clip ended. `caption` and the five `sub_captions` are set if status is `ok`, and only then.

    reason: why not ok, else None. attempts: how often the clip was tried. model: what wrote the captions. protocol: see
    `Captioner.protocol`; these two are set by `Captioner.caption`.
    """

    clip_id: str
    status: Status
    reason: str | None = None
    caption: str | None = None
    sub_captions: tuple[str, ...] | None = None
    attempts: int = 1
    model: str = ""
    protocol: str = ""


def failed(clip_id: str, error: Exception | str, attempts: int = 1) -> Captions:
    """The result of a clip without captions. A CaptionError brings its status; anything else is an error."""
    status = error.status if isinstance(error, CaptionError) else Status.ERROR
    text = str(error) if isinstance(error, CaptionError | str) else f"{type(error).__name__}: {error}"
    # A reason goes into a table and onto a terminal, and may quote what a stranger wrote.
    printable = "".join(c if c.isprintable() else " " for c in text[:MAX_REASON])
    return Captions(clip_id, status, " ".join(printable.split()) or "no reason was given", attempts=attempts)


def checked(result: Captions) -> Captions:
    """`result` with cleaned captions if they pass every check, else without captions and with what is wrong."""
    if result.status != Status.OK:
        reason = result.reason or "no reason was given"
        return replace(result, reason=reason, caption=None, sub_captions=None)
    try:
        caption, sub_captions = check_captions(result.caption, result.sub_captions)
    except CaptionError as error:
        return failed(result.clip_id, error, result.attempts)
    return replace(result, reason=None, caption=caption, sub_captions=sub_captions)


def match_to_clips(
    batch: Sequence[ClipFrames], results: Iterable[Captions], missing: Exception | str | None = None
) -> list[Captions]:
    """One result per clip of `batch`, in its order, matched by clip id and by nothing else.

    A clip with no result, or with more than one (which of them is right?), gets an error; results for clips that are
    not in the batch are dropped, and the errors mention them. missing: why a clip may have no result, if that is known.
    Raises ValueError if the batch itself holds a clip twice.
    """
    ids = [clip.clip_id for clip in batch]
    if len(set(ids)) != len(ids):
        twice = [clip_id for clip_id, count in Counter(ids).items() if count > 1]
        raise ValueError(f"a batch to caption holds a clip more than once: {', '.join(twice[:5])}")
    found: dict[str, list[Captions]] = {clip_id: [] for clip_id in ids}
    foreign = 0
    for result in results:
        if result.clip_id in found:
            found[result.clip_id].append(result)
        else:
            foreign += 1
    note = f"; {foreign} results belonged to no clip of the batch" if foreign else ""
    if foreign:
        log.warning("captioning %d clips: dropped %d results that belonged to no clip of the batch", len(ids), foreign)

    nothing = missing if missing is not None else f"the captioner gave this clip no result{note}"

    def only(clip_id: str) -> Captions:
        match found[clip_id]:
            case [result]:
                return result
            case []:
                return failed(clip_id, nothing)
            case several:
                return failed(
                    clip_id, f"the captioner gave this clip {len(several)} results; which is right is not known"
                )

    return [only(clip_id) for clip_id in ids]


class Captioner(ABC):
    """One way to caption. A subclass sets `name`, `model` and `protocol`, and writes `write_one`, or `write` where
    batching pays. Settings are keyword arguments of `__init__`, which raises ValueError if one is wrong.
    """

    name: ClassVar[str]

    @property
    def model(self) -> str:
        """What writes the captions, for the table."""
        return self.name

    @property
    @abstractmethod
    def protocol(self) -> str:
        """Everything that would make old captions stale when it changes: method, model, weights, prompts, settings."""

    def caption(self, batch: Sequence[ClipFrames]) -> list[Captions]:
        """One checked result per clip, in order. A clip that cannot be captioned gets a status and a reason, and leaves
        the others alone. Raises ValueError if the batch holds a clip twice. Not for subclasses to change.
        """
        results: list[Captions] = []
        failure: Exception | None = None
        try:
            for result in self.write(batch):
                results.append(checked(result))
        except Exception as error:  # what was written before stays good
            log.exception("the captioner %s failed on a batch of %d clips", self.name, len(batch))
            failure = error
        matched = match_to_clips(batch, results, failure)
        return [replace(result, model=self.model, protocol=self.protocol) for result in matched]

    def write(self, batch: Sequence[ClipFrames]) -> Iterable[Captions]:
        """Unchecked results, in any order, each with the id of its clip."""
        for clip in batch:
            try:
                yield self.write_one(clip)
            except Exception as error:
                yield failed(clip.clip_id, error)

    def write_one(self, clip: ClipFrames) -> Captions:
        """The unchecked captions of one clip. Raises CaptionError if there can be none."""
        raise NotImplementedError(f"{type(self).__name__} writes in batches only")


def check_frames(clip: ClipFrames) -> None:
    """Raises CaptionError unless the frames and times are as ClipFrames says."""
    for name, frames in (("keyframes", clip.keyframes), ("partners", clip.partners)):
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[0] != SUB_CAPTIONS or frames.shape[3] != 3:
            raise CaptionError(f"{name} are {frames.dtype} {list(frames.shape)}, not uint8 [5, height, width, 3]")
        if 0 in frames.shape:
            raise CaptionError(f"{name} are empty: {list(frames.shape)}")
    if clip.keyframes.shape != clip.partners.shape:
        raise CaptionError(
            f"keyframes {list(clip.keyframes.shape)} and partners {list(clip.partners.shape)} differ in size"
        )
    gaps = np.asarray(clip.partner_times) - np.asarray(clip.times)
    if gaps.shape != (SUB_CAPTIONS,) or not np.all(np.isfinite(gaps) & (gaps > 0)):
        raise CaptionError(f"each partner must follow its keyframe; the gaps are {gaps.tolist()} seconds")
