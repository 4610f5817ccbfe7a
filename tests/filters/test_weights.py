from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from longtake.filters import weights
from longtake.filters.base import FilterUnavailable
from longtake.filters.weights import WEIGHTS

torch = pytest.importorskip("torch")

SHARED = Path(__file__).parents[3] / "shared" / "models"
HEAD = "aesthetic-v1-vit-b-32"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/models")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LONGTAKE_MODELS", str(tmp_path))
    return tmp_path


def put(folder: Path, monkeypatch: pytest.MonkeyPatch, content: object, sha256: str | None = None) -> Path:
    """A file in the place of the weight HEAD, whose published size and hash are set aside."""
    path = folder / WEIGHTS[HEAD].filename
    path.parent.mkdir(exist_ok=True)
    torch.save(content, path)
    monkeypatch.setitem(WEIGHTS, HEAD, replace(WEIGHTS[HEAD], size=None, sha256=sha256))
    return path


def test_the_table_states_whole_hashes_or_their_published_start() -> None:
    assert len({weight.filename for weight in WEIGHTS.values()}) == len(WEIGHTS)
    for weight in WEIGHTS.values():
        assert weight.sha256 is None or (len(weight.sha256) in (8, 64) and int(weight.sha256, 16) >= 0)
        if weight.sha256 and len(weight.sha256) == 8:  # By torchvision's rule, the name ends in the start of the hash.
            assert weight.filename.endswith(f"-{weight.sha256}.pth")


@needs_shared
def test_hashes_and_sizes_are_those_of_the_real_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGTAKE_MODELS", str(SHARED))
    sums = {line.split()[1].removeprefix("./"): line.split()[0] for line in (SHARED / "SHA256SUMS").open()}
    here = [weight for weight in WEIGHTS.values() if weight.filename in sums]
    assert len(here) == 6
    for weight in here:
        assert weight.sha256 == sums[weight.filename]
        assert weights.verify(weight.name) == SHARED / weight.filename
        assert weights.load_weight(weight.name)
    assert sorted(weights.missing(WEIGHTS)) == sorted(set(WEIGHTS) - {weight.name for weight in here})


def test_a_missing_file_is_named_with_its_source_and_the_command(folder: Path) -> None:
    with pytest.raises(FilterUnavailable) as caught:
        weights.find_weight("alexnet")
    for part in (str(folder / "lpips/alexnet-owt-7be5be79.pth"), WEIGHTS["alexnet"].source, "models pull alexnet"):
        assert part in str(caught.value)
    assert weights.missing(["alexnet"]) == ["alexnet"]


def test_a_file_may_lie_directly_in_the_folder(folder: Path) -> None:
    (folder / "vgg16-397923af.pth").touch()
    assert weights.find_weight("vgg16") == folder / "vgg16-397923af.pth"


def test_a_uri_is_no_folder_to_read_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGTAKE_MODELS", "s3://bucket/models")
    with pytest.raises(FilterUnavailable, match="s3://bucket/models"):
        weights.find_weight("alexnet")
    assert weights.missing(["alexnet"]) == ["alexnet"]


@needs_shared
def test_truncated_and_altered_files_are_refused(folder: Path) -> None:
    path = folder / Path(WEIGHTS[HEAD].filename).name
    whole = (SHARED / WEIGHTS[HEAD].filename).read_bytes()
    path.write_bytes(whole)
    assert weights.load_weight(HEAD)["weight"].shape == (1, 512)
    path.write_bytes(whole[:-100])
    with pytest.raises(FilterUnavailable, match=f"{path.name}.* bytes"):
        weights.load_weight(HEAD)
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(FilterUnavailable, match=f"{path.name}.*SHA-256"):
        weights.load_weight(HEAD)


def test_the_start_of_a_hash_is_checked(folder: Path) -> None:
    path = folder / "alexnet-owt-7be5be79.pth"
    path.write_bytes(b"something else")
    with pytest.raises(FilterUnavailable, match="not 7be5be79"):
        weights.verify("alexnet")


def test_a_hash_recorded_at_the_first_pull_is_the_expected_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(folder, monkeypatch, {"weight": torch.ones(2)})
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert weights.expected_sha256(HEAD) is None
    assert weights.record_sha256(path) == digest == weights.expected_sha256(HEAD)
    assert path.with_name(path.name + ".sha256").read_text() == f"{digest}  {path.name}\n"
    assert weights.weight_tag(HEAD) == digest[:8]
    torch.save({"weight": torch.zeros(2)}, path)
    os.utime(path, ns=(1, 1))
    with pytest.raises(FilterUnavailable, match="SHA-256"):
        weights.verify(HEAD)


def test_a_tag_of_the_table_needs_no_file(folder: Path) -> None:
    assert weights.weight_tag("vgg16") == "397923af"
    with pytest.raises(FilterUnavailable):
        weights.weight_tag("unimatch")


def test_wrappers_come_off_and_half_precision_becomes_whole(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(folder, monkeypatch, {"model": {"module.a.weight": torch.ones(2, dtype=torch.float16)}, "step": 3})
    state = weights.load_weight(HEAD)
    assert list(state) == ["a.weight"]
    assert state["a.weight"].dtype == torch.float32


class Trap:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("trapped",)


@pytest.mark.parametrize("content", [Trap(), {"weight": torch.tensor([1.0, float("nan")])}, {"weight": 3}, [1]])
def test_content_that_is_no_weight_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch, content: object) -> None:
    path = put(folder, monkeypatch, content)
    monkeypatch.chdir(folder)
    with pytest.raises(FilterUnavailable, match=path.name):
        weights.load_weight(HEAD)
    assert not (folder / "trapped").exists()


def test_npz_with_pickles_and_safetensors(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors.torch import save_file

    monkeypatch.setitem(WEIGHTS, HEAD, replace(WEIGHTS[HEAD], filename="a.npz", size=None, sha256=None))
    np.savez(folder / "a.npz", weight=np.array([{}], dtype=object))
    with pytest.raises(FilterUnavailable, match=r"a\.npz"):
        weights.load_weight(HEAD)
    np.savez(folder / "a.npz", weight=np.arange(3.0))
    assert weights.load_weight(HEAD)["weight"].tolist() == [0, 1, 2]
    monkeypatch.setitem(WEIGHTS, HEAD, replace(WEIGHTS[HEAD], filename="a.safetensors"))
    save_file({"weight": torch.arange(3.0)}, folder / "a.safetensors")
    assert weights.load_weight(HEAD)["weight"].tolist() == [0, 1, 2]


def test_torchscript_is_opened_only_under_a_known_hash(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "aesthetic" / "script.pt"
    path.parent.mkdir()
    module = torch.nn.Linear(3, 1)
    torch.jit.trace(module, torch.ones(1, 3)).save(str(path))
    entry = replace(WEIGHTS[HEAD], filename="aesthetic/script.pt", size=None, sha256=None)
    monkeypatch.setitem(WEIGHTS, HEAD, entry)
    with pytest.raises(FilterUnavailable, match="TorchScript"):
        weights.load_weight(HEAD)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setitem(WEIGHTS, HEAD, replace(entry, sha256=digest))
    assert torch.equal(weights.load_weight(HEAD)["weight"], module.weight)


@needs_shared
def test_weights_of_another_model_are_refused(folder: Path) -> None:
    shutil.copy(SHARED / WEIGHTS[HEAD].filename, folder)
    with pytest.raises(FilterUnavailable, match=r"sa_0_4_vit_b_32_linear\.pth holds the weights of another model"):
        weights.fill(torch.nn.Linear(768, 1), weights.load_weight(HEAD), HEAD)
