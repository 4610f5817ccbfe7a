"""The captioner `openai` against a scripted server on loopback: every fault ends as the docs say, every clip is accounted
for, nothing is paid beyond the ceilings, and the key is nowhere."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import re
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtake.captioning import endpoint
from longtake.captioning.answers import Wanted, read_answer
from longtake.captioning.base import Captions, ClipFrames
from longtake.captioning.chat import CaptionerFault, ChatAnswer, ChatRequest, Finish
from longtake.captioning.checks import CaptionError, Status
from longtake.captioning.completions import encoded, read_completion, seconds_of
from longtake.captioning.endpoint import Endpoint
from longtake.captioning.journal import Journal
from longtake.captioning.permission import Permission, host_of
from longtake.captioning.registry import make_captioner
from longtake.captioning.settings import KEY as KEY_VARIABLE
from longtake.captioning.settings import EndpointSettings
from longtake.manifests.folder import Folder
from tests.captioning.frames import clip_of, png
from tests.captioning.server import Ask, Reply, Server, good, number_in, picture

KEY = "sk-test-4f9c1b7e0d2a"
Script = Callable[[Ask], Reply]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "FIRST_PAUSE", 0.01)
    for name in (endpoint.ENDPOINT, endpoint.MODEL, endpoint.KEY, endpoint.KEY_FILE):
        monkeypatch.delenv(name, raising=False)


def clips(count: int, first: int = 0) -> list[ClipFrames]:
    numbers = range(first, first + count)
    pictures = {n: [picture(n, part) for part in range(5)] for n in numbers}
    return [clip_of(f"id-{n}", pictures[n], pictures[n]) for n in numbers]


def caption(script: Script, count: int = 1, journal: Journal | None = None, **settings: Any) -> list[Captions]:
    with Server(script) as server:
        return captioned(server, clips(count), journal, **settings)


def captioned(
    server: Server, batch: list[ClipFrames], journal: Journal | None = None, **settings: Any
) -> list[Captions]:
    chosen = {"endpoint": server.url, "model": "tiny", "method": "stepwise", **settings}
    captioner = make_captioner("openai", chosen)
    captioner.journal = journal
    captioner.permit(Permission(hosts=frozenset([host_of(server.url)])))
    try:
        return captioner.caption(batch)
    finally:
        captioner.close()


def is_own(result: Captions) -> bool:
    """Whether all of it was written for this clip's own pictures."""
    tag = f"Scene clip{result.clip_id.removeprefix('id-')},"
    assert result.caption is not None
    assert result.sub_captions is not None
    parts = [re.match(rf"{tag} refine {i}:", text) for i, text in enumerate(result.sub_captions, 1)]
    return result.caption.startswith(f"{tag} overall 0:") and all(parts)


# ── the good way ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_clip_takes_eleven_questions_and_each_step_sees_what_it_should() -> None:
    with Server() as server:
        (result,) = captioned(server, clips(1, first=300))
        asked = {(ask.step, ask.number): ask for ask in server.asked}
    assert result.status == Status.OK
    assert is_own(result)
    assert (result.requests, result.attempts, len(asked)) == (11, 1, 11)
    assert (result.prompt_tokens, result.completion_tokens) == (1100, 110)
    assert result.moves == ("static",) * 5
    told = {key: json.loads(good(ask).text)["caption"] for key, ask in asked.items()}
    overall = asked["overall", 0]
    assert [number_in(image) for image in overall.images] == [300] * 5
    assert len(set(overall.images)) == 5
    for part in range(1, 6):
        described = asked["describe", part]
        assert described.images == [overall.images[part - 1]]
        assert told["describe", part] in overall.text
        refined = asked["refine", part].text
        assert told["overall", 0] in refined
        assert told["describe", part] in refined
        for other in range(1, 6):
            # The request has the earlier texts, and none of the later ones.
            assert (told["refine", other] in refined) == (other < part)
            assert (told["describe", other] in refined) == (other == part)
    assert result.sub_captions == tuple(told["refine", part] for part in range(1, 6))
    body = asked["describe", 1].body
    assert body["model"] == "tiny"
    assert body["response_format"]["json_schema"]["schema"]["required"] == ["caption"]
    assert len({ask.body["seed"] for ask in asked.values()}) == 11
    assert all("id-300" not in json.dumps(ask.body) for ask in asked.values()), "no id leaves this machine"


def test_no_caption_moves_whatever_the_order_delays_and_retries() -> None:
    """Shuffled batches from several threads, random delays, answers out of order, faults of all kinds on the way."""
    rng = random.Random(7)
    lock = threading.Lock()

    def unruly(ask: Ask) -> Reply:
        with lock:
            dice, delay = rng.random(), rng.random() * 0.08
        if ask.nth == 0 and dice < 0.25:
            return rng.choice(
                [
                    Reply(status=500),
                    Reply(status=429, headers={"Retry-After": "0"}),
                    Reply("not json", delay=delay),
                    Reply(json.dumps({"caption": "..."})),
                    Reply("", finish="length"),
                ]
            )
        return Reply(good(ask).text, delay=delay)

    everything = clips(48)
    rng.shuffle(everything)
    results: list[Captions] = []
    with Server(unruly) as server:
        chosen = {"endpoint": server.url, "model": "tiny", "concurrency": 24, "seed": 3, "method": "stepwise"}
        captioner = make_captioner("openai", chosen)
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
        most = max(flying for _, flying in server.flying)
    assert sorted(r.clip_id for r in results) == sorted(c.clip_id for c in everything)
    assert {r.status for r in results} == {Status.OK}
    assert all(map(is_own, results))
    assert again > 50, "there was something to survive"
    assert 4 < most <= 24, "side by side, and no more than allowed"


def test_each_batch_comes_back_in_its_own_order() -> None:
    batch = clips(6)
    with Server(lambda ask: Reply(good(ask).text, delay=0.05 * (ask.tag == "clip0"))) as server:
        results = captioned(server, batch)
    assert [r.clip_id for r in results] == [c.clip_id for c in batch]


# ── faults ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def once(fault: Reply) -> Script:
    """The second keyframe's first answer is bad."""
    return lambda ask: fault if (ask.step, ask.number, ask.nth) == ("describe", 2, 0) else good(ask)


def said(**content: Any) -> Reply:
    return Reply(json.dumps(content))


HANG = 2.5  # Seconds: a good answer takes less, also on a busy machine.
LONG = Reply(body=b'{"choices": [{"message": {"content": "' + b"x" * 10_000_000 + b'"}}]}')
FAULTS: dict[str, tuple[Reply, Status, str]] = {
    "429": (Reply(status=429, headers={"Retry-After": "0.05"}), Status.ERROR, "HTTP 429"),
    "500": (Reply(status=500, body=b'{"error": {"message": "out of luck"}}'), Status.ERROR, "HTTP 500: out of luck"),
    "503, a page": (Reply(status=503, body=b"<html>\x00busy</html>"), Status.ERROR, "HTTP 503"),
    "a hang": (Reply(delay=30), Status.ERROR, f"no answer within {HANG:g} s"),
    "cut in the head": (Reply("x" * 500, cut=0), Status.ERROR, "the connection failed"),
    "cut in the middle": (Reply("x" * 500, cut=100), Status.ERROR, "the connection failed"),
    "an empty body": (Reply(body=b""), Status.ERROR, "no chat completion"),
    "no JSON": (Reply(body=b"hello"), Status.ERROR, "no chat completion"),
    "JSON of another kind": (Reply(body=b'{"choices": []}'), Status.ERROR, "no chat completion"),
    "deep JSON": (Reply(body=b"[" * 100_000), Status.ERROR, "no chat completion"),
    "10 MB": (LONG, Status.ERROR, "an answer of more than 256 KiB"),
    "a text that is no JSON": (Reply("A dog runs."), Status.ERROR, "the answer is no JSON: 'A dog runs.'"),
    "broken JSON": (Reply('{"caption": "A dog'), Status.ERROR, "the answer is no JSON"),
    "JSON cut at the limit": (Reply('{"caption": "A dog', finish="length"), Status.TRUNCATED, "cut off at its token limit"),
    "a text that breaks off": (said(caption="A dog runs across..."), Status.TRUNCATED, "was cut off"),
    "four captions": (said(sub_captions=["a", "b", "c", "d"]), Status.ERROR, 'one key "caption"'),
    "a list": (Reply('["a", "b", "c", "d", "e"]'), Status.ERROR, "not a list"),
    "another clip's id": (said(clip_id="id-1", caption="A dog runs."), Status.ERROR, "not the keys ['caption', 'clip_id']"),
    "a number": (said(caption=5), Status.ERROR, "no text but int"),
    "an empty text": (Reply(""), Status.ERROR, "an empty answer"),
    "an empty caption": (said(caption=" \n"), Status.ERROR, "is empty"),
    "control characters": (said(caption="A dog\x00 runs."), Status.ERROR, "U+0000"),
    "a lone surrogate": (Reply('{"caption": "A \\ud800 dog"}'), Status.ERROR, "U+D800"),
    "a novel": (said(caption="dog " * 5000), Status.ERROR, "over the limit of 2000"),
    "a refusal of the server": (Reply("", refusal="I cannot."), Status.REFUSED, "the model refused"),
    "a filter": (Reply("", finish="content_filter"), Status.REFUSED, "the model refused"),
    "a filter before the model": (
        Reply(status=400, body=b'{"error": {"message": "The response was filtered", "code": "content_filter", "status": 400}}'),
        Status.REFUSED,
        "the model refused",
    ),
    # OpenRouter says so of a question that it has looked through for a provider.
    "a filter before the provider": (
        Reply(status=403, body=b'{"error": {"code": 403, "message": "no", "metadata": {"flagged_input": "A dog"}}}'),
        Status.REFUSED,
        "the model refused",
    ),
    "an error in a good answer": (
        Reply(body=b'{"error": {"code": 502, "message": "the provider is away"}}'),
        Status.ERROR,
        "HTTP 502: the provider is away",
    ),
    "a refusal in words": (Reply("I'm sorry, but I can't help with that."), Status.REFUSED, "the model refused"),
    "a refusal in JSON": (said(caption="I cannot describe people."), Status.REFUSED, "the model refused"),
    "the prompt": (
        said(caption="Describe what this keyframe shows, in 20 to 80 words: first the main subject."),
        Status.ERROR,
        "it echoes the prompt",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_once_is_survived_and_counted(name: str) -> None:
    (result,) = caption(once(FAULTS[name][0]), timeout=HANG if name == "a hang" else 60)
    assert result.status == Status.OK, result.reason
    assert is_own(result)
    assert result.attempts == 2


def test_faults_that_stay_end_as_documented_and_cost_only_their_clip() -> None:
    """All at once: clip n has the nth fault at its second keyframe; every other clip is well."""
    names = list(FAULTS)

    def script(ask: Ask) -> Reply:
        number = int(ask.tag.removeprefix("clip"))
        if number % 2 == 0 and ask.step == "describe" and ask.number == 2:
            return FAULTS[names[number // 2]][0]
        return good(ask)

    results = caption(script, 2 * len(names), timeout=HANG, request_tries=2, patience=2.5 * HANG, concurrency=64)
    assert [r.clip_id for r in results] == [f"id-{n}" for n in range(2 * len(names))]
    for number, result in enumerate(results):
        if number % 2:
            assert result.status == Status.OK, (number, result.reason)
            assert is_own(result)
            continue
        _, status, reason = FAULTS[names[number // 2]]
        assert result.status == status, (names[number // 2], result)
        assert reason in (result.reason or ""), (names[number // 2], result.reason)
        assert (result.reason or "").startswith("keyframe 2")
        assert result.caption is None
        assert result.attempts >= 2


def test_retry_after_is_kept_by_everybody() -> None:
    """After the first 429 no request at all arrives before its time."""
    refused: list[float] = []
    arrived: list[float] = []
    lock = threading.Lock()

    def script(ask: Ask) -> Reply:
        with lock:
            arrived.append(time.monotonic())
            if not refused and len(arrived) == 20:
                refused.append(time.monotonic())
                return Reply(status=429, headers={"Retry-After": "1.5"})
        return Reply(good(ask).text, delay=0.02)

    assert {r.status for r in caption(script, 6, concurrency=4)} == {Status.OK}
    # The requests that were under way arrive, and then none does.
    early = [t for t in arrived if refused[0] + 0.2 < t < refused[0] + 1.4]
    assert not early


def test_requests_per_minute_are_kept() -> None:
    arrived: list[float] = []

    def script(ask: Ask) -> Reply:
        arrived.append(time.monotonic())
        return good(ask)

    caption(script, 2, requests_per_minute=1200)
    assert len(arrived) == 22
    assert arrived[-1] - arrived[0] >= 21 * 0.05 - 0.06


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (422, "Unexpected fields: {'response_format'}"),
        (400, "guided decoding is off"),
        (400, "Unsupported parameter: 'max_tokens' is not supported with this model."),
        (400, "seed: extra inputs are not permitted"),
    ],
)
def test_a_server_that_refuses_a_field_is_asked_without_it(status: int, told: str) -> None:
    def script(ask: Ask) -> Reply:
        wrong = next((name for name in ("max_tokens", "seed", "response_format") if name in told), "response_format")
        if wrong in ask.body:
            return Reply(status=status, body=json.dumps({"error": {"message": told}}).encode())
        if wrong == "max_tokens":
            assert ask.body["max_completion_tokens"] == 1024
        return good(ask)

    with Server(script) as server:
        (result,) = captioned(server, clips(1))
        refused = len(server.asked) - 11
    assert result.status == Status.OK
    assert result.attempts == 1
    assert refused <= 5, "asked once, and known from then on"


def test_a_bad_request_is_not_sent_again() -> None:
    def script(ask: Ask) -> Reply:
        return Reply(status=400, body=b'{"message": "picture too large"}') if ask.step == "overall" else good(ask)

    with Server(script) as server:
        (result,) = captioned(server, clips(1))
        asked = [ask for ask in server.asked if ask.step == "overall"]
    assert result.status == Status.ERROR
    assert result.reason == "the overall caption: HTTP 400: picture too large (sent 1 times)"
    assert len(asked) == 2, "with and without a schema"


def test_a_request_that_is_bad_for_itself_costs_the_others_no_field() -> None:
    """One picture that a server did not take, and no clip of its worker was asked with a schema from then on."""

    def script(ask: Ask) -> Reply:
        return Reply(status=400, body=b'{"message": "no such picture"}') if ask.tag == "clip0" else good(ask)

    with Server(script) as server:
        bad, *others = captioned(server, clips(4), concurrency=1)
        last = server.asked[-1]
    assert (bad.status, {other.status for other in others}) == (Status.ERROR, {Status.OK})
    assert last.tag != "clip0"
    assert "response_format" in last.body


def test_a_notebook_whose_thread_has_a_loop_can_look_whether_the_model_is_there() -> None:
    async def in_a_cell(url: str) -> None:
        captioner = make_captioner("openai", {"endpoint": url, "model": "tiny"})
        captioner.check()
        assert "a run sends" in captioner.examine()[0]
        with pytest.raises(CaptionerFault, match="other"):
            make_captioner("openai", {"endpoint": url, "model": "other"}).check()

    with Server() as server:
        asyncio.run(in_a_cell(server.url))


def test_a_slow_clip_holds_nobody_up() -> None:
    """One clip's first answers take 5 s each; all others are through before the first of them."""
    ended: dict[str, float] = {}

    def script(ask: Ask) -> Reply:
        slow = ask.tag == "clip0"
        if ask.step == "refine" and ask.number == 5:
            ended[ask.tag] = time.monotonic()
        return Reply(good(ask).text, delay=5.0 if slow and ask.step == "overall" else 0.0)

    results = caption(script, 12, concurrency=4)
    assert {r.status for r in results} == {Status.OK}
    assert max(t for tag, t in ended.items() if tag != "clip0") + 0.5 < ended["clip0"]


# ── what stops the run ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (Reply(status=401, body=b'{"error": {"message": "Incorrect API key provided: ' + KEY.encode() + b'"}}'),
         r"refuses the key \(HTTP 401\); it is taken from the environment variable LONGTAKE_CAPTION_KEY"),
        (Reply(status=404, body=b'{"error": {"message": "The model `tiny` does not exist"}}'), "no model 'tiny'"),
        (Reply(status=429, body=b'{"error": {"code": "insufficient_quota"}}'), "wants to be paid first"),
    ],
)  # fmt: skip
def test_what_no_clip_survives_stops_the_run(reply: Reply, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    with pytest.raises(CaptionerFault, match=message) as caught:
        caption(lambda ask: reply if ask.step == "overall" else good(ask), 3)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message", "most"),
    [
        ({"token_ceiling": 2_200}, "the token ceiling of this run is reached", 20),
        ({"cost_ceiling": 0.01, "prompt_price": 4.0, "completion_price": 10.0}, "the cost ceiling of this run", 20),
    ],
)
def test_ceilings_stop_the_run_and_only_what_is_in_flight_is_still_paid(
    settings: dict[str, Any], message: str, most: int
) -> None:
    """An answer is 110 tokens, and costs 0.0005: both ceilings lie at 20 answers."""
    with Server() as server:
        with pytest.raises(CaptionerFault, match=message):
            captioned(server, clips(30), concurrency=5, **settings)
        paid = sum(server.answered.values())
    assert most <= paid < most + 5


# ── before any work ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_not_configured_is_said_before_any_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(
        CaptionerFault, match=r"no endpoint: set captioning.settings.endpoint .* LONGTAKE_CAPTION_ENDPOINT"
    ):
        make_captioner("openai", {"model": "tiny"}).check()
    with pytest.raises(CaptionerFault, match=r"no model: .* LONGTAKE_CAPTION_MODEL"):
        make_captioner("openai", {"endpoint": "http://127.0.0.1:9/v1"}).check()
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{held.getsockname()[1]}/v1"
        with pytest.raises(CaptionerFault, match=f"the endpoint {url} does not answer"):
            make_captioner("openai", {"endpoint": url, "model": "tiny"}).check()
    with Server(models=("large", "small")) as server:
        with pytest.raises(CaptionerFault, match="serves no model 'tiny'; it has: large, small"):
            make_captioner("openai", {"endpoint": server.url, "model": "tiny"}).check()
        monkeypatch.setenv(endpoint.ENDPOINT, server.url)
        monkeypatch.setenv(endpoint.MODEL, "small")
        captioner = make_captioner("openai", {})
        captioner.check()
        assert captioner.model == "small"
        assert captioner.resolved is not None
        assert (captioner.resolved["endpoint"], captioner.resolved["model"]) == (server.url, "small")
        assert make_captioner("openai", captioner.resolved).protocol == captioner.protocol
        monkeypatch.setenv(endpoint.KEY_FILE, str(tmp_path / "nowhere"))
        with pytest.raises(CaptionerFault, match=r"key file .*nowhere \(LONGTAKE_CAPTION_KEY_FILE\) cannot be read"):
            make_captioner("openai", {}).check()


@pytest.mark.parametrize("text", ["null", "3", "[]", '{"data": [3]}', "<html>", '{"data": ' + "[" * 100_000])
def test_a_list_of_models_that_is_none_stops_nothing(text: str) -> None:
    with Server() as server:
        server.models_text = text
        make_captioner("openai", {"endpoint": server.url, "model": "tiny"}).check()


def test_a_list_of_very_many_models_stops_nothing() -> None:
    """Those of routers are longer than any answer."""
    with Server(models=tuple(f"{n:0100d}" for n in range(3000))) as server:
        make_captioner("openai", {"endpoint": server.url, "model": "tiny"}).check()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"endpont": "x"}, "endpont: unknown setting; did you mean 'endpoint'"),
        ({"concurrency": 0}, "concurrency: must be a whole number from 1 to 4096"),
        ({"concurrency": 0, "tries": "x"}, "concurrency: must be [^;]*; tries: must be a whole number from 1 to 10"),
        ({"endpoint": "ftp://host/v1"}, "endpoint is a URL"),
        ({"endpoint": f"http://me:{KEY}@host/v1"}, "without user, password or query"),
        ({"endpoint": f"http://host/v1?key={KEY}"}, "without user, password or query"),
        ({"api_key": KEY}, "api_key: unknown setting; did you mean 'api_key_"),
        ({"concurrency": KEY, "prompts": {"watch": [KEY]}}, "concurrency: must be"),
        ({"api_key_file": "/etc/passwd"}, "api_key_file: a recipe names no key file"),
        (
            {"api_key_env": "AWS_SECRET_ACCESS_KEY"},
            "api_key_env: a recipe may name only variables that begin with LONGTAKE_",
        ),
        ({"refiner": {"api_key_env": "HOME"}}, r"refiner\.api_key_env: a recipe may name only variables"),
        ({"words": [5, 2]}, "words are"),
        ({"prompts": {"watch": "Look at $nothing"}}, r"watch asks for \$nothing; it can have: \$camera"),
        ({"prompts": {"system": "Be brief."}}, "the method joint has no prompt 'system'; it has: writer"),
        ({"method": "stepwise", "facts": True}, "facts: only the method joint writes them"),
        ({"method": "together"}, "method: must be"),
        ({"refiner": {"modell": "x"}}, r"refiner\.modell: unknown setting; did you mean 'model'"),
        ({"refiner": {"captioner": "vllm"}}, r"refiner\.path: must be given"),
        ({"concurrency": 0, "refiner": {"model": 3}}, r"concurrency: must be [^;]*; refiner\.model: must be a text"),
        ({"refiner": {"captioner": "sidecar"}}, "does not answer questions"),
    ],
)
def test_wrong_settings_are_named_and_never_repeated(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        make_captioner("openai", settings)
    assert KEY not in str(caught.value)


def test_the_key_is_sent_and_nowhere_else(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """From a file; a server that quotes it back in every error, and leads elsewhere with it."""
    file = tmp_path / "key"
    file.write_text(KEY + "\n")

    def script(ask: Ask) -> Reply:
        if ask.nth == 0:
            return Reply(status=500, body=f"bad: {ask.headers.get('Authorization')}".encode())
        if ask.nth == 1:
            return Reply(status=307, headers={"Location": "http://127.0.0.1:9/steal", "X": KEY})
        return good(ask)

    monkeypatch.setenv(endpoint.KEY_FILE, str(file))
    with caplog.at_level(logging.DEBUG), Server(script) as server:
        journal = Journal(Folder(tmp_path / "answers"))
        (result,) = captioned(server, clips(1), journal)
        assert {ask.headers["Authorization"] for ask in server.asked} == {f"Bearer {KEY}"}
    assert result.status == Status.ERROR
    assert "HTTP 307" in (result.reason or "")
    assert KEY not in repr(result)
    assert KEY not in caplog.text
    assert KEY not in repr(make_captioner("openai", {"model": "m"}).resolved)


# ── the journal ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_was_answered_is_not_asked_again(tmp_path: Path) -> None:
    journal = Journal(Folder(tmp_path))

    def breaks(ask: Ask) -> Reply:
        return Reply(status=401) if ask.step == "refine" and ask.number == 3 else good(ask)

    with Server(breaks) as server:
        with pytest.raises(CaptionerFault):
            captioned(server, clips(4), journal, concurrency=2)
        server.script = good
        results = captioned(server, clips(4), journal, concurrency=2)
        assert {r.status for r in results} == {Status.OK}
        assert all(map(is_own, results))
        assert {r.requests for r in results} == {11}
        assert sum(server.answered.values()) == 44
        assert set(server.answered.values()) == {1}
        # The batch was not committed, so all of it comes from the journal.
        assert captioned(server, clips(4), journal, concurrency=2) == results
        assert sum(server.answered.values()) == 44
        journal.forget(r.clip_id for r in results)
        captioned(server, clips(4)[:1], journal)
        assert sum(server.answered.values()) == 55


@pytest.mark.parametrize("method", ["stepwise", "joint"])
def test_a_journal_that_cannot_be_read_is_no_fault_of_a_clip(tmp_path: Path, method: str) -> None:
    """What it holds is paid for, so nothing is asked without it."""
    (tmp_path / "id" / "id-0.jsonl").mkdir(parents=True)
    with Server() as server:
        with pytest.raises(CaptionerFault, match="the answers that are paid for cannot be read: Is a directory"):
            captioned(server, clips(3), Journal(Folder(tmp_path)), method=method)
        assert not any(ask.tag == "clip0" for ask in server.asked)


def test_answers_that_cannot_be_removed_stop_no_run_whose_rows_are_stored(tmp_path: Path) -> None:
    (tmp_path / "ab" / "abc.jsonl").mkdir(parents=True)
    (tmp_path / "cd").mkdir()
    (tmp_path / "cd" / "cde.jsonl").touch()
    Journal(Folder(tmp_path)).forget(["abc", "cde"])
    assert not (tmp_path / "cd" / "cde.jsonl").exists()


def test_a_journal_that_cannot_be_written_stops_the_run() -> None:
    """No folder can be made in /proc."""
    with pytest.raises(CaptionerFault, match="the answers that are paid for cannot be kept: "):
        caption(good, 1, Journal(Folder("/proc")))


def test_a_source_that_is_away_within_a_good_answer_is_a_fault_of_the_world() -> None:
    away = Reply(body=b'{"error": {"code": 502, "message": "the provider is away"}}')
    (result,) = caption(lambda ask: away, request_tries=2)
    assert (result.status, result.fault) == (Status.ERROR, "unreachable")


# ── details ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@given(st.text(max_size=60), st.text(max_size=60), st.lists(st.binary(min_size=1, max_size=50), max_size=5))
def test_the_body_is_the_request_as_json(system: str, text: str, images: list[bytes]) -> None:
    request = ChatRequest(system, text, tuple(images), {}, 1, 0.5, 10)
    sent = json.loads(encoded({"model": "m"}, request))
    assert sent["messages"][0] == {"role": "system", "content": system}
    content = sent["messages"][1]["content"]
    *pictures, last = content if images else [{"type": "text", "text": content}]
    assert last == {"type": "text", "text": text}
    import base64

    assert [base64.b64decode(p["image_url"]["url"].partition(",")[2]) for p in pictures] == images


def test_pictures_go_by_their_own_name() -> None:
    jpeg = b"\xff\xd8\xff\xe0 rest"
    sent = encoded({}, ChatRequest("", "", (png(picture(1, 1)), jpeg), {}, 1, 0.5, 10)).decode()
    assert sent.index("data:image/png;base64,") < sent.index("data:image/jpeg;base64,")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda s: st.lists(s) | st.dictionaries(st.text(), s)
    )
)
def test_anything_at_all_is_an_answer_or_a_failure(value: Any) -> None:
    for body in (value, {"choices": value}, {"choices": [value]}, {"choices": [{"message": value}], "usage": value}):
        found = read_completion(json.dumps(body).encode())
        if isinstance(found, ChatAnswer):
            assert isinstance(found.text, str)
            assert found.prompt_tokens >= 0


@pytest.mark.parametrize("end", ["x", "x```"])
def test_an_answer_of_spaces_holds_up_no_other(end: str) -> None:
    """A model that writes spaces until its limit: it was half a minute of CPU, while no other answer was read."""
    began = time.process_time()
    with pytest.raises(CaptionError, match="is no JSON"):
        read_answer(
            ChatAnswer("```json\n{" + " " * 60_000 + end, Finish.STOP), "it", [Wanted("caption", "it", (1, 9), 99)]
        )
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    "text", ['```json\n{"caption": "A dog."}\n```', '```{"caption": "A dog."}```', '{"caption": "A dog."}']
)
def test_a_fence_around_an_answer_is_left_out(text: str) -> None:
    found = read_answer(ChatAnswer(text, Finish.STOP), "it", [Wanted("caption", "it", (1, 9), 99)])
    assert found == {"caption": "A dog."}


def test_tokens_that_a_server_makes_up_do_not_count() -> None:
    body = {"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": -5, "completion_tokens": "many"}}
    found = read_completion(json.dumps(body).encode())
    assert isinstance(found, ChatAnswer)
    assert (found.prompt_tokens, found.completion_tokens) == (0, 0)


@pytest.mark.parametrize(
    ("header", "seconds"), [(None, None), ("3", 3), ("0.5", 0.5), ("-3", 0), ("soon", None), ("inf", None)]
)
def test_retry_after(header: str | None, seconds: float | None) -> None:
    assert seconds_of(header) == seconds
    assert (seconds_of("Wed, 21 Oct 2015 07:28:00 GMT")) == 0
    assert (seconds_of("Wed, 21 Oct 2099 07:28:00 GMT") or 0) > 1e9


def test_workers_share_the_concurrency() -> None:
    def of(**settings: Any) -> Any:
        return make_captioner("openai", {"endpoint": "http://h/v1", "model": "m", **settings})

    assert of().running.workers == 1
    assert of(concurrency=64).running.at_once * 16 >= 128
    many = of(concurrency=64, workers=4)
    assert many.running.workers == 4
    assert many.describer.concurrency == 16
    assert Endpoint(EndpointSettings(concurrency=3, workers=8)).concurrency == 1


def test_the_protocol_names_model_prompts_and_settings_but_not_the_place() -> None:
    def of(**settings: Any) -> str:
        chosen = {"endpoint": "http://h/v1", "model": "m", "method": "stepwise", **settings}
        return make_captioner("openai", chosen).protocol

    base = of()
    # The protocol is the one from before there was another method: captions that were paid for under it still count.
    assert base == "progressive/1/openai:m/longtake@7cb83664/72ba388a"
    assert of(method="joint").startswith("joint/2/openai:m/longtake@")
    assert base == of(endpoint="http://other/v1", concurrency=5, tries=2, timeout=3)
    for change in ({"model": "n"}, {"seed": 1}, {"temperature": 0.1}, {"words": [5, 9]}, {"refiner": {"model": "r"}},
                   {"prompts": {"system": "Be brief."}}):  # fmt: skip
        assert of(**change) != base
