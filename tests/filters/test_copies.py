"""Groups of copies against a plain loop over all pairs, on hashes that differ by known numbers of bits."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from longtake.filters import copies
from longtake.filters.copies import Copies

Hashes = npt.NDArray[np.uint64]
NONE = np.uint64(0)


def random_hashes(count: int, rng: np.random.Generator, keyframes: int = 5) -> Hashes:
    return rng.integers(0, 2**64, (count, keyframes), dtype=np.uint64)


def flipped(hashes: Hashes, bits: int, rng: np.random.Generator) -> Hashes:
    """With so many bits of each hash turned round."""
    out = hashes.copy()
    for place in np.ndindex(out.shape):
        for bit in rng.choice(64, bits, replace=False):
            out[place] ^= np.uint64(1) << np.uint64(bit)
    return out


def groups(
    hashes: Hashes, known: npt.NDArray[np.bool_] | None = None, videos: object = None, streams: object = None
) -> tuple[list[int], list[float]]:
    count = len(hashes)
    owner, share = Copies().kept_instead(
        hashes,
        np.ones(hashes.shape, bool) if known is None else known,
        np.arange(count) if videos is None else np.asarray(videos),
        np.full(count, -1) if streams is None else np.asarray(streams),
    )
    return owner.tolist(), share.tolist()


@pytest.mark.parametrize("bits", [0, 1, 3, 5])
def test_copies_are_found_at_known_distances(bits: int) -> None:
    rng = np.random.default_rng(bits)
    first = random_hashes(200, rng)
    owner, share = groups(np.concatenate([first, flipped(first, bits, rng)]))
    assert owner == [-1] * 200 + list(range(200))
    assert share == pytest.approx([0.0] * 200 + [1 - bits / 64] * 200)


def test_what_is_beyond_the_bound_is_kept() -> None:
    rng = np.random.default_rng(0)
    first = random_hashes(300, rng)
    assert groups(np.concatenate([first, flipped(first, 9, rng)]))[0] == [-1] * 600


def test_groups_are_those_of_a_loop_over_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A chain is no group: who is near a copy is not near the kept one. Three keyframes are equal, so that no pair is missed."""
    monkeypatch.setattr(copies, "STARS", 1000)
    rng = np.random.default_rng(4)
    rows = [random_hashes(1, rng)]
    for _ in range(300):
        before = rows[rng.integers(len(rows))]
        rows.append(np.concatenate([flipped(before[:, :2], int(rng.integers(0, 12)), rng), before[:, 2:]], axis=1))
    hashes = np.concatenate(rows)[rng.permutation(301)]
    videos = rng.integers(0, 150, 301)
    expected: list[int] = []
    for i in range(301):
        bits = np.bitwise_count(hashes[:i] ^ hashes[i]).mean(axis=1)
        near = [k for k in range(i) if bits[k] <= 8 and expected[k] < 0 and videos[k] != videos[i]]
        expected.append(near[0] if near else -1)
    found, _ = groups(hashes, videos=videos)
    assert found == expected
    assert 20 < sum(of >= 0 for of in found) < 280


def test_clips_of_one_video_are_no_copies() -> None:
    """The windows of a still scene, and the same under another name."""
    rng = np.random.default_rng(1)
    still = np.repeat(random_hashes(1, rng), 3, axis=0)
    owner, _ = groups(np.concatenate([still, still]), videos=[0, 0, 0, 1, 1, 1])
    assert owner[:3] == [-1] * 3
    assert all(of in (0, 1, 2) for of in owner[3:])


def test_keyframes_without_a_hash_say_nothing_and_three_must_have_one() -> None:
    rng = np.random.default_rng(2)
    hashes = np.repeat(random_hashes(2, rng), 2, axis=0)
    hashes[1, 0] = hashes[3, 0] = NONE
    known = np.ones((4, 5), bool)
    known[[1, 3], 0] = False
    assert groups(hashes, known)[0] == [-1, 0, -1, 2]
    known[[1, 3], 1:3] = False
    assert groups(hashes, known)[0] == [-1] * 4


def test_equal_packets_are_copies_whatever_they_show() -> None:
    hashes = np.zeros((4, 5), np.uint64)
    owner, share = groups(hashes, np.zeros((4, 5), bool), videos=[0, 0, 1, 1], streams=[7, 8, 7, 8])
    assert owner == [-1, -1, 0, 1]
    assert share == [0.0, 0.0, 1.0, 1.0]


def test_nearly_all_of_many_are_found() -> None:
    rng = np.random.default_rng(3)
    first = random_hashes(3000, rng)
    owner, _ = groups(np.concatenate([first, flipped(first, 6, rng)]))
    found = sum(of == row for row, of in enumerate(owner[3000:]))
    assert owner[:3000] == [-1] * 3000
    assert found > 0.99 * 3000


def test_none_and_one() -> None:
    assert groups(np.zeros((0, 5), np.uint64)) == ([], [])
    assert groups(np.zeros((1, 5), np.uint64)) == ([-1], [0.0])
    assert Copies().protocol == "phash/bits<=8,best-first/mean"
    assert Copies(bits=4).protocol == "phash/bits<=4,best-first/mean"
