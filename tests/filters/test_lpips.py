from __future__ import annotations

import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Picture

from longtake.filters.base import FilterUnavailable, Image, MeasureError, Score
from longtake.filters.lpips import Lpips, LpipsSqueeze, LpipsVgg, Net, build, neighbour_distances
from longtake.filters.weights import WEIGHTS
from tests.filters.pictures import crop, sample

torch = pytest.importorskip("torch")
lpips = pytest.importorskip("lpips")

SHARED = Path(__file__).parents[3] / "shared" / "models"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/models")
# Sizes that the strides do not divide.
CLIPS = [sample([crop(40 * i + 300 * seed, width=121, height=91) for i in range(10)]) for seed in range(3)] + [
    sample([crop(90 * i, width=160, height=96) for i in range(6)])
]


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGTAKE_MODELS", str(SHARED))


def published(name: str) -> Image:
    return np.array(Picture.open(SHARED / "lpips" / "images" / f"{name}.png").convert("RGB"))


def detail(score: Score | MeasureError) -> tuple[float, ...]:
    assert isinstance(score, Score), score
    return score.detail


@needs_shared
@pytest.mark.usefixtures("shared")
def test_published_distances() -> None:
    ref, p0, p1 = (published(f"ex_{name}") for name in ("ref", "p0", "p1"))
    frames = [frame for keyframe in (p0, ref, ref, p1) for frame in (keyframe, keyframe)]
    assert detail(LpipsSqueeze(device="cpu").measure([sample(frames)])[0]) == pytest.approx(
        [0.71104753, 0, 0.14790161], abs=2e-7
    )


@needs_shared
@pytest.mark.usefixtures("shared")
def test_distances_are_those_of_onnx_runtime() -> None:
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(SHARED / "lpips" / "lpips_sq.onnx")

    def imagenet(frame: Image) -> Any:
        scaled = (frame / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        return scaled.transpose(2, 0, 1)[None].astype(np.float32)

    for clip, score in zip(CLIPS, LpipsSqueeze(device="cpu").measure(CLIPS), strict=True):
        expected = [
            session.run(None, {"ref": imagenet(a), "dist": imagenet(b)})[0].item() for a, b in pairwise(clip.keyframes)
        ]
        assert detail(score) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("net", ["alex", "vgg", "squeeze"])
def test_each_frame_once_gives_what_the_package_gives_pair_by_pair(net: Net) -> None:
    torch.manual_seed(1)
    model = build(net)
    frames = torch.from_numpy(CLIPS[0].keyframes).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.inference_mode():
        expected = model(frames[:-1], frames[1:]).flatten()
        found = neighbour_distances(model, frames, len(frames))[0]
    assert found.numpy() == pytest.approx(expected.numpy(), rel=1e-4)
    heads = torch.load(Path(lpips.__file__).parent / f"weights/v0.1/{net}.pth", map_location="cpu", weights_only=True)
    for key, value in heads.items():
        assert torch.equal(model.state_dict()[key], value)


@needs_shared
@pytest.mark.usefixtures("shared")
def test_the_heads_of_the_package_are_the_published_ones() -> None:
    for net in ("alex", "vgg", "squeeze"):
        own = Path(lpips.__file__).parent / f"weights/v0.1/{net}.pth"
        assert own.read_bytes() == (SHARED / "lpips" / "heads_v0.1" / f"{net}.pth").read_bytes()


@needs_shared
@pytest.mark.usefixtures("shared")
def test_batches_change_nothing_and_a_bad_clip_harms_no_other() -> None:
    single = replace(CLIPS[0], keyframes=CLIPS[0].keyframes[:1])
    small = replace(CLIPS[0], keyframes=CLIPS[0].keyframes[:, :50])
    many = LpipsSqueeze(device="cpu").measure([CLIPS[0], single, CLIPS[3], CLIPS[1], small, CLIPS[2]])
    assert isinstance(many[1], MeasureError)
    assert "two keyframes" in str(many[1])
    assert isinstance(many[4], MeasureError)
    assert "121×50" in str(many[4])
    one = LpipsSqueeze(device="cpu", batch=1)
    for clip, score in zip((CLIPS[0], CLIPS[3], CLIPS[1], CLIPS[2]), (many[i] for i in (0, 2, 3, 5)), strict=True):
        assert detail(one.measure([clip])[0]) == pytest.approx(detail(score), abs=1e-6)


@needs_shared
@pytest.mark.usefixtures("shared")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc")
def test_little_memory_makes_small_batches_and_the_same_scores() -> None:
    """SqueezeNet's first features alone take 5 · 64 · 45 · 60 · 4 bytes a clip, 3.3 MiB; all that is held, some more."""
    clips = [CLIPS[i % 3] for i in range(12)]
    ran: dict[int | None, list[int]] = {}
    scores = {}
    for memory in (None, 30):
        filter_ = LpipsSqueeze(device="cpu", batch=12, memory=memory)
        ran[memory] = sizes = []
        distances = filter_._distances

        def noted(batch: Image, sizes: list[int] = sizes, distances: Any = distances) -> Any:
            sizes.append(len(batch))
            return distances(batch)

        filter_._distances = noted  # type: ignore[method-assign]
        scores[memory] = filter_.measure(clips)
        assert filter_.protocol == LpipsSqueeze().protocol
    assert ran[None] == [12]
    assert ran[30][0] == 1
    assert max(ran[30]) <= 30 / 3.3
    assert sum(ran[30]) == 12
    for a, b in zip(scores[None], scores[30], strict=True):
        assert detail(b) == pytest.approx(detail(a), abs=1e-6)


@needs_shared
@pytest.mark.usefixtures("shared")
def test_half_precision_stays_within_a_hundredth() -> None:
    whole, half = (LpipsSqueeze(device="cpu", precision=p).measure(CLIPS) for p in ("float32", "bfloat16"))
    for a, b in zip(whole, half, strict=True):
        assert detail(b) == pytest.approx(detail(a), abs=0.01)
        assert detail(b) != detail(a)  # The second measurement used another precision.


@needs_shared
def test_a_trunk_of_another_network_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGTAKE_MODELS", str(SHARED))
    monkeypatch.setitem(WEIGHTS, "alexnet", replace(WEIGHTS["squeezenet1_1-vmaf"], name="alexnet"))
    with pytest.raises(FilterUnavailable, match=r"from_lpips_sq.npz holds the weights of another model"):
        Lpips(device="cpu").measure(CLIPS)


def test_torchvisions_file_fills_the_trunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file as torchvision publishes it holds the classifier too."""
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(2)
    whole = models.alexnet(weights=None)
    torch.save(whole.state_dict(), tmp_path / "alexnet-owt-7be5be79.pth")
    monkeypatch.setenv("LONGTAKE_MODELS", str(tmp_path))
    monkeypatch.setitem(WEIGHTS, "alexnet", replace(WEIGHTS["alexnet"], sha256=None))
    filter_ = Lpips(device="cpu")
    trunk = [value for key, value in filter_._model[0].net.state_dict().items()]
    assert all(torch.equal(a, b) for a, b in zip(trunk, whole.features.state_dict().values(), strict=True))
    assert len(detail(filter_.measure(CLIPS)[0])) == 4


def test_protocols(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGTAKE_MODELS", str(tmp_path))
    assert Lpips().protocol == "alex/v0.1,trunk@7be5be79+heads@df73285e,neighbouring-keyframes@3s/mean"
    assert LpipsVgg(reduce="min").protocol == "vgg/v0.1,trunk@397923af+heads@a78928a0,neighbouring-keyframes@3s/min"
    assert LpipsSqueeze().weights == ("squeezenet1_1",)
    with pytest.raises(FilterUnavailable, match="longtake models pull alexnet"):
        Lpips(device="cpu").measure(CLIPS)
