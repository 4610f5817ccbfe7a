"""Which split a clip belongs to: by its source video, never by clip, so that no two clips of one film lie on both sides; and by
a hash of the video's id alone, so that a video stays where it is as the corpus grows."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

REST = "train"  # The split of all videos that no share is named for.
SPLIT = "split"  # The column of the exported table.


def split_of(video_id: str, shares: Mapping[str, float]) -> str:
    """The split of a video. shares: split → share of the videos; their sum is below 1, and the rest is `train`.

    A video's place on the line from 0 to 1 is the first 8 bytes of a SHA-256 of its id. The splits divide the line from 0 on, in
    the order of their names. So the same shares always give the same splits; a single split whose share grows loses no video.
    """
    digest = hashlib.sha256(f"split {video_id}".encode()).digest()
    place, end = int.from_bytes(digest[:8], "big") / 2**64, 0.0
    for name, share in sorted(shares.items()):
        end += share
        if place < end:
            return name
    return REST
