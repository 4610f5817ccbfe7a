"""Near-duplicate captions: the groups against a loop over all pairs, and a corpus of the size that it is for."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longtake.captioning.checks import normalised
from longtake.captioning.copies import copies

WORDS = [f"w{i}" for i in range(400)]


def sequences(text: str) -> set[str]:
    words = normalised(text).split()
    return {" ".join(words[i : i + 3]) for i in range(max(1, len(words) - 2))}


def by_the_book(texts: list[str], threshold: float) -> list[int]:
    """Sizes of groups, by comparing each text with all leaders before it."""
    counts: dict[str, int] = {}
    for text in texts:
        counts[normalised(text)] = counts.get(normalised(text), 0) + 1
    leaders: list[str] = []
    of: dict[str, str] = {}
    for text in sorted(counts, key=lambda t: (-counts[t], t)):
        own = sequences(text)
        for leader in leaders:
            if len(own & sequences(leader)) / len(own | sequences(leader)) >= threshold:
                of[text] = leader
                break
        else:
            leaders.append(text)
            of[text] = text
    return [sum(n for t, n in counts.items() if of[t] == of[normalised(text)]) for text in texts]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 60))
def test_groups_are_those_of_a_loop_over_all_pairs(seed: int, count: int) -> None:
    """Texts that are either much alike or not at all: near the threshold, chance would have a say."""
    rng = random.Random(seed)
    stock = [" ".join(rng.choices(WORDS, k=60)) for _ in range(8)]
    texts = []
    for _ in range(count):
        words = rng.choice(stock).split()
        if rng.random() < 0.3:
            words[rng.choice([0, -1])] = rng.choice(WORDS)  # A change at an end changes one sequence of 58.
        text = " ".join(words)
        texts.append(rng.choice([text, text.upper(), f"{text}.", f" {text}!"]))
    sizes, first = copies(texts)
    assert sizes.tolist() == by_the_book(texts, 0.8)
    assert (sizes[first] == sizes).all()


def test_the_order_does_not_matter() -> None:
    rng = random.Random(1)
    stock = [" ".join(rng.choices(WORDS, k=30)) for _ in range(20)]
    texts = [f"{rng.choice(stock)} {rng.choice(WORDS)}" for _ in range(300)]
    sizes, first = copies(texts)
    order = rng.sample(range(300), 300)
    again, named = copies([texts[i] for i in order])
    assert again.tolist() == sizes[order].tolist()
    assert [texts[order[i]] for i in named] == [texts[first[i]] for i in order]


def test_four_thousand_times_the_same_and_short_and_foreign_texts() -> None:
    texts = (
        ["A wrong caption."] * 4000
        + ["犬", "犬。", "猫", "a b", "a", ""]
        + [f"caption number {i} of many" for i in range(50)]
    )
    sizes, first = copies(texts)
    assert sizes[:4000].tolist() == [4000] * 4000
    assert first[:4000].tolist() == [0] * 4000
    assert sizes[4000:4006].tolist() == [2, 2, 1, 1, 1, 1]
    assert set(sizes[4006:].tolist()) == {1}


def test_no_texts_and_no_threshold() -> None:
    assert copies([])[0].size == 0
    with pytest.raises(ValueError, match="threshold"):
        copies(["a"], 0)


def test_it_scales_with_the_texts_and_not_with_their_pairs() -> None:
    """20,000 texts are 200 million pairs: a loop over those would take minutes."""
    rng = np.random.default_rng(0)
    texts = [" ".join(WORDS[i] for i in row) for row in rng.integers(0, 400, (20_000, 40))]
    texts[10_000:10_100] = [f"{text} end" for text in texts[:100]]
    sizes, _ = copies(texts)
    assert (sizes == 2).sum() == 200
    assert (sizes == 1).sum() == 19_800
