"""The base class of captioners: a captioner gives a clip five sub-captions and an overall caption, or a reason why not.

Even with failures, a batch of clips gives exactly one result per clip, in order, each under its own clip id.
`Captioner.caption` ensures this for every backend, so that no caption can end up on another clip.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel

from longtake.captioning.allowance import Allowing
from longtake.captioning.chat import CaptionerFault
from longtake.captioning.checks import SUB_CAPTIONS, CaptionError, Status, check_captions
from longtake.captioning.journal import Journal
from longtake.captioning.permission import Permission
from longtake.captioning.quality import Standards

log = logging.getLogger(__name__)

MAX_REASON = 300  # Characters. A reason is a cell of a table and a line on a terminal.

Images = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class ClipFrames:
    """The input of a captioner: a clip's sample, its scores, and the captions of its source list.

    encoded_keyframes, encoded_partners: 5 pictures each, JPEG or PNG, as they are stored; a partner follows its keyframe
    by about 0.5 s. times, partner_times: float64 [5], seconds in the video. measured: scores by filter name. sidecar:
    captions that came with the source list (untrusted, see longtake.captioning.sidecar), or None. seconds: how long the clip is.
    tried: how often it was tried before, in earlier runs.
    """

    clip_id: str
    encoded_keyframes: Sequence[bytes]
    encoded_partners: Sequence[bytes]
    times: npt.NDArray[np.float64]
    partner_times: npt.NDArray[np.float64]
    measured: dict[str, float] = field(default_factory=dict)
    sidecar: dict[str, Any] | None = None
    seconds: float = 15.0
    tried: int = 0

    @cached_property
    def keyframes(self) -> Images:
        """uint8 [5, height, width, 3], RGB, full range. Decoded when first asked for; raises CaptionError."""
        return _decoded(self.encoded_keyframes, "keyframe")

    @cached_property
    def partners(self) -> Images:
        """As `keyframes`."""
        return _decoded(self.encoded_partners, "partner")


def _decoded(encoded: Sequence[bytes], name: str) -> Images:
    import cv2

    pictures = [decode(data, cv2.IMREAD_COLOR_RGB, name) for data in encoded]
    if len({picture.shape for picture in pictures}) != 1:
        raise CaptionError(f"the {name}s are of {len({p.shape for p in pictures})} sizes, not of one")
    return np.stack(pictures)


def decode(data: bytes, flags: int, name: str) -> Images:
    """A stored picture, with OpenCV's flags. Raises CaptionError if it is damaged."""
    import cv2

    try:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:  # OpenCV raises this for no bytes at all, and for pictures that are too large.
        picture = None
    if picture is None:
        raise CaptionError(f"a stored {name} does not decode; scan its video again")
    return np.asarray(picture, np.uint8)


@dataclass(frozen=True, slots=True)
class Captions:
    """How captioning one clip ended. `caption` and the five `sub_captions` are set if status is `ok`, and only then.

    reason: why the status is not ok, else None. attempts: the largest number of tries of one step. requests: answers of a
    model in all, with their tokens. moves: the camera's measured movement in each of the five parts. model: the name of the
    model that wrote the captions, prompts and seed: its prompts and seed, protocol: see `Captioner.protocol`; these four
    are set by `Captioner.caption`. fault: the kind of the fault of the world that caused an error (an endpoint that is
    away), else None. more: further texts of an ok clip, by their column of the captions manifest.
    """

    clip_id: str
    status: Status
    reason: str | None = None
    caption: str | None = None
    sub_captions: tuple[str, ...] | None = None
    attempts: int = 1
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    moves: tuple[str, ...] | None = None
    model: str = ""
    prompts: str | None = None
    seed: int | None = None
    protocol: str = ""
    fault: str | None = None
    more: Mapping[str, str] = field(default_factory=dict)


def failed(clip_id: str, error: Exception | str, attempts: int = 1) -> Captions:
    """The result of a clip without captions. A CaptionError brings its status; anything else is an error."""
    status = error.status if isinstance(error, CaptionError) else Status.ERROR
    text = str(error) if isinstance(error, CaptionError | str) else f"{type(error).__name__}: {error}"
    # A reason goes into a table and onto a terminal, and may quote text from an untrusted source.
    printable = "".join(c if c.isprintable() else " " for c in text[:MAX_REASON])
    reason = " ".join(printable.split()) or "no reason was given"
    return Captions(clip_id, status, reason, attempts=attempts, fault=getattr(error, "fault", None))


def checked(result: Captions) -> Captions:
    """`result` with cleaned captions if they pass every check, else without captions and with what is wrong."""
    if result.status != Status.OK:
        reason = result.reason or "no reason was given"
        return replace(result, reason=reason, caption=None, sub_captions=None, more={})
    try:
        caption, sub_captions = check_captions(result.caption, result.sub_captions)
    except CaptionError as error:
        wrong = failed(result.clip_id, error)
        return replace(result, status=wrong.status, reason=wrong.reason, caption=None, sub_captions=None, more={})
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
    by_clip: dict[str, list[Captions]] = {clip_id: [] for clip_id in ids}
    foreign = 0
    for result in results:
        if result.clip_id in by_clip:
            by_clip[result.clip_id].append(result)
        else:
            foreign += 1
    note = f"; {foreign} results belonged to no clip of the batch" if foreign else ""
    if foreign:
        log.warning("captioning %d clips: dropped %d results that belonged to no clip of the batch", len(ids), foreign)

    nothing = missing if missing is not None else f"the captioner gave this clip no result{note}"

    def only(clip_id: str) -> Captions:
        match by_clip[clip_id]:
            case [result]:
                return result
            case []:
                return failed(clip_id, nothing)
            case several:
                return failed(
                    clip_id, f"the captioner gave this clip {len(several)} results; which is right is not known"
                )

    return [only(clip_id) for clip_id in ids]


@dataclass(frozen=True, slots=True)
class Running:
    """How a captioner is to be run. workers: the largest number of workers (None: one per core or GPU). at_once: batches
    that one worker has at a time, each in a thread of its own. on_gpu: each worker takes a GPU, if the cluster has any.
    batch: clips of a batch. on_driver: the captioner runs in the process that started the run, since it starts workers
    itself. clip_seconds: seconds of CPU for a clip, estimated."""

    workers: int | None = None
    at_once: int = 1
    on_gpu: bool = False
    batch: int = 16
    on_driver: bool = False
    clip_seconds: float = 0.2


@dataclass(frozen=True, slots=True)
class Spent:
    """The work of a captioner's models so far. busy_seconds: the share of the allowed requests that was under way, summed
    over time. requests, tokens: those of answers."""

    busy_seconds: float = 0.0
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def __sub__(self, other: Spent) -> Spent:
        return Spent(*(getattr(self, name) - getattr(other, name) for name in self.__slots__))


class Captioner(ABC):
    """One way to caption. A subclass sets `name`, `model` and `protocol`, and writes `write_one`, or `write` where
    batching pays. Settings are keyword arguments of `__init__`, which raises ValueError if one is wrong, and does nothing
    that takes time. Where it has a `settings_model`, they are checked by it before, with everything else in a recipe.

    The stage sets these: journal keeps paid answers until a clip's row is stored; similarity gives the likeness of
    neighbouring sub-captions of several clips; similarity_limit is the likeness from which on a gate rejects them. Each may
    be None.
    """

    name: ClassVar[str]
    settings_model: ClassVar[type[BaseModel] | None] = None
    # How many keyframes of a clip it has to see; None: any number.
    keyframes: ClassVar[int | None] = SUB_CAPTIONS
    standards = Standards()
    journal: Journal | None = None
    similarity: Callable[[list[tuple[str, ...]]], list[Sequence[float]]] | None = None
    similarity_limit: float | None = None

    @property
    def model(self) -> str:
        """The name of the model that writes the captions, for the captions manifest."""
        return self.name

    @property
    @abstractmethod
    def protocol(self) -> str:
        """Everything that would make old captions stale when it changes: method, model, weights, prompts, settings."""

    @property
    def running(self) -> Running:
        """How it wants to be run."""
        return Running()

    @property
    def least_requests(self) -> int:
        """Requests to a model that the captions of a clip take where every answer can be used; 0: it asks none."""
        return 1

    @property
    def spent(self) -> Spent:
        """What its models did since it was made."""
        return Spent()

    @property
    def prompts(self) -> tuple[str, ...]:
        """The texts that a model is shown, whose words no caption may echo."""
        return ()

    @property
    def prompt_version(self) -> str | None:
        """The name and version of the prompts."""
        return None

    @property
    def seed(self) -> int | None:
        """The seed of every random choice."""
        return None

    @property
    def resolved(self) -> dict[str, Any] | None:
        """Its settings with what it took from the environment, secrets aside: for workers on other machines. None: as
        they were given."""
        return None

    def check(self) -> None:  # noqa: B027
        """Raises CaptionerFault if this machine cannot caption: a setting or the model is missing, or the endpoint does not
        answer."""

    def examine(self) -> list[str]:
        """As `check`, for `longtake doctor`, which sends no secret. Gives a sentence for each address, on the data that a
        run would send to it."""
        self.check()
        return []

    def permit(self, permission: Permission) -> None:  # noqa: B027
        """Set the hosts that it may send pictures and a key to; the driver passes this on to its workers. Without a call,
        this user's own configuration counts (longtake.captioning.permission)."""

    def share(self, run: str, allowances: Callable[[str], Allowing]) -> None:  # noqa: B027
        """Set the run that it works for, and the allowance of each endpoint, by its address, which all workers and runs
        share (longtake.captioning.allowance). Without a call, this captioner has its limits alone."""

    def close(self) -> None:  # noqa: B027
        """End the work: no further request is sent, answers to requests under way are stored in the journal, and callers
        that wait for captions get a CaptionerFault."""

    def caption(self, batch: Sequence[ClipFrames]) -> list[Captions]:
        """One checked result per clip, in order. A clip that cannot be captioned gets a status and a reason, and leaves
        the others alone. Raises ValueError if the batch holds a clip twice, and CaptionerFault if no clip can be
        captioned any more. Not for subclasses to change.
        """
        results: list[Captions] = []
        failure: Exception | None = None
        try:
            for result in self.write(batch):
                results.append(checked(result))
        except CaptionerFault:
            raise
        except Exception as error:  # Captions that were written before the failure stay good.
            log.exception("the captioner %s failed on a batch of %d clips", self.name, len(batch))
            failure = error
        matched = match_to_clips(batch, results, failure)
        signed = {
            "model": self.model,
            "prompts": self.prompt_version,
            "seed": self.seed,
            "protocol": self.protocol,
        }
        return [replace(result, **signed) for result in matched]  # type: ignore[arg-type]

    def write(self, batch: Sequence[ClipFrames]) -> Iterable[Captions]:
        """Unchecked results, in any order, each with the id of its clip."""
        for clip in batch:
            try:
                yield self.write_one(clip)
            except CaptionerFault:
                raise
            except Exception as error:
                yield failed(clip.clip_id, error)

    def write_one(self, clip: ClipFrames) -> Captions:
        """The unchecked captions of one clip. Raises CaptionError if there can be none."""
        raise NotImplementedError(f"{type(self).__name__} writes in batches only")


def check_frames(clip: ClipFrames) -> None:
    """Raises CaptionError unless the frames decode, are of one size, and each partner follows its keyframe."""
    check_times(clip)
    if clip.keyframes.shape != clip.partners.shape:
        raise CaptionError(
            f"keyframes {list(clip.keyframes.shape)} and partners {list(clip.partners.shape)} differ in size"
        )


def check_times(clip: ClipFrames) -> None:
    """Raises CaptionError unless each partner follows its keyframe."""
    if not len(clip.encoded_keyframes) == len(clip.encoded_partners) == SUB_CAPTIONS:
        counts = f"{len(clip.encoded_keyframes)} and {len(clip.encoded_partners)}"
        raise CaptionError(f"{SUB_CAPTIONS} keyframes and as many partners are needed, not {counts}")
    gaps = np.asarray(clip.partner_times) - np.asarray(clip.times)
    if gaps.shape != (SUB_CAPTIONS,) or not np.all(np.isfinite(gaps) & (gaps > 0)):
        raise CaptionError(f"each partner must follow its keyframe; the gaps are {gaps.tolist()} seconds")
