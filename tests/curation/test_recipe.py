"""Recipes: what ships is the paper's table, what is wrong is named, and what is written reads back the same."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

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
from longtake.filters.base import Needs
from longtake.filters.gates import Gate

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
        for name in set(gates) - {"text_similarity"}:  # its captions are alike by construction: its own threshold
            assert (gates[name].low, gates[name].high) == TABLE_4[name][i], name


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


def test_the_json_schema_takes_what_ships_and_refuses_what_does_not_load() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(json.dumps(Recipe.model_json_schema()))
    for path in shipped().values():
        jsonschema.validate(yaml.safe_load(path.read_text()), schema)
    for wrong in (plain(splittting={}), plain(sampling={"keyframes": 1}), plain(tiers={"a": {"width": 3}})):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)


def test_the_json_schema_knows_every_section_and_allows_no_other_key() -> None:
    schema = Recipe.model_json_schema()
    assert set(schema["properties"]) == set(Recipe.model_fields)
    assert all(part["additionalProperties"] is False for part in (schema, *schema["$defs"].values()))


# ── what is wrong ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_unknown_key_is_answered_with_the_nearest_one() -> None:
    message = faults(plain(spliting={}, sampling={"keyframe": 5}, zzz=1))
    assert message.splitlines() == [
        "my.yaml: this recipe cannot be used:",
        "  sampling.keyframe: unknown key; did you mean 'keyframes'?",
        "  spliting: unknown key; did you mean 'splitting'?",
        "  zzz: unknown key; there are: name, description, not_applied, scan, splitting, sampling, filters, tiers, "
        "captioning, export",
    ]


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
        ({"filters": {"width": {"sise": 1}}, "tiers": {"a": {}}}, r"filters: filter 'width' has no setting 'sise'"),
        ({"filters": {"width": {"reduce": "median"}}, "tiers": {"a": {}}}, r"reduce is mean, .*; not 'median'"),
        ({"tiers": {"a": {"flow": ">= 1"}}}, r"tiers.a.flow: no filter of that name in `filters` \(width, psnr\)"),
        ({"tiers": {}}, "tiers: there must be at least one"),
        ({"tiers": {"../evil": {}}}, "'../evil' is not a name"),
        ({"tiers": {"": {}}}, "is not a name"),
        ({"splitting": {"min_seconds": 20, "window_seconds": 10}}, "window_seconds must not be smaller"),
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
    # every pair's value is stored: another reduction needs no measurement
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
        ({"pretrian.psnr": None}, "no tier 'pretrian'; there are: pretrain"),
        ({"pretrain.flow": Gate(low=1)}, r"tiers.pretrain.flow: no filter of that name"),
        ({"pretrain.flow": None}, "tier 'pretrain' has no such gate; there are: width, psnr"),
    ):
        with pytest.raises(RecipeError, match=message):
            old.with_gates(changes)
