"""Captions that the corpus brings: an overall caption and five sub-captions, given with the source list.

They were written by strangers, so they pass the same checks as any model's answer.
"""

from __future__ import annotations

from typing import ClassVar

from longtake.captioning.base import Captioner, Captions, ClipFrames
from longtake.captioning.checks import CaptionError, Status


class Sidecar(Captioner):
    """Passes on `caption` and `sub_captions` (a list of exactly 5) of the clip's sidecar; other keys are not read.

    A clip without a sidecar, or with an overall caption only (as in Panda-70M), gets an error that says so: this
    captioner invents nothing.
    """

    name: ClassVar[str] = "sidecar"
    keyframes: ClassVar[int | None] = None

    @property
    def protocol(self) -> str:
        return "sidecar/1"

    @property
    def least_requests(self) -> int:
        return 0

    def write_one(self, clip: ClipFrames) -> Captions:
        if clip.sidecar is None:
            raise CaptionError("the source list brings no captions for this clip")
        if not isinstance(clip.sidecar, dict):
            raise CaptionError(f"the captions from the source list are no table but {type(clip.sidecar).__name__}")
        caption, sub_captions = clip.sidecar.get("caption"), clip.sidecar.get("sub_captions")
        if sub_captions is None:
            raise CaptionError("five sub-captions are missing: the source list brings an overall caption at most")
        return Captions(clip.clip_id, Status.OK, caption=caption, sub_captions=sub_captions)
