"""The cascade's question, asked of single scores and remembered, against the verdict engine asked of all of them."""

from __future__ import annotations

import json
import math
import random
from typing import Any

from longtake.curation.reading.judge import Judge, Measured
from longtake.curation.recipe import load_recipe
from longtake.filters.base import Score
from longtake.filters.verdicts import ClipScores, alive

VALUES = (0.0, 0.01, 0.3, 5, 19, 25, 30, 36, 60, 100, 1280, 2000, math.nan)
RECIPE = load_recipe("embedded")


def engine(scores: dict[str, Measured]) -> bool:
    row: dict[str, Any] = {"status": "ok", "protocols": json.dumps({n: m.protocol for n, m in scores.items()})}
    for name, measured in scores.items():
        row |= {name: measured.score.known, f"{name}_detail": measured.score.detail}
    return bool(alive(ClipScores.of_rows([row], RECIPE.built), RECIPE.tiers)[0])


def test_it_goes_on_as_the_verdict_engine_says() -> None:
    draw, judge, answers = random.Random(5), Judge(RECIPE, all_scores=False), []
    names = [name for name in RECIPE.built if name != "text_similarity"]
    for _ in range(60):
        scores = {}
        for name in draw.sample(names, draw.randint(0, 4)):
            filter_, value = RECIPE.built[name], draw.choice(VALUES)
            kinds = [by.protocol for by in (filter_, filter_.lower_bound, filter_.early) if by is not None]
            detail = (0.01, 0.2) if math.isnan(value) else (value - 3, value + 3)
            scores[name] = Measured(Score(value, detail), draw.choice([*kinds, "another/protocol/mean"]))
        assert judge.goes_on(scores) == engine(scores), scores
        answers.append(judge.goes_on(scores))
    assert 10 < sum(answers) < 50
    assert Judge(RECIPE, all_scores=True).goes_on(scores)
