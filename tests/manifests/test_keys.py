"""Keys as numbers, against sets and dicts of the keys themselves."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from longtake.manifests import keys as numbers
from longtake.manifests.keys import Index, Seen, hashed, newest

KEYS = st.lists(st.one_of(st.text(max_size=40), st.text("01", max_size=20), st.none()), max_size=30)


@given(KEYS, st.integers(0, 5), st.sampled_from([pa.string(), pa.large_string()]))
@settings(deadline=None)
def test_equal_keys_have_equal_numbers_and_others_do_not(keys: list[str | None], cut: int, kind: pa.DataType) -> None:
    whole = hashed(pa.array(keys, kind))
    in_pieces = hashed(
        pa.chunked_array([pa.array(["x" * cut, *keys[:cut]], kind).slice(1), pa.array(keys[cut:], kind)])
    )
    assert (whole == in_pieces).all()
    assert len(set(zip(*whole.tolist(), strict=True))) == len(set(keys))
    assert len(set(whole[0].tolist())) == len(set(keys))


def test_a_key_and_the_same_with_zeros_behind_it_differ() -> None:
    keys = ["", "\0", "\0\0", "a", "a\0", "a" * 8, "a" * 8 + "\0", "a" * 16, "b" + "a" * 15]
    assert len(set(hashed(pa.array(keys))[0].tolist())) == len(keys)


@given(KEYS, KEYS)
@settings(deadline=None)
def test_an_index_finds_what_a_dict_finds(there: list[str | None], asked: list[str | None]) -> None:
    there = list(dict.fromkeys(there))
    index = Index.of(pa.array(there, pa.string()))
    assert len(index) == len(there)
    places = {key: i for i, key in enumerate(there)}
    asked = [*asked, *there]
    assert index.find(pa.array(asked, pa.string())).tolist() == [places.get(key, -1) for key in asked]
    assert index.has(pa.array(asked, pa.string())).tolist() == [key in places for key in asked]


def test_keys_whose_first_halves_are_equal_are_told_by_the_second() -> None:
    hashes = np.array([[7, 7, 7, 9, 7], [1, 2, 1, 1, 3]], np.uint64)
    masks = numbers.newest_of([hashes[:, :2], hashes[:, 2:]])
    assert masks is not None
    assert [mask.tolist() for mask in masks] == [[False, True], [True, True, True]]
    index = Index(hashes[:, 1:])
    assert index.find_hashed(np.array([[7, 7, 7, 9, 8, 7], [2, 1, 3, 1, 1, 4]], np.uint64)).tolist() == [
        0,
        1,
        3,
        2,
        -1,
        -1,
    ]
    assert numbers.newest_of([hashes[:, 1:]]) is None


@given(st.lists(st.lists(st.text("ab", max_size=20), max_size=6), min_size=1, max_size=5))
@settings(deadline=None)
def test_newest_is_the_last_row_of_each_key(parts: list[list[str]]) -> None:
    masks = newest([pa.chunked_array([pa.array(part, pa.string())]) for part in parts])
    everything = [key for part in parts for key in part]
    expected = [key not in everything[i + 1 :] for i, key in enumerate(everything)]
    assert (masks is None) == all(expected)
    if masks is not None:
        assert [len(mask) for mask in masks] == [len(part) for part in parts]
        assert np.concatenate(masks).tolist() == expected


@given(st.lists(st.lists(st.text("abc", max_size=4), max_size=5), max_size=6))
@settings(deadline=None)
def test_seen_equals_a_set(steps: list[list[str]]) -> None:
    seen, model, all_of_them = Seen(), set[str](), pa.array([a + b for a in ["", *"abc"] for b in ["", *"abc"]])
    for step in steps:
        seen.update(step)
        model |= set(step)
        assert seen.has(all_of_them).tolist() == [key in model for key in all_of_them.to_pylist()]
    assert len(seen) == sum(map(len, steps))
