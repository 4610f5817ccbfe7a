"""Prompts: files that a person can read and a recipe can replace, with a name and a version in the protocol."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from longtake.captioning.prompting import FIELDS, ROLES, Prompts
from longtake.captioning.prompting import load_prompts as load_of_method


def load_prompts(chosen: str | dict[str, str], method: str = "stepwise") -> Prompts:
    return load_of_method(chosen, method)


@pytest.mark.parametrize("method", ROLES)
def test_the_set_that_ships_is_whole_and_has_a_version(method: str) -> None:
    prompts = load_prompts("longtake", method)
    assert tuple(prompts.templates) == tuple(sorted(ROLES[method]))
    assert prompts.system == ROLES[method][0]
    assert re.fullmatch(r"longtake@[0-9a-f]{8}", prompts.version)
    assert load_prompts("longtake", method).version == prompts.version == load_prompts({}, method).version
    for role in ROLES[method]:
        fields = FIELDS[role]
        text = prompts.fill(role, **dict.fromkeys(fields, "Filled."))
        assert "$" not in text
        assert text.count("Filled.") >= len(fields), f"{role} leaves something out"


def test_every_prompt_belongs_to_a_method_and_one_of_another_method_is_said(tmp_path: Path) -> None:
    assert set().union(*ROLES.values()) == set(FIELDS)
    with pytest.raises(ValueError, match=r"the method joint has no prompt 'refine'; it has: writer, watch"):
        load_prompts({"refine": "Part $number."}, "joint")
    (tmp_path / "refine.txt").write_text("Part $number.")
    with pytest.raises(ValueError, match=r"holds no prompt of the method joint .* set method to the one"):
        load_prompts(str(tmp_path), "joint")
    (tmp_path / "tell.txt").write_text("All parts: $notes")
    joint = load_prompts(str(tmp_path), "joint")
    assert joint.fill("tell", notes="5") == "All parts: 5"
    assert "refine" not in joint.templates


def test_values_are_not_looked_into() -> None:
    prompts = load_prompts("longtake")
    assert "$camera {x} $$" in prompts.fill("differ", rejected="$camera {x} $$")


def test_a_folder_or_single_templates_take_their_place(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "refine.txt").write_text("Part $number, after: $earlier. Costs 5 $$.")
    folder = load_prompts(str(tmp_path / "mine"))
    assert folder.fill("refine", number=2, earlier="so far") == "Part 2, after: so far. Costs 5 $."
    assert folder.templates["describe"] == load_prompts("longtake").templates["describe"]
    assert folder.version.startswith("mine@")
    single = load_prompts({"refine": "Part $number, after: $earlier. Costs 5 $$."})
    assert single.version == folder.version.replace("mine", "recipe")
    assert load_prompts({"name": "mine", **folder.templates}).version == folder.version


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ("nowhere", "neither a set that ships \\(longtake\\) nor a folder"),
        ("../prompting", "neither a set"),
        ({"describe": "$seconds $oops"}, r"describe asks for \$oops"),
        ({"describe": "costs 5 $"}, "a \\$ that begins no name"),
        ({"descibe": "x"}, "there is no prompt 'descibe'"),
        ({"describe": " "}, "must be a text"),
        ({"describe": "x" * 30_000}, "must be a text"),
    ],
)
def test_what_cannot_be_filled_in_is_said(chosen: str | dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_prompts(chosen)


@pytest.mark.parametrize(
    "kind", ["a link", "a link to a link", "a pipe", "a folder", "a hard-to-read file", "too long"]
)
def test_what_is_sent_to_a_model_is_a_template_and_no_other_file(tmp_path: Path, kind: str) -> None:
    secret, folder = tmp_path / "secret", tmp_path / "mine"
    secret.write_text("not for strangers")
    folder.mkdir()
    path = folder / "refine.txt"
    if kind == "a link":
        path.symlink_to(secret)
    elif kind == "a link to a link":
        (tmp_path / "between").symlink_to(secret)
        path.symlink_to("../between")
    elif kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a folder":
        path.mkdir()
    else:
        path.write_bytes(b"\xff" if kind == "a hard-to-read file" else b"x" * 10_000_000)
    with pytest.raises(ValueError, match=r"^prompts: ") as raised:
        load_prompts(str(folder))
    assert "not for strangers" not in str(raised.value)
