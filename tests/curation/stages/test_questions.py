"""Questions as filters: one request a clip, each answer a score with a gate of its own, and what is not sure kept apart."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from longtake.captioning import endpoint
from longtake.curation import pipeline
from longtake.curation.cli.main import app
from longtake.curation.clip_table import clip_scores
from longtake.curation.errors import SetupError
from longtake.curation.looking.questions import agreement_with_marks, answer_counts, answer_words
from longtake.curation.recipe import RecipeError, load_recipe, parse_recipe
from longtake.curation.running.jobs import Report
from longtake.curation.stages.stage import Options
from longtake.filters.questions import QUESTIONS
from tests.captioning.server import Ask, Reply, Server, good
from tests.curation.stages.test_caption import Place


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "FIRST_PAUSE", 0.01)
    for name in (endpoint.ENDPOINT, endpoint.MODEL, endpoint.KEY, endpoint.KEY_FILE):
        monkeypatch.delenv(name, raising=False)


class Quiet:
    """A watcher that says nothing."""

    def begin(self, stage: str, rows: int) -> None: ...

    def advance(self, report: Report) -> None: ...

    def end(self, stage: str, total: Report, seconds: float) -> None: ...


def recipe(place: Place, server: Server, filters: dict[str, Any], gates: dict[str, str], **settings: Any) -> Path:
    tiers = {"pretrain": {"grayscale": "[0, 255]", **gates}}
    path = place.recipe(server, filters=filters, method="joint", **settings)
    plain = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**plain, "tiers": tiers}))
    return path


def run(place: Place, command: str, path: Path, code: int = 0) -> str:
    arguments = [command, place.workspace.path, "-r", str(path), "--engine=inline"]
    done = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == code, done.output
    return done.output


def clips(place: Place) -> pd.DataFrame:
    table = pd.read_parquet(Path(place.workspace.path) / "clips")
    return table.set_index(table["clip_id"].str[8:].map(lambda digits: int(digits, 16))).sort_index()


def answers(said: dict[str, dict[str, str]]) -> Any:
    """A model that answers `no` or the first choice, but for what is `said` of a clip."""

    def script(ask: Ask) -> Reply:
        properties = ask.body["response_format"]["json_schema"]["schema"]["properties"]
        if not all("enum" in form for form in properties.values()):
            return good(ask)
        given = {name: said.get(ask.tag, {}).get(name, form["enum"][0]) for name, form in properties.items()}
        return Reply(json.dumps(given))

    return script


def test_the_questions_that_ship() -> None:
    """What a look at a film should tell: yes or no, but for what kind of film it is."""
    assert set(QUESTIONS) == {
        "slideshow", "rendered", "strong_filter", "added_text", "split_screen", "watermark", "photographic_defect",
        "wrong_way_up", "low_quality", "blurred_region", "shaking_camera", "changed_speed", "unsafe", "content_type",
    }  # fmt: skip
    assert [name for name, question in QUESTIONS.items() if not question.yes_or_no] == ["content_type"]
    assert 24 <= len(set(QUESTIONS["content_type"].choices)) <= 28


def test_all_questions_go_into_one_request_and_captions_are_paid_for_clips_that_passed(tmp_path: Path) -> None:
    place = Place(tmp_path, 8)
    said = {"clip1": {"slideshow": "yes"}, "clip3": {"watermark": "not sure"}, "clip5": {"content_type": "video game"}}
    filters: dict[str, Any] = {name: {} for name in QUESTIONS}
    filters["dogs"] = {"backend": "ask", "question": "Is there a dog?", "choices": ["none", "one", "many"]}
    gates = {"slideshow": "<= 0", "watermark": "<= 0", "content_type": "<= 21", "dogs": "<= 2"}
    with Server(answers(said)) as server:
        path = recipe(place, server, filters, gates)
        output = run(place, "score", path)
        assert len(server.asked) == 8
        first = server.asked[0]
        assert set(first.keys) == {*QUESTIONS, "dogs"}
        assert len(first.images) == 5
        system = first.body["messages"][0]["content"]
        assert all(question.text in system for question in QUESTIONS.values())
        assert "Is there a dog? One of: none, one, many, not sure." in system
        assert first.body["temperature"] == 0
        tokens = server.cache.prompt_tokens / 8
        run(place, "score", path)
        assert len(server.asked) == 8, "answers are kept"
        run(place, "caption", path)
        assert {ask.tag for ask in server.asked[8:]} == {f"clip{n}" for n in (0, 2, 4, 6, 7)}
        stats = json.loads(CliRunner().invoke(app, ["stats", place.workspace.path, "--json"]).output)
    assert "8 answers" in output
    assert tokens < 4_800
    rows = clips(place)
    assert rows["slideshow"].tolist() == [0, 1, 0, 0, 0, 0, 0, 0]
    assert rows["watermark"].isna().tolist() == [n == 3 for n in range(8)]
    assert rows["watermark_detail"][3].tolist() == [0.0]
    assert rows["content_type"].tolist() == [1, 1, 1, 1, 1, 23, 1, 1]
    assert rows["dogs"].eq(1).all()
    assert json.loads(rows["protocols"][0])["dogs"].startswith("ask/openai:tiny,asked@")
    gates_told = stats["tiers"]["pretrain"]["gates"]
    assert (gates_told["watermark"]["missing"], gates_told["slideshow"]["failed"]) == (1, 1)
    assert stats["questions"]["watermark"] == {"no": 7, "yes": 0, "not sure": 1, "not_sure_share": 0.125}
    assert stats["questions"]["content_type"]["video game"] == 1
    assert not list(Path(place.workspace.path).rglob(".questions/**/*.jsonl"))


@pytest.mark.parametrize(
    "engine", ["inline", pytest.param("ray", marks=[pytest.mark.cluster, pytest.mark.slow, pytest.mark.campaign])]
)
def test_questions_and_captions_keep_the_endpoints_limits_together(
    tmp_path: Path, request: pytest.FixtureRequest, engine: str
) -> None:
    """A request is 110 tokens. Questions take 6 requests and captions 12, so the ceiling is reached by both together only."""
    address = request.getfixturevalue("running_ray").address if engine == "ray" else None
    place = Place(tmp_path, 6)
    options = Options(("score", "caption"), engine=None if address else engine, address=address)
    with Server(answers({})) as server:
        limits = {"concurrency": 2, "token_ceiling": 14 * 110}
        path = recipe(place, server, {"slideshow": {}}, {"slideshow": "<= 0"}, **limits)
        with pytest.raises(SetupError, match="the token ceiling of this run is reached"):
            pipeline.run(place.workspace, load_recipe(path), [], options, Quiet())
        assert max(flying for _, flying in server.flying) <= 2
        assert 6 < sum("slideshow" not in ask.keys for ask in server.asked) + 6 == len(server.asked) < 18


def test_a_question_more_is_asked_alone_and_another_wording_anew(tmp_path: Path) -> None:
    place = Place(tmp_path, 2)
    with Server(answers({}), models=("tiny", "other")) as server:
        run(place, "score", recipe(place, server, {"slideshow": {}}, {}))
        run(place, "score", recipe(place, server, {"slideshow": {}, "rendered": {}}, {}))
        assert [ask.keys for ask in server.asked] == [("slideshow",)] * 2 + [("rendered",)] * 2
        run(place, "score", recipe(place, server, {"slideshow": {"question": "Still pictures?"}, "rendered": {}}, {}))
        assert [ask.keys for ask in server.asked[4:]] == [("slideshow",)] * 2
        run(place, "score", recipe(place, server, {"slideshow": {"question": "Still pictures?"}}, {}, model="other"))
        assert len(server.asked) == 8, "another model's answers are other scores"


def test_an_answer_that_is_none_of_the_choices_is_asked_for_again_by_itself(tmp_path: Path) -> None:
    place = Place(tmp_path, 3)

    def script(ask: Ask) -> Reply:
        given = dict.fromkeys(ask.keys, "no")
        if ask.tag == "clip1" and ask.nth == 0:
            given["rendered"] = "Well, that depends."
        if ask.tag == "clip2" and "slideshow" in given:
            given["slideshow"] = "maybe"
        return Reply(json.dumps(given))

    with Server(script) as server:
        run(place, "score", recipe(place, server, {"slideshow": {}, "rendered": {}}, {}, tries=2), code=0)
        keys = [ask.keys for ask in server.asked if ask.tag == "clip1"]
    rows = clips(place)
    assert [set(asked) for asked in keys] == [{"slideshow", "rendered"}, {"rendered"}]
    assert rows["rendered"][:2].tolist() == [0, 0]
    assert (rows["status"][2], rows["error_kind"][2]) == ("error", "measure")
    assert "slideshow is none of the choices" in rows["error"][2]


def test_an_endpoint_that_is_away_leaves_clips_as_they_were_and_the_same_command_asks_again(tmp_path: Path) -> None:
    place = Place(tmp_path, 4)
    away = {"clip2"}
    good_answers = answers({})
    with Server(lambda ask: Reply(status=503) if ask.tag in away else good_answers(ask)) as server:
        path = recipe(place, server, {"slideshow": {}}, {}, request_tries=1)
        run(place, "score", path, code=1)
        rows = clips(place)
        assert (rows["status"] == "ok").all()
        assert rows["slideshow"].isna().tolist() == [False, False, True, False]
        away.clear()
        run(place, "score", path)
        assert clips(place)["slideshow"].notna().all()
        assert len(server.asked) == 5


def test_what_was_answered_before_a_fault_is_not_paid_for_twice(tmp_path: Path) -> None:
    place = Place(tmp_path, 4)
    good_answers = answers({})
    with Server(lambda ask: Reply(status=402) if ask.tag == "clip3" else good_answers(ask)) as server:
        path = recipe(place, server, {"slideshow": {}}, {}, concurrency=1)
        assert "wants to be paid first" in run(place, "score", path, code=3)
        paid = sum(server.answered.values())
        server.script = good_answers
        run(place, "score", path)
        assert sum(server.answered.values()) == 4
    assert paid >= 1
    assert clips(place)["slideshow"].notna().all()


@pytest.mark.parametrize(
    ("filters", "captioner", "message"),
    [
        (
            {"dogs": {"backend": "ask"}},
            "openai",
            "question: must be given, since no question that ships is called 'dogs'",
        ),
        ({"uri": {"backend": "ask", "question": "x"}}, "openai", "is the name of another column"),
        ({"slideshow": {"choices": ["one"]}}, "openai", "choices are 2 to 100 different answers"),
        ({"slideshow": {}}, "descriptors", "a question is put to the captioner's model, and descriptors has none"),
    ],
)
def test_questions_that_cannot_be_asked_are_said_with_the_recipe(
    filters: dict[str, Any], captioner: str, message: str
) -> None:
    plain = {
        "name": "asks",
        "filters": {"grayscale": {}, **filters},
        "tiers": {"pretrain": {"grayscale": "[0, 255]"}},
        "captioning": {"captioner": captioner},
    }
    with pytest.raises(RecipeError, match=message):
        parse_recipe(plain, "")


def test_answers_in_words_and_their_agreement_with_marks(tmp_path: Path) -> None:
    place = Place(tmp_path, 10)
    said = {f"clip{n}": {"slideshow": "yes"} for n in (0, 1, 2)} | {"clip9": {"slideshow": "not sure"}}
    with Server(answers(said)) as server:
        path = recipe(place, server, {"slideshow": {}, "content_type": {}}, {"slideshow": "<= 0"})
        run(place, "score", path)
    loaded = load_recipe(path)
    scores = clip_scores(place.workspace, loaded)
    ids = [int(clip_id[8:], 16) for clip_id in scores.table["clip_id"].to_pylist()]
    rows = np.arange(10)
    # Nine clips have answers, which disagree with the marks for clips 2 and 5.
    good = np.array([n not in (0, 1, 5) for n in ids])
    found = agreement_with_marks(scores, rows, good)
    assert set(found) == {"slideshow"}, "a question with choices has no right side"
    assert (found["slideshow"]["clips"], found["slideshow"]["agrees"]) == (9, 7 / 9)
    # Wilson's interval for 7 of 9 is the one that prop.test of R gives without correction.
    assert (found["slideshow"]["low"], found["slideshow"]["high"]) == pytest.approx((0.4526, 0.9368), abs=1e-3)
    assert answer_counts(scores)["slideshow"]["not_sure_share"] == 0.1
    values = {"slideshow": 1.0, "content_type": 23.0}
    assert answer_words(loaded.built, values) == {"slideshow": "yes", "content_type": "video game"}
    assert answer_words(loaded.built, {"slideshow": math.nan}) == {}
    assert answer_words(loaded.built, {}, {"slideshow", "flow"}) == {"slideshow": "not sure"}
