"""Recipes: what ships is the paper's table, what is wrong is named, and what is written reads back the same."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from longtake.captioning.registry import names
from longtake.curation.reading.encoding import EncodeSettings
from longtake.curation.recipe import (
    Recipe,
    RecipeError,
    differences,
    load_recipe,
    parse_recipe,
    parse_yaml,
    shipped,
    stale_scores,
)
from longtake.curation.workspace import Workspace
from longtake.curation.yaml_lines import read_yaml
from longtake.filters.base import Needs
from longtake.filters.gates import Gate
from longtake.manifests.dataset.shards import caption_frames

INF = math.inf
# Table 4 of the Presto paper, as section 5 of the design has it: gate → (pretrain, finetune)
TABLE_4 = {
    "width": ((1280, INF), (1280, INF)),
    "height": ((720, INF), (720, INF)),
    "fps": ((24, 60), (24, 60)),
    "duration": ((15, INF), (15, INF)),
    "grayscale": ((20, 180), (20, 180)),
    "aesthetic": ((4.8, INF), (5.0, INF)),
    "artifacts": ((-INF, 0.05), (-INF, 0.05)),
    "flow": ((40, INF), (50, INF)),
    "psnr": ((4, 20), (4, 20)),
    "ssim": ((0, 0.7), (0, 0.7)),
    "lpips": ((0.4, INF), (0.5, 0.8)),
    "text_similarity": ((-INF, 0.75), (0, 0.75)),
}


def plain(**changes: Any) -> dict[str, Any]:
    """A small recipe as plain data."""
    data: dict[str, Any] = {
        "name": "small",
        "filters": {"width": {}, "psnr": {}},
        "tiers": {"pretrain": {"width": ">= 64", "psnr": "[4, 20]"}},
    }
    return {**data, **changes}


def faults(data: object) -> str:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(data, source="my.yaml")
    return str(caught.value)


# ── what ships ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_papers_recipe_is_its_table_4() -> None:
    tiers = load_recipe("longtake-hd").tiers
    assert set(tiers) == {"pretrain", "finetune"}
    for i, tier in enumerate(("pretrain", "finetune")):
        assert {name: (gate.low, gate.high) for name, gate in tiers[tier].items()} == {
            name: both[i] for name, both in TABLE_4.items()
        }


def test_the_default_recipe_is_table_4_less_what_no_package_carries() -> None:
    recipe = load_recipe("embedded")
    assert set(recipe.not_applied) == {"aesthetic", "lpips"}
    for i, tier in enumerate(("pretrain", "finetune")):
        gates = recipe.tiers[tier]
        assert set(gates) == set(TABLE_4) - set(recipe.not_applied)
        # Its captions are alike by construction, and its flow is by DIS, which reads lower: thresholds of their own.
        for name in set(gates) - {"text_similarity", "flow"}:
            assert (gates[name].low, gates[name].high) == TABLE_4[name][i], name
        assert gates["flow"].low == 0.8 * TABLE_4["flow"][i][0]


@pytest.mark.parametrize("name", ["embedded", "longtake-hd"])
def test_what_ships_is_split_sampled_and_exported_as_designed(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert (recipe.splitting.min_seconds, recipe.splitting.window_seconds) == (15, 15)
    assert (recipe.sampling.keyframes, recipe.sampling.partner_seconds) == (5, 0.5)
    assert (recipe.export.fps, recipe.export.frames) == (30, 450)
    assert set(recipe.built) == set(recipe.filters)
    assert list(recipe.needing(Needs.CAPTIONS)) == ["text_similarity"]
    costs = [f.cost for f in recipe.needing(Needs.SAMPLE).values()]
    assert costs == sorted(costs)


def test_every_shipped_recipe_can_be_loaded_by_name_and_by_path() -> None:
    assert set(shipped()) >= {"embedded", "longtake-hd"}
    for name, path in shipped().items():
        assert load_recipe(name) == load_recipe(str(path)) == load_recipe(path)


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    written: dict[str, Any] = json.loads(json.dumps(Recipe.model_json_schema()))
    jsonschema.Draft202012Validator.check_schema(written)
    return written


def test_the_json_schema_takes_what_ships(schema: dict[str, Any]) -> None:
    for name, path in shipped().items():
        jsonschema.validate(yaml.safe_load(path.read_text()), schema)
        # The dump has every default written out.
        jsonschema.validate(load_recipe(name).model_dump(mode="json"), schema)


def captioned(captioner: str, **settings: Any) -> dict[str, Any]:
    return plain(captioning={"captioner": captioner, "settings": settings})


@pytest.mark.parametrize(
    "wrong",
    [
        plain(splittting={}),
        plain(sampling={"keyframes": 1}),
        plain(tiers={}),
        plain(tiers={"a" * 300: {}}),
        plain(tiers={"a": {"width": 3}}),
        plain(tiers={"a": {"width": [1, 2, 3]}}),
        plain(tiers={"a": {"widht": ">= 3"}}),
        plain(filters={"widht": {}}),
        plain(filters={"width": {"backend": "header"}}),
        plain(filters={"width": {"reduce": "median"}}),
        plain(filters={"flow": {"variant": "small"}}),  # The setting belongs to raft, and dis is the first backend.
        plain(filters={"flow": {"backend": "raft", "variant": "scale1"}}),
        plain(filters={"flow": {"backend": "raft", "device": "tpu"}}),
        plain(filters={"flow": {"backend": "raft", "precision": "float8"}}),
        plain(filters={"flow": {"backend": "raft", "batch": 2.5}}),
        plain(filters={"flow": {"backend": "raft", "batch": 0}}),
        captioned("poet"),
        captioned("descriptors", seed=3),
        plain(captioning={"settings": {"seed": 3}}),
        captioned("openai", concurency=3),
        captioned("openai", concurrency=0),
        captioned("transformers"),
        captioned("transformers", path="x", concurrency=3),
    ],
)
def test_the_json_schema_refuses_what_does_not_load(schema: dict[str, Any], wrong: dict[str, Any]) -> None:
    assert not jsonschema.Draft202012Validator(schema).is_valid(wrong)
    faults(wrong)


@pytest.mark.parametrize(
    "right",
    [
        plain(filters={"width": {"backend": "probe", "reduce": "min"}, "psnr": {}}),
        plain(filters={"width": {}, "psnr": {}, "flow": {"backend": "raft", "variant": "small", "memory": None}}),
        plain(filters={"width": {}, "psnr": {}, "flow": {"backend": "unimatch", "variant": "scale1", "batch": 2}}),
        plain(filters={"width": {}, "psnr": {}, "lpips": {"precision": "bfloat16"}}),
        plain(tiers={"a": {"width": [1, None]}}),
        captioned("openai", words=[10, 20], concurrency=3, endpoint=None, prompts={"tell": "x"}),
        captioned("transformers", path="x"),
    ],
)
def test_the_json_schema_takes_what_loads(schema: dict[str, Any], right: dict[str, Any]) -> None:
    jsonschema.validate(right, schema)
    parse_recipe(right, source="x")


def test_the_json_schema_tells_an_editor_the_settings_of_each_backend(schema: dict[str, Any]) -> None:
    flow = {
        one["properties"]["backend"]["const"]: one
        for one in schema["properties"]["filters"]["properties"]["flow"]["oneOf"]
    }
    assert list(flow) == ["dis", "unimatch", "raft"]
    assert ["backend" in one.get("required", []) for one in flow.values()] == [False, True, True]
    assert flow["raft"]["properties"]["variant"]["enum"] == ["small", "large"]
    assert flow["raft"]["properties"]["batch"]["description"]
    assert schema["$defs"]["Captioning"]["properties"]["captioner"]["enum"] == names()


def test_the_json_schema_knows_every_section_and_allows_no_other_key() -> None:
    schema = Recipe.model_json_schema()
    assert set(schema["properties"]) == set(Recipe.model_fields)
    assert all(part["additionalProperties"] is False for part in (schema, *schema["$defs"].values()))


# ── what is wrong ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_unknown_key_is_answered_with_the_nearest_one() -> None:
    message = faults(plain(spliting={}, sampling={"keyframe": 5}, zzz=1))
    assert message.splitlines() == [
        "my.yaml: this recipe cannot be used:",
        "  spliting: unknown key; did you mean 'splitting'?",
        "  sampling.keyframe: unknown key; did you mean 'keyframes'?",
        "  zzz: unknown key; there are: name, description, source, not_applied, scan, splitting, sampling, crop, "
        "filters, tiers, captioning, export",
    ]


WRONG = """\
name: no spaces please
sampling:
  keyframes: many
splitting: {detector: adaptiv, min_seconds: 20, window_seconds: 10}
filters:
  width: {}
  flow:
    backend: raft
    device: tpu
    precision: float8
    batch: 2.5
  psnr: {reduc: min}
  artifcats: {}
  ssim: {backend: gray}
  width: {}
tiers:
  pretrain: &pretrain
    widht: '>= 64'
    psnr: '> 3'
  finetune:
    <<: *pretrain
    psnr: [20, 4]
  no name: {}
export:
  formats: [parquet, webdatset]
  crf: 99
captioning:
  captioner: openai
  settings:
    concurency: 3
    temperature: sk-not-to-be-shown
    prompts: nowhere
    refiner: {captioner: sidecar}
  settings: {max_tokens: 3, modle: sk-not-to-be-shown}
"""


def test_every_fault_is_listed_by_its_line() -> None:
    """Structural ones, those of filters, gates, tiers, and of the captioner, in one go; of the doubled key the last counts."""
    with pytest.raises(RecipeError) as caught:
        parse_yaml(WRONG.encode(), source="my.yaml")
    known = "(width, flow, psnr, artifcats, ssim); did you mean 'width'?"
    assert str(caught.value).splitlines() == [
        "my.yaml: this recipe cannot be used:",
        "  line 1: name: must be a text such as 'my-recipe' (letters, digits, _, . and -), not 'no spaces please'",
        "  line 3: sampling.keyframes: must be a whole number from 2, not 'many'",
        "  line 4: splitting.detector: must be one of network, adaptive, content, transnetv2 or none, not 'adaptiv'; did you "
        "mean 'adaptive'?",
        "  line 4: splitting.window_seconds: must not be smaller than min_seconds",
        "  line 9: filters.flow.device: must be one of auto, cpu or cuda, not 'tpu'; did you mean 'cpu'?",
        "  line 10: filters.flow.precision: must be one of float32, float16 or bfloat16, not 'float8'; did you mean 'float32'?",
        "  line 11: filters.flow.batch: must be a whole number from 1, not 2.5",
        "  line 12: filters.psnr.reduc: unknown setting; did you mean 'reduce'?",
        "  line 13: filters.artifcats: no filter is called 'artifcats'; did you mean 'artifacts'?",
        "  line 14: filters.ssim.backend: must be grey, not 'gray'; did you mean 'grey'?",
        "  line 15: filters.width: this key is given more than once, in the lines 6 and 15: leave one",
        f"  line 18: tiers.pretrain.widht: no filter of that name in `filters` {known}",
        f"  line 18: tiers.finetune.widht: no filter of that name in `filters` {known}",
        "  line 19: tiers.pretrain.psnr: not a gate: '> 3'; write '>= 40', '<= 0.05' or '[20, 180]'",
        "  line 22: tiers.finetune.psnr: an empty range: [20.0, 4.0]",
        "  line 23: tiers.no name: 'no name' is not a name (letters, digits, - and _)",
        "  line 25: export.formats.1: must be one of parquet, webdataset, huggingface, fiftyone or lance, not 'webdatset'; did "
        "you mean 'webdataset'?",
        "  line 26: export.crf: must be a whole number from 0 to 51, not 99",
        "  line 34: captioning.settings: this key is given more than once, in the lines 29 and 34: leave one",
        "  line 34: captioning.settings.max_tokens: must be a whole number from 16, or null",
        "  line 34: captioning.settings.modle: unknown setting; did you mean 'model'?",
    ]
    assert len(caught.value.faults) == 21


@pytest.mark.parametrize(
    ("captioning", "told"),
    [
        ("captioner: openia", ["captioner: no captioner is named 'openia'; did you mean 'openai'?"]),
        ("captioner: 3", ["captioner: must be one of descriptors, openai, sidecar, transformers or vllm"]),
        ("settings: sk-secret", ["settings: must be a mapping"]),
        (
            "settings: {1: sk-secret}",
            [
                "settings.1: a key must be a text; put a text in quotes that YAML takes for something else, such as 'no' or "
                "'2024'"
            ],
        ),
        ("settings: {colour: sk-secret}", ["settings.colour: unknown setting; there are: none"]),
        (
            "{captioner: openai, settings: {prompts: nowhere, temperature: sk-secret, refiner: {captioner: sidecar}}}",
            [
                "settings.prompts: 'nowhere' is neither a set that ships (longtake) nor a folder with files such as tell.txt",
                "settings.temperature: must be a number from 0 to 2",
                "settings.refiner.captioner: the captioner 'sidecar' does not answer questions",
            ],
        ),
    ],
)
def test_faults_of_a_captioner_are_told_and_no_value_with_them(captioning: str, told: list[str]) -> None:
    section = captioning if captioning.startswith("{") else f"{{{captioning}}}"
    text = yaml.safe_dump(plain()) + f"captioning: {section}\n"
    with pytest.raises(RecipeError) as caught:
        parse_yaml(text.encode(), source="my.yaml")
    line = text.count("\n")
    assert str(caught.value).splitlines()[1:] == [f"  line {line}: captioning.{what}" for what in told]


def test_a_recipe_that_was_checked_elsewhere_may_name_a_captioner_that_is_not_here(tmp_path: Path) -> None:
    text = yaml.safe_dump(plain(captioning={"captioner": "poet", "settings": {"metre": "free"}}))
    with pytest.raises(RecipeError, match="no captioner is named 'poet'"):
        parse_yaml(text.encode(), source="my.yaml")
    (tmp_path / "recipe.yaml").write_text(text)
    recipe = Workspace(str(tmp_path)).recipe()
    assert recipe.captioning.captioner == "poet"
    assert recipe.with_gates({"pretrain.psnr": None}).with_formats(["webdataset"]).captioning == recipe.captioning


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: 1\nb: 2\na: 3\n", {"a": "1 and 3"}),
        ("a: 1\n'a': 2\na: 3\n", {"a": "1, 2 and 3"}),
        ("x: {a: 1, a: 2}\n", {"x.a": "1 and 1"}),
        ("x:\n- {b: 1}\n- {a: 1,\n   a: 2}\n", {"x.1.a": "3 and 4"}),
        ("x: &x {a: 1}\ny: {<<: *x, a: 2}\nz: [*x, *x]\n", {}),
        ("x: &x {a: 1, a: 2}\ny: *x\nz: {<<: *x}\n", {"x.a": "1 and 1"}),
        ("x: &x {a: 1}\ny:\n  <<: *x\n  <<: *x\n", {"y.<<": "3 and 4"}),
        ("1: a\n'1': b\n", {}),  # The first key is a number and the second a text.
    ],
)
def test_a_key_that_is_given_twice_is_refused_with_its_lines(text: str, told: dict[str, str]) -> None:
    data, lines = read_yaml(text.encode())
    assert data == yaml.safe_load(text)
    assert {fault.path: fault.what.split("in the lines ")[-1].partition(":")[0] for fault in lines.faults} == told


def test_a_number_that_begins_with_0_is_refused() -> None:
    """YAML takes it for an octal one: clips of at least 010 seconds had 8."""
    _, lines = read_yaml(b"a: {b: 010, c: '010', d: 0.10, e: 0, f: 0x10, g: 09}\nh: [1, -0_17]\n")
    assert [(fault.path, fault.what) for fault in lines.faults] == [
        ("a.b", "YAML reads 010 as 8: leave out the first 0"), ("h.1", "YAML reads -0_17 as -15: leave out the first 0"),
    ]  # fmt: skip


def test_lines_are_those_of_keys_that_count() -> None:
    _, lines = read_yaml(b"x: &x\n  a: 1\n  b: 2\ny:\n  <<: *x\n  b: 3\nz:\n- 1\n- c: 2\n")
    places: list[tuple[tuple[str | int, ...], int | None]] = [
        ((), None), (("x",), 1), (("x", "b"), 3), (("y", "a"), 2), (("y", "b"), 6), (("y", "gone"), 4), (("gone", "a"), None),
        (("z", 0), 8), (("z", 1, "c"), 9), (("z", 9), 7),
    ]  # fmt: skip
    assert [(where, lines.line(where)) for where, _ in places] == places


ANY_TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=12)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT | st.integers(), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(st.sampled_from(list(Recipe.model_fields)) | ANY_TEXT, ANYTHING, max_size=4),
    st.dictionaries(st.sampled_from(["width", "flow", "lpips"]) | ANY_TEXT, ANYTHING, max_size=3),
)
@settings(deadline=None, max_examples=150)
def test_whatever_is_written_is_a_recipe_or_a_recipe_error(changes: dict[str, Any], filters: dict[str, Any]) -> None:
    for data in (plain(**changes), plain(**changes, filters=filters) if "filters" not in changes else changes):
        for read in (
            lambda data=data: parse_recipe(data, source="x"),
            lambda data=data: parse_yaml(yaml.safe_dump(data, sort_keys=False).encode(), source="x"),
        ):
            try:
                assert read().name
            except RecipeError as error:
                assert str(error).startswith("x: ")  # noqa: PT017


def test_settings_that_no_encoder_takes_are_faults_of_the_recipe() -> None:
    """Each was found when clips were encoded, after all captions had been paid for."""
    for export, told in (
        ({"preset": "warp"}, "export.preset: must be one of ultrafast, .*, not 'warp'"),
        ({"fps": 0.5}, "export.fps: must be a number from 1 to 240, or null, not 0.5"),
        ({"fps": 1000}, "export.fps: must be a number from 1 to 240"),
        ({"frames": 9}, "export.frames: must be a whole number from 10, or null, not 9"),
        ({"max_height": 15}, "export.max_height: must be a whole number from 16, or null, not 15"),
    ):
        assert re.search(told, faults(plain(export=export)))
    for fps, frames, height, preset in (
        (1, 10, 16, "placebo"),
        (240, None, 8192, "ultrafast"),
        (None, 450, None, "medium"),
    ):
        chosen = {"fps": fps, "frames": frames, "max_height": height, "preset": preset}
        export = parse_recipe(plain(export=chosen), source="my.yaml").export
        EncodeSettings(export.fps, export.frames, export.max_height, export.preset, export.crf)
        assert len(caption_frames(export.frames or 450)) == 5


@pytest.mark.parametrize("number", [float("inf"), float("nan")])
def test_no_setting_is_infinite_or_no_number(number: float) -> None:
    for section, name in (
        ("scan", "time_limit"), ("splitting", "threshold"), ("splitting", "min_seconds"), ("sampling", "partner_seconds"),
        ("export", "fps"),
    ):  # fmt: skip
        assert f"{section}.{name}: must be a number" in faults(plain(**{section: {name: number}}))
    assert "sampling.partner_seconds: must be a number from 0.001" in faults(
        plain(sampling={"partner_seconds": 1e-300})
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sampling": {"partner_seconds": 100}}, "sampling.partner_seconds: 100 s lie beyond the shortest clip .*: 15"),
        ({"splitting": {"min_seconds": 0.01}}, "sampling.partner_seconds: 0.5 s lie beyond the shortest clip .*: 0.01"),
        ({"splitting": {"min_seconds": 0.5}}, "sampling.partner_seconds: 0.5 s lie beyond the shortest clip"),
        ({"sampling": {"keyframes": 15001}}, "sampling.keyframes: 15001 pictures are more than the shortest clip"),
        (
            {"splitting": {"trim_frames": 100_000_000}},
            "splitting.trim_frames: 100000000 frames at each cut are longer in any",
        ),
        ({"tiers": {"a" * 300: {}}}, "tiers.a{40}…: is too long for the name of a folder"),
        ({"tiers": {"é" * 200: {}}}, "tiers.é{40}…: is too long for the name of a folder"),
        ({"export": {"split": {"a" * 300: 0.1}}}, "export.split: a{40}… is too long for the name of a folder"),
    ],
)
def test_what_does_not_fit_into_the_shortest_clip_or_on_a_disk_is_refused(
    changes: dict[str, Any], message: str
) -> None:
    """Each was taken, and ended hours later in clips without a second picture, in no clip at all, or in a folder that cannot be
    made."""
    assert re.search(message, faults(plain(**changes)))


def test_what_just_fits_is_taken() -> None:
    parse_recipe(plain(splitting={"min_seconds": 0.501}), source="x")
    parse_recipe(plain(sampling={"keyframes": 15000}, splitting={"trim_frames": 15000}), source="x")
    parse_recipe(plain(tiers={"a" * 241: {}}, export={"split": {"b" * 241: 0.1}}), source="x")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("name: no", "name: must be a text such as 'my-recipe' .*, not false; put a text in quotes"),
        ("name: 2024-01-01", "name: must be .*; put a text in quotes"),
        ("source: 2024", "source: must be a text, not 2024; put a text in quotes"),
        ("tiers: {no: {}}", "tiers.false: a key must be a text; put a text in quotes"),
    ],
)
def test_what_yaml_takes_for_another_type_is_to_be_put_in_quotes(line: str, told: str) -> None:
    """`name: no` was answered with a regular expression."""
    key = line.partition(":")[0]
    rest = "\n".join(one for one in ("name: a", "filters: {width: {}}", "tiers: {a: {}}") if not one.startswith(key))
    with pytest.raises(RecipeError, match=f"line 1: {told}"):
        parse_yaml(f"{line}\n{rest}\n".encode(), source="x.yaml")


def test_a_gate_without_quotes_is_told_so() -> None:
    for text in ("tiers: {a: {width: >= 3}}", "tiers:\n  a:\n    width: >= 3\n"):
        with pytest.raises(RecipeError, match="A gate is a text in quotes"):
            parse_yaml(text.encode(), "mine.yaml")


def test_every_fault_is_listed() -> None:
    message = faults(
        plain(
            name="no spaces please",
            tiers={"pretrain": {"width": "> 3", "psnr": "[20, 4]"}},
            export={"crf": 99, "formats": ["avi"]},
            sampling={"keyframes": "many"},
        )
    )
    for part in (
        "name: ", "tiers.pretrain.width: not a gate: '> 3'", "tiers.pretrain.psnr: an empty range: [20.0, 4.0]",
        "export.crf: ", "export.formats.0: ", "sampling.keyframes: ",
    ):  # fmt: skip
        assert part in message, message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"filters": {"widht": {}}}, r"no filter of that name in `filters` \(widht\)"),
        ({"filters": {"widht": {}}, "tiers": {"a": {}}}, r"no filter is called 'widht'; did you mean 'width'"),
        ({"filters": {"width": {"sise": 1}}, "tiers": {"a": {}}}, r"filters\.width\.sise: unknown setting; there are: reduce"),
        ({"filters": {"width": {"reduce": "median"}}, "tiers": {"a": {}}}, r"reduce: must be one of mean, .*, not 'median'"),
        ({"tiers": {"a": {"flow": ">= 1"}}}, r"tiers.a.flow: no filter of that name in `filters` \(width, psnr\)"),
        ({"tiers": {}}, "tiers: there must be at least one"),
        ({"tiers": {"../evil": {}}}, "'../evil' is not a name"),
        ({"tiers": {"": {}}}, "is not a name"),
        ({"splitting": {"min_seconds": 20, "window_seconds": 10}}, "window_seconds: must not be smaller than min_seconds"),
        ({"name": "a/b"}, "name: "),
        ({"filters": None}, "filters: "),
        ({"filters": {"width": None}}, "filters.width: "),
        ({1: 2}, "1: "),
    ],
)  # fmt: skip
def test_what_cannot_work_says_why(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        parse_recipe({**plain(), **changes}, source="my.yaml")


BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a recipe is a mapping with the keys name, description"),
        ("- a\n- b\n", "a recipe is a mapping"),
        ("just words", "a recipe is a mapping"),
        ("name: [1, 2", "not YAML"),
        ("name: !!python/object/apply:os.system ['touch /tmp/longtake-pwned']", "not YAML.*python"),
        ("name: !!python/name:os.system", "not YAML"),
        ("name: 2020-99-99", "not YAML"),
        ("a: &a [*a]", "more than 10000 values"),
        (BOMB, "more than 10000 values"),
        ("[" * 100_000, "not YAML"),
        ("name: \x00", "not YAML"),
        (b"name: \xff\xfe\xff", "not YAML"),
    ],
    ids=[
        "empty",
        "list",
        "words",
        "open",
        "python-call",
        "python-name",
        "date",
        "ring",
        "bomb",
        "deep",
        "nul",
        "binary",
    ],
)
def test_hostile_yaml_is_a_recipe_error_that_names_the_file(tmp_path: Path, text: str | bytes, message: str) -> None:
    file = tmp_path / "r.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(RecipeError, match=message) as caught:
        load_recipe(file)
    assert str(caught.value).startswith(str(file))
    assert not Path("/tmp/longtake-pwned").exists()


def test_a_recipe_that_is_not_there() -> None:
    with pytest.raises(RecipeError, match=r"no recipe 'embeded': .* embedded, longtake-hd.* Did you mean 'embedded'\?"):
        load_recipe("embeded")


# ── writing and comparing ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["embedded", "longtake-hd"])
def test_a_recipe_written_out_reads_back_the_same(name: str) -> None:
    recipe = load_recipe(name)
    again = parse_yaml(recipe.to_yaml().encode(), source="again")
    assert again == recipe
    assert again.to_yaml() == recipe.to_yaml()
    assert (again.clip_protocol, again.export_protocol) == (recipe.clip_protocol, recipe.export_protocol)
    assert parse_recipe(recipe.model_dump(mode="json"), source="a worker") == recipe


@given(st.floats(-1e12, 1e12), st.floats(-1e12, 1e12))
@settings(deadline=None, max_examples=60)
def test_thresholds_lose_no_digit_on_the_way_to_a_worker(a: float, b: float) -> None:
    low, high = sorted((a, b))
    recipe = parse_recipe(plain(tiers={"t": {"width": [low, None], "psnr": [low, high]}}), source="here")
    there = parse_recipe(json.loads(json.dumps(recipe.model_dump(mode="json"))), source="there")
    assert there.tiers["t"] == {"width": Gate(low=low), "psnr": Gate(low, high)}
    assert parse_yaml(recipe.to_yaml().encode(), source="disk") == recipe


def test_differences_are_dotted_settings() -> None:
    old = parse_recipe(plain(), source="a")
    new = parse_recipe(
        plain(tiers={"pretrain": {"width": ">= 64", "psnr": "[4, 22]"}, "extra": {}}, export={"crf": 20}), source="b"
    )
    assert differences(old, old) == []
    assert differences(old, new) == [
        ("tiers.pretrain.psnr", "[4, 20]", "[4, 22]"),
        ("export.crf", 18, 20),
        ("tiers.extra", None, {}),
    ]


def test_only_a_change_of_how_it_is_measured_makes_a_score_stale() -> None:
    def recipe(**changes: Any) -> Recipe:
        filters = {"width": {}, "psnr": {}, "artifacts": {"backend": "borders"}}
        return parse_recipe(plain(**{"filters": filters, **changes}), source="x")

    old = recipe()
    assert stale_scores(old, recipe(tiers={"pretrain": {"width": ">= 1"}}, export={"crf": 20})) == []
    # The value of every pair is stored, so another reduction needs no measurement.
    reduced = {"width": {}, "psnr": {"reduce": "every"}, "artifacts": {"backend": "borders"}}
    assert stale_scores(old, recipe(filters=reduced)) == []
    another = {"width": {}, "psnr": {}, "artifacts": {"backend": "rapidocr"}, "flow": {}}
    assert stale_scores(old, recipe(filters=another)) == ["artifacts", "flow"]
    assert stale_scores(old, recipe(splitting={"trim_frames": 4})) == ["width", "psnr", "artifacts"]
    assert stale_scores(old, recipe(sampling={"keyframes": 6})) == ["width", "psnr", "artifacts"]
    assert old.export_protocol != recipe(export={"crf": 20}).export_protocol
    assert old.export_protocol == recipe(export={"rows_per_shard": 7}).export_protocol


def test_gates_can_be_changed_added_and_dropped() -> None:
    old = parse_recipe(plain(), source="x")
    new = old.with_gates({"pretrain.psnr": None, "pretrain.width": Gate(low=1)})
    assert new.tiers == {"pretrain": {"width": Gate(low=1)}}
    assert new.with_gates({"pretrain.psnr": Gate(4, 20), "pretrain.width": Gate(low=64)}).tiers == old.tiers
    for changes, message in (
        ({"pretrian.psnr": None}, r"no tier 'pretrian'; did you mean 'pretrain'\?"),
        ({"zzz.psnr": None}, "no tier 'zzz'; there are: pretrain"),
        ({"pretrain.pnsr": None}, r"tier 'pretrain' has no such gate; did you mean 'psnr'\?"),
        (
            {"pretrain.pnsr": Gate(low=1)},
            r"tiers.pretrain.pnsr: no filter of .* \(width, psnr\); did you mean 'psnr'\?",
        ),
        ({"pretrain.flow": Gate(low=1)}, r"tiers.pretrain.flow: no filter of that name"),
        ({"pretrain.flow": None}, "tier 'pretrain' has no such gate; there are: width, psnr"),
    ):
        with pytest.raises(RecipeError, match=message):
            old.with_gates(changes)
