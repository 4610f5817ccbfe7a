"""Splits: by video, by its id alone, in about the share that was asked for."""

from __future__ import annotations

import hashlib

import pytest

from longtake.curation.recipe import Export, RecipeError, load_recipe, parse_recipe
from longtake.manifests.dataset.splits import split_of

IDS = [hashlib.sha256(str(i).encode()).hexdigest()[:32] for i in range(20_000)]


def test_shares_are_about_as_asked() -> None:
    shares = {"validation": 0.01, "test": 0.05}
    found = [split_of(video, shares) for video in IDS]
    assert found.count("validation") / len(IDS) == pytest.approx(0.01, abs=0.003)
    assert found.count("test") / len(IDS) == pytest.approx(0.05, abs=0.006)
    assert found.count("train") == len(IDS) - found.count("validation") - found.count("test")


def test_a_video_stays_where_it_is() -> None:
    """Nothing else of the corpus has a say, and a larger share takes none away."""
    small = {video for video in IDS if split_of(video, {"validation": 0.01}) == "validation"}
    large = {video for video in IDS if split_of(video, {"validation": 0.02}) == "validation"}
    assert small < large
    assert split_of(IDS[0], {}) == "train"


@pytest.mark.parametrize("split", [{"train": 0.5}, {"a b": 0.1}, {"validation": 1.0}, {"validation": 0}])
def test_impossible_splits_are_refused(split: dict[str, float]) -> None:
    data = load_recipe("base").model_dump()
    with pytest.raises(RecipeError, match="split"):
        parse_recipe({**data, "export": {"split": split}}, source="a test")


def test_a_split_encodes_no_clip_anew() -> None:
    data = load_recipe("base").model_dump()
    other = parse_recipe({**data, "export": {**data["export"], "split": {"validation": 0.01}}}, source="a test")
    assert other.export_protocol == load_recipe("base").export_protocol
    assert Export().split == {}
