from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Picture

from longtake.filters.aesthetic import MEAN, Aesthetic, AestheticV1, fold_head, frame_to_square, normalised, to_input
from longtake.filters.base import FilterUnavailable, MeasureError, Needs, Score
from longtake.filters.weights import WEIGHTS, load_weight
from tests.filters.pictures import crop, photograph, sample

torch = pytest.importorskip("torch")
open_clip = pytest.importorskip("open_clip")

SHARED = Path(__file__).parents[3] / "shared" / "models"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/models")
REFERENCE = SHARED / "clip" / "clip_retrieval_ref"
Array = np.ndarray[Any, np.dtype[Any]]


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGTAKE_MODELS", str(SHARED))


def head(name: str) -> dict[str, Array]:
    return {key: value.numpy() for key, value in load_weight(name).items()}


@needs_shared
@pytest.mark.usefixtures("shared")
def test_the_folded_head_is_the_network_layer_by_layer() -> None:
    state = {key: value.astype(np.float64) for key, value in head("aesthetic-v2").items()}
    x = np.random.default_rng(0).normal(size=(200, 768))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    weight, bias = fold_head(state, 768)
    y = x
    for number in (0, 2, 4, 6, 7):
        y = y @ state[f"layers.{number}.weight"].T + state[f"layers.{number}.bias"]
    assert np.abs(x @ weight + bias - y[:, 0]).max() < 1e-12


@needs_shared
@pytest.mark.usefixtures("shared")
def test_published_scores_of_the_first_head() -> None:
    with np.load(REFERENCE / "embeddings_vitb32.npz") as file:
        embeddings = np.stack([file[key] for key in file.files])
    weight, bias = fold_head(head("aesthetic-v1-vit-b-32"), 512)
    published = [4.01, 6.73, 5.17, 3.24, 6.01, 5.66, 5.89]
    assert normalised(embeddings) @ weight + bias == pytest.approx(published, abs=0.005)


@needs_shared
def test_the_preprocessing_is_the_predictors_to_the_pixel() -> None:
    with np.load(REFERENCE / "preprocessed_224.npz") as file:
        for name in file.files:
            picture = Picture.open(REFERENCE / f"test_images_{name}.jpg").convert("RGB")
            square = frame_to_square(np.array(picture), "center")
            tensor = to_input(torch.from_numpy(square[None].copy()))
            assert np.abs(tensor[0].numpy() - file[name]).max() < 3e-7


def test_the_other_ways_to_a_square_keep_the_sides() -> None:
    frame = np.zeros((540, 960, 3), np.uint8)
    frame[:, :100] = 255  # The white part is thrown away by the centre crop.
    assert frame_to_square(frame, "center").max() == 0
    squash = frame_to_square(frame, "squash")
    assert (squash[:, :20] == 255).all()
    assert (squash[:, 30:] == 0).all()
    pad = frame_to_square(frame, "pad")
    assert (pad[:49] == [round(255 * mean) for mean in MEAN]).all()
    assert (pad[49:175, :20] == 255).all()
    assert (pad[175:] == pad[0, 0]).all()
    for way in ("center", "squash", "pad"):
        assert frame_to_square(frame[:3, :500], way).shape == (224, 224, 3)


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """CLIP ViT-B/32 with random weights, which also lie in the models folder, under LAION's real head where it is."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    clip = open_clip.create_model("ViT-B-32", force_quick_gelu=True)
    state = {f"visual.{key}": value for key, value in clip.visual.state_dict().items()}
    torch.save(state, folder / "ViT-B-32.pt")
    linear = torch.nn.Linear(512, 1)
    linear.weight.data *= 18 / linear.weight.data.norm()  # The folded head of V2 has this length.
    torch.save(linear.state_dict(), folder / "sa_0_4_vit_b_32_linear.pth")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LONGTAKE_MODELS", str(folder))
        for name in ("clip-vit-b-32", "aesthetic-v1-vit-b-32"):
            patch.setitem(WEIGHTS, name, replace(WEIGHTS[name], size=None, sha256=None))
        yield clip, linear


SAMPLES = [
    sample([photograph("astronaut")] * 2),
    sample([crop(300 * i) for i in range(6)]),
    sample([photograph("coffee")] * 4),
]


def test_scores_are_those_of_open_clip_with_its_own_transform(tower: Any) -> None:
    clip, linear = tower
    scores = AestheticV1(clip="ViT-B-32", device="cpu").measure(SAMPLES)
    transform = open_clip.image_transform(224, is_train=False, resize_mode="shortest", interpolation="bicubic")
    for item, score in zip(SAMPLES, scores, strict=True):
        assert isinstance(score, Score)
        embedding = score.embedding
        assert embedding is not None
        batch = torch.stack([transform(Picture.fromarray(frame)) for frame in item.keyframes])
        with torch.inference_mode():
            features = clip.encode_image(batch, normalize=True)
            ratings = linear(features)[:, 0]
            mean = torch.nn.functional.normalize(features.mean(dim=0), dim=0)
        assert score.detail == pytest.approx(ratings.tolist(), abs=1e-5)
        assert score.value == pytest.approx(ratings.mean().item(), abs=1e-5)
        assert embedding.dtype == np.float16
        assert embedding == pytest.approx(mean.numpy(), abs=1e-3)
        assert np.linalg.norm(embedding.astype(np.float64)) == pytest.approx(1, abs=1e-3)
        assert score.keyframe_embeddings is not None
        assert score.keyframe_embeddings == pytest.approx(features.numpy(), abs=1e-3), "one for each keyframe, too"


def test_a_batch_of_one_is_a_batch_of_many_and_a_bad_clip_harms_no_other(tower: Any) -> None:
    bad = replace(SAMPLES[0], keyframes=SAMPLES[0].keyframes.astype(np.float32))
    none = replace(SAMPLES[0], keyframes=SAMPLES[0].keyframes[:0])
    many = AestheticV1(clip="ViT-B-32", device="cpu").measure([SAMPLES[0], bad, SAMPLES[1], none, SAMPLES[2]])
    assert isinstance(many[1], MeasureError)
    assert isinstance(many[3], MeasureError)
    one = AestheticV1(clip="ViT-B-32", device="cpu", batch=1)
    for item, score in zip(SAMPLES, (many[0], many[2], many[4]), strict=True):
        alone = one.measure([item])[0]
        assert isinstance(score, Score)
        assert isinstance(alone, Score)
        assert alone.detail == pytest.approx(score.detail, abs=1e-5)
    assert one.measure([]) == []


def test_half_precision_stays_within_three_hundredths(tower: Any) -> None:
    whole = AestheticV1(clip="ViT-B-32", device="cpu")
    half = AestheticV1(clip="ViT-B-32", device="cpu", precision="bfloat16")
    assert half.protocol == whole.protocol.replace("keyframes/", "keyframes,bfloat16/")
    for a, b in zip(whole.measure(SAMPLES), half.measure(SAMPLES), strict=True):
        assert isinstance(a, Score)
        assert isinstance(b, Score)
        # The 8 bits of bfloat16 allow this; differences up to 0.013 were seen.
        assert b.detail == pytest.approx(a.detail, abs=0.03)
        assert b.detail != a.detail  # The second measurement used another precision.


@needs_shared
@pytest.mark.usefixtures("shared")
def test_embeddings_are_normalised_before_the_head() -> None:
    """Without it, the length of CLIP's embeddings (about 10) gives ratings far from the scale."""
    with np.load(REFERENCE / "embeddings_vitb32.npz") as file:
        rows = [10 * file[key].astype(np.float32) for key in file.files]
    filter_ = AestheticV1(clip="ViT-B-32")
    score = filter_.score_embeddings(rows)
    assert isinstance(score, Score)
    assert 3 < min(score.detail) <= score.value <= max(score.detail) < 7
    weight, bias = fold_head(head("aesthetic-v1-vit-b-32"), 512)
    assert np.mean(np.stack(rows) @ weight + bias) > 15


@needs_shared
@pytest.mark.usefixtures("shared")
@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_an_embedding_that_is_no_direction_is_an_error(value: float) -> None:
    fault = AestheticV1(clip="ViT-B-32").score_embeddings([np.ones(512), np.full(512, value)])
    assert isinstance(fault, MeasureError)
    assert "the image embedding" in str(fault)


@needs_shared
@pytest.mark.usefixtures("shared")
def test_a_head_of_another_model_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = replace(WEIGHTS["aesthetic-v1-vit-b-32"], name="aesthetic-v2")
    monkeypatch.setitem(WEIGHTS, "aesthetic-v2", wrong)
    with pytest.raises(FilterUnavailable, match=r"sa_0_4_vit_b_32_linear.pth holds the weights of another model"):
        _ = Aesthetic()._head


def test_clip_weights_of_another_model_are_refused_by_name(tower: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(WEIGHTS, "clip-vit-b-16", replace(WEIGHTS["clip-vit-b-32"], name="clip-vit-b-16"))
    with pytest.raises(FilterUnavailable, match=r"ViT-B-32.pt holds the weights of another model"):
        AestheticV1(clip="ViT-B-16", device="cpu").measure(SAMPLES[:1])


def test_a_missing_weight_stops_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGTAKE_MODELS", str(tmp_path))
    with pytest.raises(FilterUnavailable, match="longtake models pull clip-vit-l-14"):
        Aesthetic(device="cpu").measure(SAMPLES)


def test_protocol_names_everything_that_changes_a_score() -> None:
    assert Aesthetic().protocol == "laion-v2/ViT-L-14@b8cca3fd+head@21dd590f,center224,keyframes/mean"
    assert Aesthetic(crop="pad", reduce="min").protocol.endswith(",pad224,keyframes/min")
    assert AestheticV1().protocol == "laion-v1/ViT-L-14@b8cca3fd+head@2cd4e60f,center224,keyframes/mean"
    assert Aesthetic.needs == Needs.FRAMES
    assert AestheticV1(clip="ViT-B-16").weights == ("clip-vit-b-16", "aesthetic-v1-vit-b-16")
    with pytest.raises(ValueError, match="crop"):
        Aesthetic(crop="middle")
    with pytest.raises(ValueError, match="clip"):
        AestheticV1(clip="ViT-H-14")
