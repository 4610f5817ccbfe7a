"""The method `joint` against the counting server: what a clip costs, what is asked again, and that no text moves."""

from __future__ import annotations

import json
import random
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from longtake.captioning import endpoint
from longtake.captioning.base import Captions, ClipFrames
from longtake.captioning.chat import CaptionerFault
from longtake.captioning.checks import Status
from longtake.captioning.journal import Journal
from longtake.captioning.permission import Permission, host_of
from longtake.captioning.registry import make_captioner
from longtake.manifests.folder import Folder
from tests.captioning.server import Ask, Reply, Server, good, number_in, told
from tests.captioning.test_endpoint import FAULTS, clips, is_own

Script = Callable[[Ask], Reply]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "FIRST_PAUSE", 0.01)
    for name in (endpoint.ENDPOINT, endpoint.MODEL, endpoint.KEY, endpoint.KEY_FILE):
        monkeypatch.delenv(name, raising=False)


def captioned(
    server: Server, batch: list[ClipFrames], journal: Journal | None = None, **settings: Any
) -> list[Captions]:
    captioner = make_captioner("openai", {"endpoint": server.url, "model": "tiny", **settings})
    captioner.journal = journal
    captioner.permit(Permission(hosts=frozenset([host_of(server.url)])))
    try:
        return captioner.caption(batch)
    finally:
        captioner.close()


def spoiled(step: str, key: str, text: object, times: int = 1) -> Script:
    """A server whose first answers have `text` under a key."""

    def script(ask: Ask) -> Reply:
        answer: dict[str, object] = dict(told(ask))
        if ask.step == step and key in answer and ask.nth < times:
            answer[key] = text
        return Reply(json.dumps(answer))

    return script


def test_a_clip_takes_two_questions_and_at_most_5000_prompt_tokens() -> None:
    with Server() as server:
        results = captioned(server, clips(20, first=300))
        asked = server.asked
        tokens, cached = server.cache.prompt_tokens, server.cache.cached_tokens
    assert all(map(is_own, results))
    assert {(r.requests, r.attempts) for r in results} == {(2, 1)}
    assert Counter(ask.step for ask in asked) == {"watch": 20, "tell": 20}
    assert tokens / 20 <= 5_000
    assert cached / 20 >= 160, "the instructions are the same for all clips, and stand before the pictures"
    of_one = [ask for ask in asked if ask.tag == "clip300"]
    watch, tell = of_one
    assert [number_in(image) for image in watch.images] == [300] * 5
    assert len(set(watch.images)) == 5
    assert not tell.images
    assert watch.body["messages"][0] == tell.body["messages"][0], "one system text for both"
    content = watch.body["messages"][1]["content"]
    assert [part["type"] for part in content] == ["image_url"] * 5 + ["text"], "what changes comes last"
    answer = told(watch)
    assert list(answer) == [*(f"keyframe_{i}" for i in range(1, 6)), "caption"]
    assert all(text in tell.text for text in answer.values())
    assert tell.keys == tuple(f"part_{i}" for i in range(1, 6)), (
        "in order, so that what comes first sees nothing of the rest"
    )
    assert all("id-3" not in json.dumps(ask.body) for ask in asked), "no id leaves this machine"


@pytest.mark.parametrize(
    ("text", "told_it"),
    [
        ("I cannot describe people.", "part_3: it did not describe what is given"),
        ("A dog runs across...", "part_3: it was too long and was cut off"),
        ("", "part_3: it was no text that can be used"),
        (7, "part_3: it was no text that can be used"),
        ("The video shows a dog.", "part_3: it began with an introduction"),
        ("A dog runs.", "part_3: it had 3 words, not 20 to 80"),
    ],
)
def test_only_the_sub_caption_that_fails_is_asked_for_again(text: object, told_it: str) -> None:
    with Server(spoiled("tell", "part_3", text)) as server:
        (result,) = captioned(server, clips(1))
        again = server.asked[-1]
        first = next(ask for ask in server.asked if ask.step == "tell")
    assert is_own(result)
    assert (result.requests, result.attempts) == (3, 2)
    assert again.keys == ("part_3",)
    assert told_it in again.text
    assert again.text.startswith(first.text), "the prefix is cached"
    good_ones = told(first)
    assert all((f"{key}: {text}" in again.text) == (key != "part_3") for key, text in good_ones.items())
    assert result.sub_captions is not None
    assert [t == good_ones[f"part_{i}"] for i, t in enumerate(result.sub_captions, 1)] == [
        True,
        True,
        False,
        True,
        True,
    ]


def test_a_note_of_a_keyframe_that_fails_is_asked_for_by_itself_with_its_picture() -> None:
    def script(ask: Ask) -> Reply:
        if ask.step == "watch" and len(ask.images) == 5:
            return Reply(json.dumps({**told(ask), "keyframe_2": None, "keyframe_4": "I cannot describe people."}))
        return good(ask)

    with Server(script) as server:
        (result,) = captioned(server, clips(1))
        first, again, tell = server.asked
    assert is_own(result)
    assert (result.requests, result.attempts) == (3, 2)
    assert again.keys == ("keyframe_2", "keyframe_4")
    assert again.images == [first.images[1], first.images[3]], "a picture is most of what a question costs"
    assert "keyframe_2: it was no text that can be used; keyframe_4: it did not describe what is given" in again.text
    assert all(text in tell.text for text in told(again).values())


def test_an_overall_caption_that_fails_is_asked_for_again_with_all_pictures() -> None:
    with Server(spoiled("watch", "caption", None)) as server:
        (result,) = captioned(server, clips(1))
        asked = [(ask.keys, len(ask.images)) for ask in server.asked]
        cached = server.cache.cached_tokens
    assert is_own(result)
    assert asked[1] == (("caption",), 5)
    assert result.requests == 3
    assert cached > 3_400, "the pictures are computed once"


def test_where_one_text_in_fifty_cannot_be_used_a_clip_takes_at_most_5000_prompt_tokens() -> None:
    dice = random.Random(0)

    def script(ask: Ask) -> Reply:
        return Reply(
            json.dumps({k: "A text that breaks off..." if dice.random() < 0.02 else t for k, t in told(ask).items()})
        )

    with Server(script) as server:
        results = captioned(server, clips(100))
        tokens, requests = server.cache.prompt_tokens, server.cache.requests
    assert all(map(is_own, results))
    assert 210 <= requests <= 240, "there was something to ask again"
    assert tokens / 100 <= 5_000


def test_a_model_that_repeats_all_of_its_answer_is_read_where_it_was_asked() -> None:
    """A server that holds a model to no schema: asked for one part, it writes five, of which four are not looked at."""

    def script(ask: Ask) -> Reply:
        if ask.step != "tell":
            return good(ask)
        every = told(replace(ask, keys=tuple(f"part_{i}" for i in range(1, 6))))
        return Reply(json.dumps({**every, "part_2": "..."} if ask.nth == 0 else every))

    with Server(script) as server:
        (result,) = captioned(server, clips(1))
        first = told(replace(server.asked[1], nth=0))
    assert is_own(result)
    assert result.requests == 3
    assert [text == first[f"part_{i}"] for i, text in enumerate(result.sub_captions or (), 1)] == [
        True,
        False,
        True,
        True,
        True,
    ]


@pytest.mark.parametrize("step", ["watch", "tell"])
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("a refusal in JSON", "sub-caption 2: the model refused|keyframe 2: the model refused"),
        ("another clip's id", "must have the keys"),
        ("four captions", "must have the keys"),
    ],
)
def test_a_text_that_stays_bad_costs_its_clip_and_says_which(step: str, name: str, reason: str) -> None:
    key = "keyframe_2" if step == "watch" else "part_2"

    def script(ask: Ask) -> Reply:
        if ask.step != step or ask.tag != "clip1":
            return good(ask)
        if name == "a refusal in JSON":
            return Reply(json.dumps({**told(ask), key: "I cannot describe people."}))
        return FAULTS[name][0]

    with Server(script) as server:
        results = captioned(server, clips(3))
        asked = Counter(ask.tag for ask in server.asked)
    assert [r.status == Status.OK for r in results] == [True, False, True]
    assert results[1].status == (Status.REFUSED if "refusal" in name else Status.ERROR)
    assert any(part in (results[1].reason or "") for part in reason.split("|"))
    assert results[1].caption is results[1].sub_captions is None
    assert asked == {"clip0": 2, "clip1": 3 if step == "watch" else 4, "clip2": 2}


def in_joint(fault: Reply, ask: Ask) -> Reply:
    """A fault of an answer with one text as a fault of the third text of this answer."""
    try:
        found = json.loads(fault.text)
    except ValueError:
        return fault
    if not isinstance(found, dict) or set(found) != {"caption"}:
        return fault
    text = found["caption"]
    if "Describe what" in str(text):
        text = "Say nothing that the keyframes do not show, in 20 to 80 words: first the main subject."
    return replace(fault, text=json.dumps({**told(ask), ask.keys[min(2, len(ask.keys) - 1)]: text}))


def test_every_kind_of_fault_is_survived_once_and_ends_as_documented_if_it_stays() -> None:
    """Clip n has the nth fault, in the first question or the second, once or for ever. (A hang and a 429 that stays take
    their time: the client is tested with them.)"""
    cases = [
        (name, step, stays)
        for name in FAULTS
        if name not in ("a hang", "429")
        for step, stays in (("watch", True), ("tell", True), ("watch", False), ("tell", False))
    ]

    def script(ask: Ask) -> Reply:
        name, step, stays = cases[int(ask.tag.removeprefix("clip"))]
        return in_joint(FAULTS[name][0], ask) if ask.step == step and (stays or ask.nth == 0) else good(ask)

    with Server(script) as server:
        results = captioned(server, clips(len(cases)), request_tries=2, concurrency=64)
    for case, result in zip(cases, results, strict=True):
        name, _, stays = case
        if stays:
            assert result.status == FAULTS[name][1], (case, result.reason)
            assert result.reason, case
            assert result.caption is None
        else:
            assert result.status == Status.OK, (case, result.reason)
            assert is_own(result)
            assert result.attempts >= 2, case


def test_no_caption_moves_whatever_the_order_delays_and_retries() -> None:
    """Shuffled batches from several threads, random delays, answers out of order, faults of all kinds on the way."""
    rng = random.Random(11)
    lock = threading.Lock()

    def unruly(ask: Ask) -> Reply:
        with lock:
            dice, delay = rng.random(), rng.random() * 0.08
            key = rng.choice(ask.keys)
        if ask.nth == 0 and dice < 0.3:
            return rng.choice(
                [
                    Reply(status=500),
                    Reply(status=429, headers={"Retry-After": "0"}),
                    Reply("not json", delay=delay),
                    Reply(json.dumps({**told(ask), key: "..."})),
                    Reply(json.dumps({k: v for k, v in told(ask).items() if k != key})),
                    Reply(json.dumps({k: told(ask)[k] for k in rng.sample(ask.keys, len(ask.keys))})),
                    Reply("", finish="length"),
                ]
            )
        return Reply(good(ask).text, delay=delay)

    everything = clips(32)
    rng.shuffle(everything)
    results: list[Captions] = []
    with Server(unruly) as server:
        captioner = make_captioner("openai", {"endpoint": server.url, "model": "tiny", "concurrency": 24})
        threads = [
            threading.Thread(target=lambda part=part: results.extend(captioner.caption(everything[part::4])))  # type: ignore[misc]
            for part in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        captioner.close()
        again = sum(ask.nth > 0 for ask in server.asked)
    assert sorted(r.clip_id for r in results) == sorted(c.clip_id for c in everything)
    assert {r.status for r in results} == {Status.OK}
    assert all(map(is_own, results))
    assert again > 8, "there was something to survive"


def test_what_was_answered_is_not_asked_again(tmp_path: Path) -> None:
    journal = Journal(Folder(tmp_path))
    with Server(lambda ask: Reply(status=401) if ask.step == "tell" and ask.tag == "clip2" else good(ask)) as server:
        with pytest.raises(CaptionerFault):
            captioned(server, clips(4), journal, concurrency=2)
        server.script = spoiled("tell", "part_5", "A dog runs across...")
        results = captioned(server, clips(4), journal, concurrency=2)
        assert all(map(is_own, results))
        paid = sum(server.answered.values())
        assert max(server.answered["watch", 0, f"clip{n}"] for n in range(4)) == 1
        # The batch was not committed: all of it comes from the journal, the question about one part too.
        assert captioned(server, clips(4), journal, concurrency=2) == results
        assert sum(server.answered.values()) == paid


def test_a_ceiling_stops_the_run_and_only_what_is_in_flight_is_still_paid() -> None:
    with Server() as server:
        with pytest.raises(CaptionerFault, match="the token ceiling of this run is reached"):
            captioned(server, clips(30), concurrency=5, token_ceiling=2_200)
        paid = sum(server.answered.values())
    assert 20 <= paid < 25


def test_neighbours_that_are_alike_are_told_anew_and_no_others() -> None:
    alike = spoiled("tell", "part_3", "x")

    def script(ask: Ask) -> Reply:
        answer = json.loads(alike(ask).text)
        if ask.step == "tell" and ask.nth == 0:
            answer["part_3"] = answer["part_2"].upper()
        return Reply(json.dumps(answer))

    def similarities(batch: list[tuple[str, ...]]) -> list[Sequence[float]]:
        return [[float(a.lower() == b.lower()) for a, b in pairwise(t)] for t in batch]

    with Server(script) as server:
        captioner = make_captioner("openai", {"endpoint": server.url, "model": "tiny"})
        captioner.similarity, captioner.similarity_limit = similarities, 0.75
        (result,) = captioner.caption(clips(1))
        captioner.close()
        keys = [ask.keys for ask in server.asked]
    assert is_own(result)
    assert keys[2:] == [("part_3",)]
    assert "too much like the one before it" in server.asked[-1].text


def test_a_server_that_takes_no_schema_is_answered_as_well() -> None:
    def script(ask: Ask) -> Reply:
        return Reply(status=400, body=b"guided decoding is off") if "response_format" in ask.body else good(ask)

    with Server(script) as server:
        results = captioned(server, clips(3), concurrency=1)
    assert all(map(is_own, results))


def test_short_and_long_captions_and_facts_come_with_the_same_question() -> None:
    with Server() as server:
        (result,) = captioned(server, clips(1), lengths=["short", "long"], facts=True, style="release")
        watch, tell = server.asked
        tokens = server.cache.prompt_tokens
    assert is_own(result)
    assert result.requests == 2
    assert tokens <= 5_000
    assert set(result.more) == {
        "caption_short", "caption_long", "subject", "action", "place", "light", "camera", "shot_size",
    }  # fmt: skip
    assert result.more["shot_size"] == "wide shot"
    assert len(result.more["caption_short"]) < len(result.caption or "") < len(result.more["caption_long"])
    assert "each of 40 to 90 words" in tell.text
    schema = watch.body["response_format"]["json_schema"]["schema"]
    assert "pan left" in schema["properties"]["camera"]["enum"]


def test_a_fact_that_cannot_be_used_is_left_out_and_costs_no_question() -> None:
    with Server(spoiled("watch", "shot_size", "a nice one", times=9)) as server:
        (result,) = captioned(server, clips(1), facts=True)
    assert is_own(result)
    assert result.requests == 2
    assert "shot_size" not in result.more
    assert result.more["camera"] == "static"
