"""docs/captioning.md's first section, followed to the letter: from clips and a served model to captions by a tuned prompt."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from tests.captioning.server import Ask, Reply, Server, good
from tests.corpus import SMALL, Encoding, film, pan

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "captioning.md").read_text(encoding="utf-8")
STEPS = re.findall(
    r"^```(sh|yaml)\n(.*?)^```",
    PAGE.partition("## From a model to a tuned prompt")[2].partition("\n## ")[0],
    re.MULTILINE | re.DOTALL,
)
MODEL = "Qwen/Qwen2.5-VL-7B-Instruct"


def answer(ask: Ask) -> Reply:
    return Reply(json.dumps({"slideshow": "no"})) if ask.keys == ("slideshow",) else good(ask)


def merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """`old` with what `new` says, section by section."""
    return {
        **old,
        **{key: merged(old.get(key) or {}, value) if isinstance(value, dict) else value for key, value in new.items()},
    }


def place(folder: Path) -> dict[str, str]:
    """Two films, and an environment in which `longtake` is this checkout's."""
    (folder / "MY_VIDEOS").mkdir()
    for i in range(2):
        film(
            folder / "MY_VIDEOS" / f"{i}.mp4", pan("table", (2, 0), (200 + 40 * i, 60), SMALL, 98), Encoding(size=SMALL)
        )
    (folder / "bin").mkdir()
    (folder / "bin" / "longtake").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m longtake "$@"\n')
    (folder / "bin" / "longtake").chmod(0o755)
    found = {name: value for name, value in os.environ.items() if not name.startswith("LONGTAKE_CAPTION")}
    return found | {
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT / "src"),
        "XDG_CONFIG_HOME": str(folder / "config"),
    }


@pytest.mark.slow  # The test runs seven commands as processes, and one of them curates films.
def test_the_page_can_be_followed(tmp_path: Path) -> None:
    environment = place(tmp_path)
    (_, clips), (_, serve), (_, where), (_, look), (_, change), (_, all_of_them), (_, ask), (_, curate) = STEPS
    assert f"vllm serve {MODEL} --port 8000" in serve
    recipe, said = tmp_path / "mine.yaml", ""
    with Server(answer, models=(MODEL,)) as server:

        def shell(text: str) -> int:
            """Requests that a step takes. What it exports holds for the steps after it, as in one shell."""
            nonlocal said
            before = len(server.asked)
            text = text.replace("127.0.0.1:8000", f"127.0.0.1:{server.port}")
            done = subprocess.run(
                ["bash", "-euc", said + text],
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
            said += "".join(f"{line}\n" for line in text.splitlines() if line.startswith("export "))
            return len(server.asked) - before

        def edit(text: str) -> None:
            recipe.write_text(yaml.safe_dump(merged(yaml.safe_load(recipe.read_text()), yaml.safe_load(text))))

        assert shell(clips) == 0
        assert shell(where) == 0, "the doctor asks for the models only"
        assert shell(look) == 4, "two for each clip"
        page = (tmp_path / "workspace" / "captions.html").read_text(encoding="utf-8")
        edit(change)
        assert shell(look) == 4, "anew, by the other prompt"
        assert any("who does what where, in one plain sentence of 5 to 25 words" in a.text for a in server.asked[4:])
        assert shell(all_of_them) == 0, "the sample was all there is, and is paid for"
        edit(ask)
        assert shell(curate) == 2, "one question for each clip, and no caption that is there already"
    assert re.search(r"2(\.00?)? requests", page)
    dataset = tmp_path / "workspace" / "dataset" / "all"
    index = pd.read_parquet(dataset / "index.parquet")
    assert len(index) == 2
    assert all((dataset / path).stat().st_size for path in index["path"])
    captions = pd.read_parquet(tmp_path / "workspace" / "captions").groupby("clip_id").last()
    assert captions["shot_size"].eq("wide shot").all()
    assert (captions["caption_short"].str.len() < captions["caption"].str.len()).all()
