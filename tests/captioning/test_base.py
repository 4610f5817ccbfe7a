"""Identity: whatever a backend does, each clip gets one result, its own, in the order of the batch."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longtake.captioning.base import Captioner, Captions, ClipFrames, check_frames, match_to_clips
from longtake.captioning.chat import CaptionerFault
from longtake.captioning.checks import CaptionError, Status
from tests.captioning.frames import TIMES, clip_of
from tests.captioning.frames import flat_clip as clip


def answer(clip_id: str) -> Captions:
    """Captions that can be told from every other clip's."""
    return Captions(
        clip_id,
        Status.OK,
        caption=f"All of clip {clip_id}.",
        sub_captions=tuple(f"Clip {clip_id}, part {n}." for n in range(5)),
    )


def is_own(result: Captions) -> bool:
    return result.caption == f"All of clip {result.clip_id}."


class Scripted(Captioner):
    """A backend that does to its answers whatever a test wants."""

    name = "scripted"
    protocol = "scripted/1"

    def __init__(self, spoil: Callable[[list[Captions]], Iterable[Captions]]) -> None:
        self.spoil = spoil

    def write(self, batch: Sequence[ClipFrames]) -> Iterable[Captions]:
        return self.spoil([answer(clip.clip_id) for clip in batch])


@given(st.lists(st.integers(0, 999), unique=True, max_size=40), st.randoms(use_true_random=False))
def test_no_caption_moves_when_answers_come_in_any_order(numbers: list[int], rng: random.Random) -> None:
    ids = [f"c{number}" for number in numbers]
    results = Scripted(lambda answers: rng.sample(answers, len(answers))).caption([clip(i) for i in ids])
    assert [result.clip_id for result in results] == ids
    assert all(result.status == Status.OK and is_own(result) for result in results)


@given(
    st.lists(st.integers(0, 30), unique=True, min_size=1, max_size=20),
    st.lists(st.integers(0, 60), max_size=60),
)
@settings(max_examples=200)
def test_every_clip_is_accounted_for_whatever_comes_back(asked: list[int], came: list[int]) -> None:
    ids = [f"c{number}" for number in asked]
    results = Scripted(lambda _: [answer(f"c{number}") for number in came]).caption([clip(i) for i in ids])
    assert [result.clip_id for result in results] == ids
    for number, result in zip(asked, results, strict=True):
        if came.count(number) == 1:
            assert result.status == Status.OK
            assert is_own(result)
        else:
            assert result.status == Status.ERROR
            assert result.reason
            assert result.caption is None
            assert result.sub_captions is None


def test_missing_doubled_and_foreign_results_are_told_apart() -> None:
    batch = [clip("a"), clip("b"), clip("c")]
    results = match_to_clips(batch, [answer("c"), answer("b"), answer("c"), answer("stranger")])
    assert [result.status for result in results] == [Status.ERROR, Status.OK, Status.ERROR]
    assert "no result" in (results[0].reason or "")
    assert "1 results belonged to no clip" in (results[0].reason or "")
    assert "2 results" in (results[2].reason or "")


def test_a_batch_with_a_clip_twice_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="more than once: a"):
        match_to_clips([clip("a"), clip("b"), clip("a")], [])


def test_the_captioner_signs_every_result_with_its_model_and_protocol() -> None:
    results = Scripted(lambda answers: answers[:1]).caption([clip("a"), clip("b")])
    assert {(result.model, result.protocol) for result in results} == {("scripted", "scripted/1")}


def test_a_batch_that_breaks_in_the_middle_keeps_what_came_before() -> None:
    def breaks(answers: list[Captions]) -> Iterable[Captions]:
        yield answers[1]
        raise ConnectionError("the line\x00 is\ndead" + "!" * 1000)

    first, second, third = Scripted(breaks).caption([clip("a"), clip("b"), clip("c")])
    assert second.status == Status.OK
    assert is_own(second)
    for result in (first, third):
        assert result.status == Status.ERROR
        assert (result.reason or "").startswith("ConnectionError: the line is dead!")
        assert len(result.reason or "") <= 300


def test_one_clip_that_fails_leaves_the_others_alone() -> None:
    class Picky(Captioner):
        name = "picky"
        protocol = "picky/1"

        def write_one(self, clip: ClipFrames) -> Captions:
            if clip.clip_id == "bad":
                raise ZeroDivisionError("oh")
            if clip.clip_id == "no":
                raise CaptionError("it will not", Status.REFUSED)
            return answer(clip.clip_id)

    results = Picky().caption([clip("a"), clip("bad"), clip("no"), clip("z")])
    assert [result.status for result in results] == [Status.OK, Status.ERROR, Status.REFUSED, Status.OK]
    assert [result.reason for result in results] == [None, "ZeroDivisionError: oh", "it will not", None]


def test_a_fault_of_the_captioner_is_no_fault_of_a_clip() -> None:
    def stops(answers: list[Captions]) -> Iterable[Captions]:
        yield answers[0]
        raise CaptionerFault("the money is spent")

    with pytest.raises(CaptionerFault, match="money"):
        Scripted(stops).caption([clip("a"), clip("b")])


def test_no_captioner_gets_past_the_checks() -> None:
    bad = Captions("a", Status.OK, caption="Fine.", sub_captions=("Same.", "Same.", "x", "y", "z"))
    (result,) = Scripted(lambda _: [bad]).caption([clip("a")])
    assert result.status == Status.DUPLICATE
    assert result.caption is None
    assert result.sub_captions is None


def test_captions_of_a_result_that_is_not_ok_are_not_kept() -> None:
    cut = Captions("a", Status.TRUNCATED, caption="Half of", sub_captions=("a", "b", "c", "d", "e"), attempts=3)
    (result,) = Scripted(lambda _: [cut]).caption([clip("a")])
    assert (result.status, result.caption, result.sub_captions, result.attempts) == (Status.TRUNCATED, None, None, 3)
    assert result.reason


def test_frames_that_are_not_a_sample_are_refused() -> None:
    good = clip("a")
    check_frames(good)
    files = good.encoded_keyframes
    picture, smaller = np.zeros((36, 64, 3), np.uint8), np.zeros((18, 64, 3), np.uint8)
    wrong = [
        ClipFrames("a", files[:4], files[:4], TIMES, TIMES + 0.5),
        ClipFrames("a", [*files[:4], b""], files, TIMES, TIMES + 0.5),
        ClipFrames("a", files, [*files[:4], files[4][: len(files[4]) // 4]], TIMES, TIMES + 0.5),
        clip_of("a", [picture] * 5, [smaller] * 5),
        clip_of("a", [picture] * 4 + [smaller], [picture] * 5),
        clip("a", partner_times=TIMES),
        clip("a", partner_times=TIMES * np.nan),
    ]
    for frames in wrong:
        with pytest.raises(CaptionError):
            check_frames(frames)
