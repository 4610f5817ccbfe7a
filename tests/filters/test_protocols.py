"""Protocols say what a score means: they stay as they were stored, and code that measures does not change unseen."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from longtake.curation import recipe as recipes
from longtake.curation.recipe import load_recipe
from longtake.filters import lpips
from longtake.filters.flow_dis import FlowDis
from longtake.filters.registry import BUILT_IN, build
from tests.filters.accept_fingerprints import TABLE, Measured, current, fingerprint_of, forgotten, stored, text

ASK = """
These scores are stored under a protocol that has not changed, while the code that measures them has:
{changed}
If their values can change, raise the `version` of the filter's class (METHOD in artifacts.py, SAMPLE_VERSION in
curation/recipe.py, the number in the captioner's protocol), so that old scores become stale. If no value changes, the new
code can be accepted as it is. In both cases then run `python -m tests.filters.accept_fingerprints`."""


@pytest.fixture(scope="module")
def now() -> dict[str, Measured]:
    return current()


def test_nobody_changes_what_a_score_means_and_forgets_to_say_so(now: dict[str, Measured]) -> None:
    changed = "\n".join(f"  {name}: {', '.join(modules)}" for name, modules in forgotten(stored(), now).items())
    assert not changed, ASK.format(changed=changed)
    assert TABLE.read_text(encoding="utf-8") == text(now), "run `python -m tests.filters.accept_fingerprints`"


def test_everything_measured_is_watched(now: dict[str, Measured]) -> None:
    assert set(now) >= {f"{name}.{backend}" for name, backends in BUILT_IN.items() for backend in backends}
    watched = {path for measured in now.values() for path in measured.modules}
    root = Path(__file__).parents[2]
    modules = {path.relative_to(root).as_posix() for path in (root / "filters").glob("*.py")} - {"filters/__init__.py"}
    plumbing = {f"filters/{name}.py" for name in ("gates", "keras_variables", "registry", "verdicts", "weights")}
    assert modules - watched == plumbing
    assert {"curation/reading/pictures.py", "curation/reading/one_pass.py", "curation/reading/decoding.py"} <= watched


CODE = '''
"""What it does."""
import numpy as np
LIMIT: float = 0.5  # why

class Settings(FilterSettings):
    side: int = Field(480, ge=1, description="px")

class Filter:
    """Measures."""
    cost: ClassVar[float] = 3.0
    def measure(self, x: float) -> float:
        """The value."""
        if x < 0:
            raise MeasureError(f"negative: {x}")
        return x * LIMIT
'''


@pytest.mark.parametrize(
    ("old", "new", "other"),
    [
        ("0.5", "0.6", True),
        ("x * LIMIT", "x / LIMIT", True),
        ("x < 0", "x <= 0", True),
        ("Field(480", "Field(960", True),
        ("# why", "# another reason", False),
        ("What it does", "What else it does", False),
        ("The value", "The same value", False),
        ("negative:", "below zero:", False),
        ('"px"', '"pixels"', False),
        ("= 3.0", "= 4.0", False),
        ("x: float) -> float", "x)", False),
        ("import numpy as np", "import numpy", False),
        ("LIMIT: float", "LIMIT", False),
    ],
)
def test_a_fingerprint_is_of_what_bears_on_values(old: str, new: str, other: bool) -> None:
    changed = CODE.replace(old, new)
    assert changed != CODE
    assert (fingerprint_of(ast.parse(changed).body) != fingerprint_of(ast.parse(CODE).body)) == other


def test_what_is_forgotten_is_named_until_the_protocol_changes(now: dict[str, Measured]) -> None:
    old = stored()
    module = "filters/grayscale.py"
    edited = {
        name: replace(measured, modules={**measured.modules, module: "0"}) if module in measured.modules else measured
        for name, measured in now.items()
    }
    assert set(forgotten(old, edited)) == {
        "grayscale.mean", "artifacts.rapidocr", "artifacts.borders", "artifact_keyframes.rapidocr",
        "artifact_keyframes.borders", "psnr.grey", "ssim.grey", "flow.dis", "flow.unimatch",
        "flow.raft", "captions.descriptors", "burnt.luma", "black.luma", "contrast.luma", "blur.laplacian", "blurred.edges",
        "jitter.global", "camera.global", "camera_confidence.global", "phash.dct",
    }  # fmt: skip
    assert forgotten(old, edited)["psnr.grey"] == [module]
    edited["psnr.grey"] = replace(edited["psnr.grey"], protocol="grey/another/mean")
    assert "psnr.grey" not in forgotten(old, edited)


# ── protocols are stored: they stay as they are ──────────────────────────────────────────────────────────────────────

PAD = "960pad8,keyframe-partner,per0.5s@960"
STORED: list[tuple[str, dict[str, Any], str]] = [
    ("width", {"reduce": "min"}, "probe/displayed/min"),
    ("height", {}, "probe/displayed/mean"),
    ("fps", {}, "probe/nominal/mean"),
    ("fps", {"nominal": False}, "probe/average/mean"),
    ("duration", {}, "probe/clip/mean"),
    ("grayscale", {"reduce": "every"}, "mean/rgb601,keyframes+partners/every"),
    ("artifacts", {"backend": "borders"}, "borders/bars10+panels480.7+marks480.13/max"),
    ("artifacts", {"backend": "borders", "reduce": "mean"}, "borders/bars10+panels480.7+marks480.13/mean"),
    ("artifact_keyframes", {"backend": "borders"}, "borders/bars10+panels480.7+marks480.13,over0.02/mean"),
    ("psnr", {}, "grey/bt601,neighbouring-keyframes@3s,cap100/mean"),
    ("psnr", {"spacing": "any"}, "grey/bt601,neighbouring-keyframes@any,cap100/mean"),
    ("ssim", {"spacing": 2.4}, "grey/bt601,uniform7,neighbouring-keyframes@2.4s/mean"),
    ("aesthetic", {}, "laion-v2/ViT-L-14@b8cca3fd+head@21dd590f,center224,keyframes/mean"),
    (
        "aesthetic",
        {"crop": "squash", "precision": "bfloat16", "batch": 3, "memory": 100, "device": "cuda"},
        "laion-v2/ViT-L-14@b8cca3fd+head@21dd590f,squash224,keyframes,bfloat16/mean",
    ),
    (
        "aesthetic",
        {"backend": "laion-v1", "clip": "ViT-B-16", "crop": "pad", "reduce": "min"},
        "laion-v1/ViT-B-16@5806e77c+head@8ad3923d,pad224,keyframes/min",
    ),
    ("flow", {}, "dis/fast480+phase240,15pairs,per0.5s@960/mean"),
    ("flow", {"pairs": "stored"}, "dis/fast480+phase240,keyframe-partner,per0.5s@960/mean"),
    ("frozen", {}, "thumbs/block8,repeat0.2or3%,hold1.5for0.5s,gaps/mean"),
    ("repeats", {}, "thumbs/grid16,within20%,atleast2,for1s,gaps/mean"),
    ("phash", {}, "dct/halved,32x32,8x8>median,flat8/mean"),
    ("copies", {}, "phash/bits<=8,best-first/mean"),
    ("concept", {"clusters": 64}, "kmeans/64,spherical,fit100,seed0/mean"),
    ("nsfw", {}, "laion/ViT-L-14@b8cca3fd,center224+head@905520bb,keyframes/max"),
    ("flow", {"backend": "raft"}, f"raft/large@ff5fadd5,12updates,{PAD}/mean"),
    (
        "flow",
        {"backend": "raft", "variant": "small", "source": "princeton", "precision": "float16", "device": "cuda"},
        f"raft/small@c7d41b9c,12updates,{PAD},float16/mean",
    ),
    ("duplicates", {}, "clip/cosine>=0.95,best-first,exact<=100000/mean"),
    ("duplicates", {"threshold": 1, "exact_up_to": 0}, "clip/cosine>=1,best-first,exact<=0/mean"),
]


@pytest.mark.parametrize(("name", "settings", "protocol"), STORED)
def test_protocols_are_those_that_scores_are_stored_under(
    name: str, settings: dict[str, Any], protocol: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LONGTAKE_MODELS", str(tmp_path))
    assert build(name, settings).protocol == protocol


def test_of_the_settings_those_without_effect_are_in_no_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lpips, "_heads_hash", lambda net: "0" * 64)
    plain = build("lpips", {}).protocol
    assert build("lpips", {"batch": 1, "device": "cpu", "memory": 9}).protocol == plain
    assert build("lpips", {"precision": "bfloat16"}).protocol == plain.replace("@3s/", "@3s,bfloat16/")


def test_a_raised_version_makes_another_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    class Mended(FlowDis):
        version: ClassVar[int] = 2

    assert Mended().protocol == "dis/fast480+phase240,15pairs,per0.5s@960,v2/mean"
    recipe = load_recipe("embedded")
    assert recipe.clip_protocol == "fd2754d26e1deddb"
    monkeypatch.setattr(recipes, "SAMPLE_VERSION", 99)
    assert load_recipe("embedded").clip_protocol != recipe.clip_protocol
