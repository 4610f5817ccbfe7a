"""Ids against RFC 9562's version 5, calculated by hand."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from longtake.manifests.ids import clip_id, video_id

# The namespace must never change: workspaces hold ids that were made with it.
NAMESPACE = bytes.fromhex("9d2f0c5e6c0b5f8e9a351f2c8a6f4b11")
uris = st.text(min_size=1).filter(lambda text: text.isprintable())
moments = st.integers(0, 10**8).map(lambda milliseconds: milliseconds / 1000)


def by_hand(name: str) -> str:
    digest = bytearray(hashlib.sha1(NAMESPACE + name.encode()).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x50
    digest[8] = digest[8] & 0x3F | 0x80
    return digest.hex()


@given(uris, moments, moments)
def test_ids_are_names_hashed_by_the_standard(uri: str, start: float, end: float) -> None:
    assert video_id(uri) == by_hand(uri)
    assert clip_id(uri, start, end) == by_hand(f"{uri}#{start:.3f}-{end:.3f}")


@given(uris, moments, moments, moments)
def test_a_millisecond_makes_another_clip_and_less_does_not(uri: str, start: float, end: float, shift: float) -> None:
    assert clip_id(uri, start, end) == clip_id(uri, start + 0.0002, end + 0.0002)
    if shift:
        assert clip_id(uri, start, end) != clip_id(uri, start, end + shift)
        assert clip_id(uri, start, end) != clip_id(uri, start + shift, end)
    assert clip_id(uri, start, end) != clip_id(uri + "x", start, end) != video_id(uri)


def test_whole_seconds_may_be_ints() -> None:
    assert clip_id("x", 0, 15) == clip_id("x", 0.0, 15.0)
    assert len(video_id("x")) == 32
