"""A small picture of any clip, for the studio and the report: its stored strip, or frames of its source, read when they are asked
for. What decodes is imported then, too: the studio begins without it."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from longtake.curation.access import Access, Source
from longtake.curation.clip_table import rows_of
from longtake.curation.errors import RowError, is_of_the_world
from longtake.curation.workspace import Workspace
from longtake.manifests.folder import local_path
from longtake.manifests.frames import StoredFrames, StoredStrip, read_frames, read_strips
from longtake.manifests.members import file_of

if TYPE_CHECKING:
    from longtake.curation.reading.sandbox import Sandbox

# The columns of a clip's row that its pictures need.
OF_A_CLIP = ("clip_id", "video_id", "uri", "start", "end")
KEYFRAMES = 5  # Pictures of a clip that is read from its source.
SOURCE_SECONDS = (
    6.0  # The time for reading one clip from its source; the strip then shows the frames that were decoded by then.
)
_MARGIN_SECONDS = 4.0  # The further time for opening a source. After it the decoder is stopped.
_MEMORY_MIB = 2048  # The memory limit of the decoder.
# The number of clips whose sources may be waited for at a time. A further question is refused at once, so that a page with many
# such clips leaves threads to its server.
WAITING = 8
REMEMBERED = 2000  # Clips whose strips stay in memory: some 25 MB.


@dataclass(frozen=True, slots=True)
class Strip:
    """A clip's keyframes side by side. jpeg: as many pictures, all of one width, as there are times, in seconds of the video.
    stored: by the scan; else it was read out of the source now."""

    jpeg: bytes
    times: list[float]
    stored: bool


@dataclass(frozen=True, slots=True)
class NoStrip:
    """Why there is no picture of a clip, in a sentence. again: whether asking once more may help, since others are waited for."""

    why: str
    again: bool = False


class Pictures:
    """The strips of a workspace's clips. Any thread may ask; close it at the end. access: what lets this command in at remote
    sources (None: what the environment gives). Those asked for last are remembered."""

    def __init__(self, workspace: Workspace, access: Access | None = None, seconds: float = SOURCE_SECONDS) -> None:
        """seconds: that a source is read for one clip."""
        self._workspace, self._access, self._seconds = workspace, access, seconds
        self._lock, self._reading = threading.Lock(), threading.Lock()
        self._waiting = threading.BoundedSemaphore(WAITING)
        self._sandbox: Sandbox | None = None
        self._needing: set[str] | None = None
        self._known: OrderedDict[str, Strip | NoStrip] = OrderedDict()

    def strip_of(self, clip: Mapping[str, Any], sources: bool = True) -> Strip | NoStrip:
        """The strip of a clip. clip: OF_A_CLIP of its row. sources: whether its source may be read if no strip is stored, which
        takes seconds."""
        known = self._remembered(clip["clip_id"])
        strip = known or self._stored(clip)
        if strip is None and not sources:
            return NoStrip("No picture of this clip is stored.", again=True)
        if strip is None:
            if not self._waiting.acquire(blocking=False):
                return NoStrip("Other sources are being read: ask again in a moment.", again=True)
            try:
                with self._reading:
                    strip = self._remembered(clip["clip_id"]) or self._read(clip)
            finally:
                self._waiting.release()
        if isinstance(strip, Strip) or not strip.again:
            with self._lock:
                self._known[clip["clip_id"]] = strip
                self._known.move_to_end(clip["clip_id"])
                while len(self._known) > REMEMBERED:
                    self._known.popitem(last=False)
        return strip

    def _remembered(self, clip_id: str) -> Strip | NoStrip | None:
        with self._lock:
            return self._known.get(clip_id)

    def forget(self) -> None:
        """Forget what is remembered of the workspace, which has changed."""
        with self._lock:
            self._known.clear()
            self._needing = None

    def close(self) -> None:
        """End the process that reads sources."""
        with self._reading:
            if self._sandbox is not None:
                self._sandbox.close()
            self._sandbox = None

    def _stored(self, clip: Mapping[str, Any]) -> Strip | None:
        """What the scan stored, or what is made of a sample that a version without strips stored."""
        place = self._workspace.path, clip["video_id"], [clip["clip_id"]]
        try:
            strip = read_strips(*place).get(clip["clip_id"])
            if strip is None:
                strip = _strip_of_sample(read_frames(*place).get(clip["clip_id"]))
            return Strip(strip.jpeg, strip.times, True) if strip else None
        except (OSError, pa.ArrowException, RowError):
            return None

    def _read(self, clip: Mapping[str, Any]) -> Strip | NoStrip:
        """Out of the source."""
        uri = clip["uri"]
        if _is_gone(uri):
            return NoStrip("No picture of this clip is stored, and its source is not there.")
        from longtake.curation.reading.sampling import Span
        from longtake.curation.reading.strips import strip_of_source

        source = self._source(uri)
        try:
            self._require_scanned(source, clip["video_id"])
            job = source, Span(clip["start"], clip["end"]), KEYFRAMES, self._seconds
            strip: StoredStrip = self._run(strip_of_source, job)
        except RowError as error:
            slow = error.kind in ("timeout", "timed_out")
            limit = self._seconds + _MARGIN_SECONDS
            said = f"it gave none in {limit:g} s" if slow else source.redact(str(error)).rstrip(".")
            why = f"No picture of this clip is stored, and its source cannot be shown: {said}."
            return NoStrip(why, again=is_of_the_world(error.kind))
        return Strip(strip.jpeg, strip.times, False)

    def changed(self, clip: Mapping[str, Any]) -> str | None:
        """Why the source of a clip is not to be played, in a sentence: it is another film than the one that was scanned, or that
        cannot be seen soon enough. None: it is the same, as far as is known, or cannot be opened. clip: OF_A_CLIP of its row."""
        source = self._source(clip["uri"])
        try:
            with self._reading:
                self._require_scanned(source, clip["video_id"])
        except RowError as error:
            if error.kind == "changed":
                return source.redact(str(error)).rstrip(".") + "."
            if error.kind in ("timeout", "timed_out"):
                return "Its file may have changed since it was scanned, and takes too long to be read and compared."
        return None

    def _require_scanned(self, source: Source, video_id: str) -> None:
        """Raises RowError if a source is not the film that was scanned, as far as is known, or cannot be looked at."""
        from longtake.curation.reading.same_film import OF_THE_SCAN, require_source_scanned

        for scanned in rows_of(self._workspace.videos, pa.array([video_id]), OF_THE_SCAN).to_pylist():
            self._run(require_source_scanned, (source, scanned, self._seconds + _MARGIN_SECONDS))

    def _run(self, function: Callable[..., Any], job: tuple[Any, ...]) -> Any:
        """The result of what decodes, from the process that does so. Raises RowError."""
        from longtake.curation.reading.sandbox import Limits, Sandbox

        self._sandbox = self._sandbox or Sandbox()
        return self._sandbox.run(function, job, Limits(self._seconds + _MARGIN_SECONDS, _MEMORY_MIB))

    def _source(self, uri: str) -> Source:
        self._access = self._access or Access.load()
        return self._access.source(uri, self.needs_access(uri))

    def needs_access(self, uri: str) -> bool:
        """Whether a video's URI had a user, a password or a signature when it was listed."""
        if (needing := self._needing) is None:
            inputs = self._workspace.inputs.read(["uri", "needs_access"])
            needs = pc.fill_null(pc.equal(inputs["needs_access"], True), False)
            needing = self._needing = set(inputs["uri"].filter(needs).to_pylist())
        return uri in needing


def _is_gone(uri: str) -> bool:
    """Whether a film of this machine is not there. Of all else the reader tells."""
    path = local_path(file_of(uri))
    try:
        return path is not None and not os.path.exists(path)
    except ValueError:  # The name has a NUL.
        return True


def _strip_of_sample(stored: StoredFrames | None) -> StoredStrip | None:
    from longtake.curation.reading.samples import load_sample
    from longtake.curation.reading.strips import strip_of_pictures

    return None if stored is None else strip_of_pictures(load_sample(stored).keyframes, stored.times)


def parts_of(strip: Strip, quality: int = 72) -> list[bytes]:
    """The pictures of a strip one by one, as JPEGs of this quality; none if it does not decode."""
    import cv2

    whole = cv2.imdecode(np.frombuffer(strip.jpeg, np.uint8), cv2.IMREAD_COLOR)
    if whole is None or whole.shape[1] % len(strip.times):
        return []
    parts = np.split(np.asarray(whole), len(strip.times), axis=1)
    return [bytes(cv2.imencode(".jpg", part, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]) for part in parts]


def strip_of(workspace: Workspace, clip: Mapping[str, Any], access: Access | None = None) -> Strip | NoStrip:
    """The strip of one clip; of many, ask a `Pictures`. clip: OF_A_CLIP of its row."""
    pictures = Pictures(workspace, access)
    try:
        return pictures.strip_of(clip)
    finally:
        pictures.close()
