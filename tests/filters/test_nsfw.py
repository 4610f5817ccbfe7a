"""The detector against a calculation by torch on random weights of its shape, in an archive written as Keras writes it."""

from __future__ import annotations

import hashlib
import math
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from longtake.curation.recipe import RecipeError, parse_recipe
from longtake.curation.stages.score import _input
from longtake.filters import weights
from longtake.filters.base import FilterUnavailable, MeasureError, Needs, Score
from longtake.filters.keras_variables import ATTRIBUTE, read_variables
from longtake.filters.nsfw import KNOWN, LAYERS, WEIGHT, Nsfw
from tests.filters.pictures import pan, sample

torch = pytest.importorskip("torch")

Arrays = Mapping[str, npt.NDArray[np.float32]]


def number(value: int) -> bytes:
    """As a varint."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def block(entries: list[tuple[bytes, bytes]], every: int) -> bytes:
    """A block of a sorted string table; every so many entries a whole key stands."""
    out, before, restarts = bytearray(), b"", []
    for i, (key, value) in enumerate(entries):
        shared = 0
        if i % every:
            shared = next((n for n, (a, b) in enumerate(zip(before, key, strict=False)) if a != b), len(before))
        else:
            restarts.append(len(out))
        out += number(shared) + number(len(key) - shared) + number(len(value)) + key[shared:] + value
        before = key
    return bytes(out) + b"".join(r.to_bytes(4, "little") for r in [*restarts, len(restarts)])


def write_archive(path: Path, arrays: Arrays) -> None:
    """Variables as Keras saves them: the values one after the other, and a table of where each lies."""
    data, entries = bytearray(), [(b"", b"\x08\x01")]
    for name in sorted(arrays):
        values = np.ascontiguousarray(arrays[name], "<f4")
        shape = b"".join(b"\x12" + number(len(size)) + size for size in (b"\x08" + number(n) for n in values.shape))
        place = (b"\x20" + number(len(data)) if data else b"") + b"\x28" + number(values.nbytes) + b"\x35abcd"
        entries.append(((name + ATTRIBUTE).encode(), b"\x08\x01\x12" + number(len(shape)) + shape + place))
        data += values.tobytes()
    table = bytearray()
    places = []
    for part in (entries[:5], entries[5:]):
        body = block(part, 3)
        places.append((part[-1][0], number(len(table)) + number(len(body))))
        table += body + b"\0" + b"\0\0\0\0"
    index = block(places, 1)
    footer = number(0) + number(0) + number(len(table)) + number(len(index))
    table += index + b"\0" + b"\0\0\0\0" + footer.ljust(40, b"\0") + (0xDB4775248B80FB57).to_bytes(8, "little")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/variables/variables.index", bytes(table))
        archive.writestr("model/variables/variables.data-00000-of-00001", bytes(data))


def random_weights(seed: int = 0) -> dict[str, npt.NDArray[np.float32]]:
    random = np.random.default_rng(seed)
    arrays = {
        "layer_with_weights-1/mean": random.normal(0, 0.03, 768),
        "layer_with_weights-1/variance": random.uniform(1e-4, 1e-2, 768),
    }
    for i, (wide, narrow) in enumerate(LAYERS, 2):
        arrays[f"layer_with_weights-{i}/kernel"] = random.normal(0, wide**-0.5, (wide, narrow))
        arrays[f"layer_with_weights-{i}/bias"] = random.normal(0, 0.1, narrow)
    return {name: values.astype(np.float32) for name, values in arrays.items()}


@pytest.fixture
def arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Arrays:
    """Random weights in the place of the published ones."""
    found = random_weights()
    monkeypatch.setenv("LONGTAKE_MODELS", str(tmp_path))
    put(found, tmp_path, monkeypatch)
    return found


def put(arrays: Arrays, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / weights.WEIGHTS[WEIGHT].filename
    path.parent.mkdir(parents=True, exist_ok=True)
    write_archive(path, arrays)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    mine = replace(weights.WEIGHTS[WEIGHT], sha256=digest, size=path.stat().st_size)
    monkeypatch.setitem(weights.WEIGHTS, WEIGHT, mine)


def network(arrays: Arrays) -> torch.nn.Sequential:
    """The same model out of torch's own layers."""
    norm = torch.nn.BatchNorm1d(768, eps=0.0, affine=False)
    norm.running_mean = torch.tensor(arrays["layer_with_weights-1/mean"])
    norm.running_var = torch.tensor(arrays["layer_with_weights-1/variance"])
    layers: list[torch.nn.Module] = [norm]
    for i, (wide, narrow) in enumerate(LAYERS, 2):
        linear = torch.nn.Linear(wide, narrow)
        linear.weight.data = torch.tensor(arrays[f"layer_with_weights-{i}/kernel"].T.copy())
        linear.bias.data = torch.tensor(arrays[f"layer_with_weights-{i}/bias"])
        layers += [linear, torch.nn.ReLU() if narrow > 1 else torch.nn.Sigmoid()]
    return torch.nn.Sequential(*layers).eval()


def embeddings(count: int, seed: int = 1) -> npt.NDArray[np.float16]:
    rows = np.random.default_rng(seed).normal(size=(count, 768))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


def test_scores_are_those_of_the_network(arrays: Arrays) -> None:
    clips = [embeddings(5, seed) for seed in range(20)]
    model = network(arrays)
    for clip, score in zip(clips, Nsfw().measure(clips), strict=True):
        rows = clip.astype(np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        rows[:, KNOWN] = 1.0
        with torch.no_grad():
            expected = model(torch.tensor(rows)).numpy()[:, 0]
        assert isinstance(score, Score)
        assert score.detail == pytest.approx(expected, abs=1e-5)
        assert score.value == max(score.detail)  # The worst keyframe gives the score.
    assert max(s.value for s in Nsfw().measure(clips) if isinstance(s, Score)) > 0.5


def test_the_archive_reads_as_it_was_written(arrays: Arrays) -> None:
    read = read_variables(weights.find_weight(WEIGHT))
    assert set(read) == set(arrays)
    for name, values in arrays.items():
        assert np.array_equal(read[name], values)


def test_a_clip_without_embeddings_is_not_known_and_others_are_faults(arrays: Arrays) -> None:
    missing, other, zero = Nsfw().measure([None, embeddings(5)[:, :512], np.zeros((5, 768))])
    assert isinstance(missing, Score)
    assert math.isnan(missing.value)
    assert isinstance(other, MeasureError)
    assert "768" in str(other)
    assert isinstance(zero, MeasureError)


def test_a_file_of_another_model_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGTAKE_MODELS", str(tmp_path))
    wrong = {**random_weights(), "layer_with_weights-3/kernel": np.zeros((64, 32), np.float32)}
    put(wrong, tmp_path, monkeypatch)
    with pytest.raises(FilterUnavailable, match="another model"):
        Nsfw().measure([embeddings(5)])


@pytest.mark.parametrize("length", [10, 100, 800])
def test_a_file_that_is_cut_off_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int) -> None:
    monkeypatch.setenv("LONGTAKE_MODELS", str(tmp_path))
    put(random_weights(), tmp_path, monkeypatch)
    path = weights.find_weight(WEIGHT)
    with zipfile.ZipFile(path) as archive:
        index = archive.read("model/variables/variables.index")
        data = archive.read("model/variables/variables.data-00000-of-00001")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/variables/variables.index", index[-length:])
        archive.writestr("model/variables/variables.data-00000-of-00001", data)
    monkeypatch.setitem(weights.WEIGHTS, WEIGHT, replace(weights.WEIGHTS[WEIGHT], sha256=None, size=None))
    with pytest.raises(FilterUnavailable, match="no readable weight file"):
        Nsfw().measure([embeddings(5)])


def test_the_score_stage_hands_over_the_embeddings_of_the_clip(arrays: Arrays) -> None:
    samples = {"a": sample(pan())}
    given = _input(Nsfw(), {"clip_id": "a", "keyframe_embeddings": embeddings(5).ravel().tolist()}, samples)
    assert np.array_equal(given, embeddings(5))
    assert _input(Nsfw(), {"clip_id": "a"}, samples) is None


def test_a_recipe_needs_the_filter_that_embeds() -> None:
    plain = {"name": "r", "filters": {"nsfw": {}}, "tiers": {"pretrain": {"nsfw": "<= 0.5"}}}
    with pytest.raises(RecipeError, match="aesthetic"):
        parse_recipe(plain, source="test")
    recipe = parse_recipe({**plain, "filters": {"nsfw": {}, "aesthetic": {}}}, source="test")
    assert list(recipe.needing(Needs.FRAMES)) == ["aesthetic", "nsfw"]
    other = {"nsfw": {}, "aesthetic": {"backend": "laion-v1", "clip": "ViT-B-32"}}
    with pytest.raises(FilterUnavailable, match="ViT-B-32"):
        _ = parse_recipe({**plain, "filters": other}, source="test").built["nsfw"].protocol
