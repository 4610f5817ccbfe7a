"""Alignment: the text encoder against open_clip's own, on random weights (the published ones cannot be had here), and what a
swapped pair of captions looks like, with an encoder that is put in its place."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from longtake.filters import alignment
from longtake.filters.alignment import Alignment
from longtake.filters.base import Captioned, MeasureError, Needs, Score

RNG = np.random.default_rng(5)
DIM = 32
TEXTS = tuple(f"Sub-caption {i} of a harbour." for i in range(5))


@pytest.fixture
def spaces(monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray[Any, Any]]:
    """An encoder that puts each text near the keyframe that it tells of."""
    pictures = RNG.normal(size=(5, DIM))
    texts = {text: 3 * (pictures[i] + 0.3 * RNG.normal(size=DIM)) for i, text in enumerate(TEXTS)}
    monkeypatch.setattr(Alignment, "_embed", lambda self, asked: np.stack([texts[text] for text in asked]))
    return {"pictures": pictures / np.linalg.norm(pictures, axis=1, keepdims=True), **texts}


def test_each_sub_caption_is_held_against_its_own_keyframe_and_a_swapped_pair_shows(
    spaces: dict[str, np.ndarray[Any, Any]],
) -> None:
    pictures = spaces["pictures"].astype(np.float16)
    swapped = (TEXTS[0], TEXTS[3], TEXTS[2], TEXTS[1], TEXTS[4])
    right, wrong = Alignment().measure([Captioned(TEXTS, pictures), Captioned(swapped, pictures)])
    assert isinstance(right, Score)
    assert isinstance(wrong, Score)
    for i, (text, value) in enumerate(zip(TEXTS, right.detail, strict=True)):
        vector = spaces[text]
        assert value == pytest.approx(vector @ pictures[i].astype(float) / np.linalg.norm(vector), abs=1e-3)
    assert right.value == pytest.approx(np.mean(right.detail))
    assert min(right.detail) > 0.8
    assert [value < 0.6 for value in wrong.detail] == [False, True, False, True, False]
    assert wrong.value < right.value


def test_a_clip_without_keyframe_embeddings_is_not_known_and_is_no_error(
    spaces: dict[str, np.ndarray[Any, Any]],
) -> None:
    none, other, zero = Alignment().measure(
        [
            Captioned(TEXTS, None),
            Captioned(TEXTS, np.ones((4, DIM), np.float16)),
            Captioned(TEXTS, np.zeros((5, DIM), np.float16)),
        ]
    )
    for score in (none, other):
        assert isinstance(score, Score)
        assert math.isnan(score.value)
        assert score.known is None
        assert score.detail == (-1.0,) * 5
    assert isinstance(zero, MeasureError)


def test_texts_are_embedded_as_open_clip_does(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    open_clip = pytest.importorskip("open_clip")
    small = {
        "embed_dim": DIM,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
    }
    torch.manual_seed(0)
    whole = open_clip.CLIP(**small, quick_gelu=True).eval()
    stored = {**whole.state_dict(), "context_length": torch.tensor(77)}
    monkeypatch.setattr(open_clip, "get_model_config", lambda name: small)
    monkeypatch.setattr(alignment, "load_weight", lambda name: stored)
    texts = ["A dog runs across a street.", "word " * 200, "a"]
    with torch.inference_mode():
        tokens = open_clip.get_tokenizer("ViT-L-14")(texts)
        expected = whole.encode_text(tokens).numpy()
    assert Alignment(device="cpu")._embed(texts) == pytest.approx(expected, abs=1e-5)


def test_its_protocol_says_how_texts_and_pictures_were_embedded(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("alignment", "aesthetic"):
        monkeypatch.setattr(f"longtake.filters.{module}.weight_tag", lambda name: "0123456789ab")
    filter_ = Alignment()
    assert filter_.protocol == "clip/ViT-L-14@0123456789ab,text77,images ViT-L-14@0123456789ab,center224/mean"
    assert filter_.needs == Needs.CAPTIONS
