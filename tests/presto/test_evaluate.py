"""Evaluation on known answers, by real weights where ../shared has them, beside real clips; VBench's names; blind pages."""

from __future__ import annotations

import json
import os
import pickle
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image as Picture
from typer.testing import CliRunner

from longtake.filters.weights import WEIGHTS
from longtake.presto.cli import app
from longtake.presto.errors import PrestoError
from longtake.presto.evaluate import (
    Backends,
    Subject,
    alignment,
    coherence,
    diversity,
    evaluate_folder,
    export_vbench,
    is_dynamic,
    measure,
    report,
    samples_of,
)
from longtake.presto.perception import Clip, Distance, optical_flow
from longtake.presto.video import read_video, write_video
from tests.presto.made import dataset, row

PROMPTS = ["a red car", "it turns", "rain falls", "a man waves", "night comes"]
SHARED = Path(__file__).parents[3] / "shared" / "models"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/models")
runner = CliRunner()


def moving(pixels: int, count: int = 12, size: int = 256, seed: int = 0) -> np.ndarray:
    """A textured picture that shifts by so many pixels per frame."""
    noise = np.random.default_rng(seed).integers(0, 256, (size // 8, (size + pixels * count) // 8 + 1, 3), np.uint8)
    board = cv2.resize(noise, None, fx=8, fy=8, interpolation=cv2.INTER_CUBIC)
    return np.stack([board[:, i * pixels : i * pixels + size] for i in range(count)])


def samples(folder: Path, prompts: list[list[str]], speed: int) -> Path:
    folder.mkdir()
    for i, texts in enumerate(prompts):
        write_video(folder / f"{i:04d}.mp4", moving(speed, 16, 128, seed=i)[:, :, :128], 8)
        (folder / f"{i:04d}.json").write_text(json.dumps({"prompts": texts}))
    return folder


# ── dynamic degree ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_dynamic_degree_is_vbenchs_rule() -> None:
    dis = optical_flow("dis")
    still, slow, fast = moving(0), moving(3), moving(9)
    flow = dis(fast[0], fast[1])
    assert abs(float(np.median(np.linalg.norm(flow, axis=2))) - 9) < 0.5
    # The threshold is 6 px at a short side of 256.
    assert [is_dynamic(f, dis) for f in (still, slow, fast)] == [False, False, True]

    def of(lengths: list[float]) -> bool:
        """Pairs whose top 5 % have these lengths, the rest of the frame at rest."""
        left = iter(lengths)

        def flow(_a: np.ndarray, _b: np.ndarray) -> np.ndarray:
            field = np.zeros((20, 20, 2))
            field[0, :, 0] = next(left)  # Exactly 5 % of the pixels move.
            return field

        return is_dynamic(np.zeros((len(lengths) + 1, 256, 256, 3), np.uint8), flow)

    assert of([6.1, 6.1, 0, 0, 0, 0, 0])  # A video of 8 frames needs two moving pairs.
    assert not of([6.1, 0, 0, 0, 0, 0, 0])
    assert not of([6.0] * 7)  # A motion of 6 px is not more than 6.
    assert not is_dynamic(np.zeros((9, 512, 512, 3), np.uint8), lambda _a, _b: np.full((8, 8, 2), 11.9 / 2**0.5))


@needs_shared
def test_the_longest_vectors_are_vbenchs_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """VBench 0.1.5's own DynamicDegree, on the same weights (RAFT small, 20 updates where we have 12) and the same films,
    gave means of the longest 5 % of 3.06 to 3.15 and of 9.15 to 9.19 px."""
    monkeypatch.setenv("LONGTAKE_MODELS", str(SHARED))
    noise = np.random.default_rng(0).integers(0, 256, (60, 120, 3), np.uint8)
    board = cv2.GaussianBlur(cv2.resize(noise, (1600, 800), interpolation=cv2.INTER_CUBIC), (0, 0), 2)
    raft = optical_flow("raft-small-princeton")
    for pixels, low, high in ((3, 3.0, 3.2), (9, 9.1, 9.25)):
        film = np.stack([board[100:356, i * pixels : i * pixels + 320] for i in range(3)])
        write_video(tmp_path / "film.mp4", film, 8)
        frames, _ = read_video(tmp_path / "film.mp4", 8)
        longest: list[float] = []

        def spy(a: Any, b: Any, longest: list[float] = longest) -> Any:
            flow = raft(a, b)
            lengths = np.sort(np.hypot(flow[..., 0], flow[..., 1]), axis=None)
            longest.append(float(lengths[-int(256 * 320 * 0.05) :].mean()))
            return flow

        assert is_dynamic(frames, spy) == (pixels == 9)
        assert low < min(longest) <= max(longest) < high


def test_flows_are_named_by_their_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """UniMatch with random weights, which are loaded from the models folder; what is missing or unknown is said."""
    from longtake.filters.flow_unimatch import build

    torch.manual_seed(0)
    torch.save({"model": build(1, 0).unimatch.state_dict()}, tmp_path / Path(WEIGHTS["unimatch-scale1"].filename).name)
    monkeypatch.setenv("LONGTAKE_MODELS", str(tmp_path))
    frames = moving(4, 2, 144)[:, :, :140]
    assert optical_flow("unimatch-scale1")(frames[0], frames[1]).shape == (144, 140, 2)
    with pytest.raises(PrestoError, match=r"raft_large.* is missing: get it with `longtake models pull raft-large`"):
        optical_flow("raft-large")
    with pytest.raises(PrestoError, match="there is no flow 'farneback'; there are dis, raft-small"):
        optical_flow("farneback")


# ── alignment ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_alignment_of_known_embeddings() -> None:
    eye = np.eye(5)
    found = alignment(3 * eye, eye)
    assert (found.accuracy, found.margin) == (1.0, 1.0)
    assert alignment(eye, eye[[1, 2, 3, 4, 0]]).accuracy == 0.0
    assert alignment(eye, eye[[1, 2, 3, 4, 0]]).margin == pytest.approx(-0.25)
    assert diversity(eye) == 1.0
    assert diversity(np.ones((5, 3))) == pytest.approx(0.0)
    assert coherence(eye[:4], eye[:4]) == 1.0
    assert coherence(eye[:4], -eye[:4]) == -1.0


VECTORS = arrays(np.float64, (5, 4), elements=st.floats(0.1, 10))


@settings(deadline=None, max_examples=50)
@given(VECTORS, VECTORS)
def test_alignment_is_what_it_says(segments: np.ndarray, captions: np.ndarray) -> None:
    """Against loops over torch's cosine."""
    found = alignment(segments, captions)
    x, y = torch.from_numpy(segments), torch.from_numpy(captions)
    cosine = [[float(torch.cosine_similarity(a, b, dim=0)) for b in y] for a in x]
    np.testing.assert_allclose(found.similarity, cosine, atol=1e-9)
    right, margins = 0, []
    for i, line in enumerate(cosine):
        others = [value for j, value in enumerate(line) if j != i]
        right += line[i] > max(others)
        margins.append(line[i] - sum(others) / 4)
    if min(b - a for line in cosine for a, b in pairwise(sorted(line))) > 1e-9:  # No two values are alike.
        assert found.accuracy == right / 5
    assert found.margin == pytest.approx(sum(margins) / 5, abs=1e-9)
    pairs = [float(torch.cosine_similarity(x[i], x[j], dim=0)) for i in range(5) for j in range(i)]
    assert diversity(segments) == pytest.approx(1 - sum(pairs) / 10, abs=1e-9)
    assert coherence(segments, captions) == pytest.approx(sum(cosine[i][i] for i in range(5)) / 5, abs=1e-9)


class Colours(Clip):
    """An encoder with known answers: a picture is its mean colour, a text the colour that it names."""

    NAMES = (
        ("red", (255, 0, 0)),
        ("green", (0, 255, 0)),
        ("blue", (0, 0, 255)),
        ("yellow", (255, 255, 0)),
        ("pink", (255, 0, 255)),
    )

    def __init__(self) -> None: ...

    def pictures(self, frames: np.ndarray) -> np.ndarray:
        means: np.ndarray = frames.reshape(len(frames), -1, 3).mean(1)
        return means

    def texts(self, captions: object) -> np.ndarray:
        return np.array([dict(self.NAMES)[c] for c in captions], float)  # type: ignore[attr-defined]


def test_segments_are_matched_with_their_captions(tmp_path: Path) -> None:
    parts = [np.full((24, 64, 64, 3), colour, np.uint8) for _, colour in Colours.NAMES]
    write_video(tmp_path / "a.mp4", np.concatenate(parts), 8)
    subject = Subject(tmp_path / "a.mp4", tuple(name for name, _ in Colours.NAMES))
    gone = Subject(tmp_path / "none.mp4", ("red",) * 5)
    by = Backends(("dis", optical_flow("dis")), Colours())
    found = measure([subject, gone], by, lambda path: read_video(Path(path), 8)[0])
    assert (found["accuracy"], found["shuffled_accuracy"], found["videos"]) == (1.0, 0.0, 1)
    assert found["margin"] > 0.4 > 0 > found["shuffled_margin"]
    assert found["dynamic_degree_dis"] == 0.0
    assert list(found["failed"]) == [str(tmp_path / "none.mp4")]
    assert np.diag(found["similarity"]).min() > 0.95
    one = measure([Subject(tmp_path / "a.mp4", ("red",))], by, lambda path: read_video(Path(path), 8)[0])
    assert "accuracy" not in one  # One caption cannot be mistaken for another.
    assert one["diversity_clip"] == pytest.approx(found["diversity_clip"])


# ── weights ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def small_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Path]:
    """Both towers of a random CLIP of ViT-B/32's layout, two layers each, and its file, as OpenAI's holds it."""
    open_clip = pytest.importorskip("open_clip")
    config = {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 224, "layers": 2, "width": 64, "patch_size": 32},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2},
    }
    monkeypatch.setattr(open_clip, "get_model_config", lambda _name: config)
    monkeypatch.setenv("LONGTAKE_MODELS", str(tmp_path))
    monkeypatch.setitem(WEIGHTS, "clip-vit-b-32", replace(WEIGHTS["clip-vit-b-32"], size=None, sha256=None))
    torch.manual_seed(0)
    made = open_clip.CLIP(**config, quick_gelu=True).eval()
    sizes = {"input_resolution": 224, "context_length": 77, "vocab_size": 49408}
    torch.save(made.state_dict() | {k: torch.tensor(v) for k, v in sizes.items()}, tmp_path / "ViT-B-32.pt")
    return made, tmp_path / "ViT-B-32.pt"


def test_clip_is_open_clips_own(small_clip: tuple[Any, Path]) -> None:
    import open_clip

    peer, _ = small_clip
    frames, texts = moving(20, 3, 160)[:, :130], [*PROMPTS, "word " * 200]
    transform = open_clip.image_transform(224, is_train=False, resize_mode="shortest", interpolation="bicubic")
    with torch.no_grad():
        pictures = peer.encode_image(torch.stack([transform(Picture.fromarray(frame)) for frame in frames]))
        words = peer.encode_text(open_clip.tokenize(texts))
    found = Clip("ViT-B-32")
    np.testing.assert_allclose(found.pictures(frames), pictures.numpy(), atol=1e-5)
    np.testing.assert_allclose(found.texts(texts), words.numpy(), atol=1e-5)


class Bomb:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("touch exploded",)


def test_clip_weights_are_not_trusted(
    small_clip: tuple[Any, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer, path = small_clip
    monkeypatch.chdir(tmp_path)
    path.write_bytes(pickle.dumps({"visual.proj": Bomb()}))
    with pytest.raises(PrestoError, match=r"ViT-B-32\.pt is no readable weight file"):
        Clip("ViT-B-32")
    torch.save({"visual.proj": Bomb()}, path)
    with pytest.raises(PrestoError, match=r"ViT-B-32\.pt is no readable weight file"):
        Clip("ViT-B-32")
    assert not (tmp_path / "exploded").exists()
    torch.save({key: value for key, value in peer.state_dict().items() if "ln_final" not in key}, path)
    with pytest.raises(PrestoError, match=r"ViT-B-32\.pt holds the weights of another model.*ln_final"):
        Clip("ViT-B-32")
    path.unlink()
    with pytest.raises(PrestoError, match="longtake models pull clip-vit-b-32"):
        Clip("ViT-B-32")
    with pytest.raises(PrestoError, match="there is no CLIP 'huge'; there are ViT-L-14"):
        Clip("huge")


@needs_shared
def test_lpips_gives_the_published_distances(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGTAKE_MODELS", str(SHARED))
    images = SHARED / "lpips" / "images"
    ref, p0, p1 = (np.array(Picture.open(images / f"ex_{name}.png").convert("RGB")) for name in ("ref", "p0", "p1"))
    found = Distance("squeeze").neighbours(np.stack([p0, ref, ref, p1]))
    assert found == pytest.approx([0.71104753, 0, 0.14790161], abs=2e-7)
    with pytest.raises(PrestoError, match="longtake models pull alexnet"):
        Distance("alex")


# ── a folder ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_samples_are_measured_beside_real_clips(tmp_path: Path) -> None:
    """Real clips of one second, one of them still, are read as 16 frames of 128×128, as the samples have them."""
    made = samples(tmp_path / "made", [PROMPTS], 8)
    rows = [row(i, tmp_path / "real") for i in range(3)]
    for each, speed in zip(rows, (0, 8), strict=False):
        write_video(tmp_path / "real" / each["path"], moving(speed, 30, 160), 30)
    (tmp_path / "real" / rows[2]["path"]).write_bytes(b"no film")
    real = dataset(tmp_path / "real", rows)
    found = evaluate_folder(made, real, "dis", None, None, 10)
    assert found["samples"]["dynamic_degree_dis"] == 1.0
    assert (found["real"]["videos"], found["real"]["dynamic_degree_dis"]) == (2, 0.5)
    assert list(found["real"]["failed"]) == [str(tmp_path / "real" / rows[2]["path"])]
    assert "dynamic_degree_dis" in report(found)
    assert "cannot be decoded" in report(found)


@needs_shared
def test_the_command_line_names_its_backends(
    small_clip: tuple[Any, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    small_clip[1].rename(folder / "ViT-B-32.pt")
    (folder / "lpips").symlink_to(SHARED / "lpips")
    monkeypatch.setenv("LONGTAKE_MODELS", str(folder))
    made = samples(tmp_path / "made", [PROMPTS, PROMPTS], 8)
    arguments = ["evaluate", str(made), "-o", str(tmp_path / "out")]
    done = runner.invoke(app, [*arguments, "--clip", "ViT-B-32", "--lpips", "squeeze"])
    assert done.exit_code == 0, done.output
    assert "shuffled_margin" in done.output
    found = json.loads((tmp_path / "out" / "evaluation.json").read_text())["samples"]
    assert (found["videos"], found["dynamic_degree_dis"]) == (2, 1.0)
    assert {"accuracy", "shuffled_accuracy", "margin", "shuffled_margin", "coherence_clip"} <= set(found)
    assert np.array(found["similarity"]).shape == (5, 5)
    assert 0 < found["boundary_lpips_squeeze"] < found["diversity_lpips_squeeze"]
    wrong = runner.invoke(app, [*arguments, "--lpips", "resnet"])
    assert wrong.exit_code == 2
    assert "there is no LPIPS 'resnet'; there are alex" in wrong.output


def test_vbench_names(tmp_path: Path) -> None:
    """VBench takes the prompt out of a name by cutting off `-<digits>`, and finds its own by f"{prompt}-{i}.mp4"."""
    texts = [["a/../b", "c-3"], ["a/../b", "c-3"], ["é" * 200, "end"]]
    made = samples(tmp_path / "made", texts, 2)
    standard = "A person is petting animal (not cat)"
    (made / "0000.json").write_text(json.dumps({"prompts": PROMPTS, "idea": standard}))
    videos = export_vbench(made, tmp_path / "vbench")
    names = {p.name for p in videos.iterdir()}
    assert names == {f"{standard}-0.mp4", "a .. b c-3-0.mp4", "é" * 120 + "-0.mp4"}
    prompts = json.loads((tmp_path / "vbench" / "prompts.json").read_text())
    assert prompts == {
        f"{standard}-0.mp4": standard,
        "a .. b c-3-0.mp4": "a/../b c-3",
        "é" * 120 + "-0.mp4": "é" * 200 + " end",
    }
    (made / "0000.json").write_text(json.dumps({"prompts": texts[1]}))
    export_vbench(made, tmp_path / "again")
    assert (tmp_path / "again" / "videos" / "a .. b c-3-1.mp4").is_file()
    with pytest.raises(PrestoError, match="holds no samples"):
        samples_of(videos)
