"""What pages make of somebody else's words: markup planted in every text that a workspace holds stays text."""

from __future__ import annotations

import html.parser
import json
import re
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import cv2
import jinja2
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtake.curation.clip_table import rows_table
from longtake.curation.looking import html as pages
from longtake.curation.looking.preview import write_page
from longtake.curation.looking.report.clips import open_clip
from longtake.curation.looking.report.page import write_report
from longtake.curation.recipe import Recipe
from longtake.curation.workspace import Workspace
from longtake.manifests import schemas
from longtake.manifests.frames import StoredFrames, frames_writer
from tests.curation.tables import clip_id, fill, recipe

TEMPLATES = sorted(Path(pages.__file__).parent.rglob("*.jinja"))
PLANTED = (
    "\"'><planted planted=1 onclick='x'> &lt;planted&gt; </p></bdi><script>planted</script><!-- {{ 7 * 7 }} \u202e\x00"
)
# The same words and as many characters, but none that means anything to a parser.
HARMLESS = PLANTED.translate({**dict.fromkeys(map(ord, "<>\"'&"), "·"), 0: " "})
WITHOUT_END = {"area", "base", "br", "col", "hr", "img", "input", "link", "meta", "rect", "line", "source"}
# Attributes in which a page repeats words of the user's data.
TELLING = {"aria-label", "alt", "title"}


class Elements(html.parser.HTMLParser):
    """The elements of a page in order, its text, and the texts that can turn what stands around them."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.found: list[tuple[str, list[tuple[str, str | None]]]] = []
        self.text = ""
        self.loose: list[str] = []
        self._open: list[tuple[str, bool]] = []
        self.feed(source)
        self.close()
        assert not self._open, "an element is not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, [(name, None if name in TELLING else value) for name, value in attrs]))
        if tag not in WITHOUT_END:
            self._open.append((tag, tag in ("bdi", "title") or "dir" in dict(attrs)))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, attrs))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop()[0] == tag

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data[:50]}")

    def handle_data(self, data: str) -> None:
        self.text += data
        if "\u202e" in data and not any(apart for _, apart in self._open):
            self.loose.append(data)


def filled(schema: pa.Schema, text: str, **known: Any) -> dict[str, Any]:
    """A row with `text` in every column of texts, other than the known ones."""
    row: dict[str, Any] = {}
    for field in schema:
        if pa.types.is_string(field.type):
            row[field.name] = text
        elif pa.types.is_list(field.type) and pa.types.is_string(field.type.value_type):
            row[field.name] = [text] * 5
    return row | known


def planted(folder: Path, text: str) -> tuple[Workspace, Recipe, list[str]]:
    """A workspace with `text` in every text, its recipe, and the ids of its clips."""
    chosen = recipe(not_applied={text: text})
    workspace = fill(folder)
    last = f"z{text}"  # The place is the same for every text.
    protocols = json.dumps({name: chosen.built[name].protocol for name in ("width", "psnr", "artifacts")})
    measured = {
        "protocols": protocols,
        "video_id": "v9",
        "start": 0.0,
        "end": 15.0,
        "width": 1920.0,
        "psnr": 9.0,
        "artifacts": 0.01,
    }
    good = {"clip_id": clip_id("1"), "status": "ok", "scan_id": "scan", "has_frames": True}
    clips = [
        filled(schemas.CLIPS, text, **measured, **good),
        filled(schemas.CLIPS, text, **measured, clip_id=clip_id("2"), status="error", has_frames=False),
        filled(schemas.CLIPS, text, **measured, clip_id=last, has_frames=False),
    ]
    workspace.clips.append(rows_table(clips, schemas.CLIPS, ["width", "psnr", "artifacts"]))
    told = {
        "scan_id": "scan", "caption_protocol": "descriptors/3", "text_similarity": 0.1, "outside_band": 2,
        "other_language": True, "text_similarity_detail": [0.99] * 4,
        "protocols": json.dumps({"text_similarity": chosen.built["text_similarity"].protocol}),
    }  # fmt: skip
    captions = [
        filled(schemas.CAPTIONS, text, **told, clip_id=clip_id("1"), status="ok"),
        filled(schemas.CAPTIONS, text, **told, clip_id=clip_id("2")),
        filled(schemas.CAPTIONS, text, **told, clip_id=last),
    ]
    workspace.captions.append(rows_table(captions, schemas.CAPTIONS, ["text_similarity"]))
    videos = [
        filled(
            schemas.VIDEOS, text, video_id="v9", status="ok", width=64, height=48, fps=24.0, duration=9.0, bytes=10**6
        ),
        filled(schemas.VIDEOS, text, status="error"),
        filled(schemas.VIDEOS, text, video_id="v10"),
    ]
    workspace.videos.append(pa.Table.from_pylist(videos, schema=schemas.VIDEOS))
    run = filled(
        schemas.RUNS,
        text,
        stage="scan",
        computed=1,
        errors=0,
        seconds=1.0,
        cpu_seconds=1.0,
        video_seconds=1.0,
        workers=1,
    )
    workspace.runs.append(pa.Table.from_pylist([run], schema=schemas.RUNS))
    picture = bytes(cv2.imencode(".jpg", np.full((36, 64, 3), 90, np.uint8))[1])
    with frames_writer(workspace.path, "v9") as writer:
        writer.write(StoredFrames(clip_id("1"), [picture] * 5, [], [1.0, 4.0, 7.0, 10.0, 13.0], [], None))
    return workspace, chosen, [clip_id("1"), clip_id("2"), last]


def report(workspace: Workspace, chosen: Recipe, clips: list[str]) -> str:
    return write_report(workspace, chosen).decode()


def preview(workspace: Workspace, chosen: Recipe, clips: list[str]) -> str:
    return Path(write_page(workspace, chosen, clips)).read_text(encoding="utf-8")


def notebook(workspace: Workspace, chosen: Recipe, clips: list[str]) -> str:
    return "".join(open_clip(workspace, workspace.recipe(), clip)._repr_html_() for clip in clips)


@pytest.mark.parametrize(("page", "least"), [(report, 15), (preview, 20), (notebook, 8)])
def test_markup_in_any_text_makes_no_element_and_no_attribute(
    tmp_path: Path, page: Callable[[Workspace, Recipe, list[str]], str], least: int
) -> None:
    """A page of hostile words has the elements and attributes, one by one, of the page of harmless ones."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    folder = "<planted planted=1 onclick='x'>\""  # The name of a folder has no slash.
    source = page(*planted(tmp_path / "a" / folder, PLANTED))
    shown, harmless = Elements(source), Elements(page(*planted(tmp_path / "b" / "harmless", HARMLESS)))
    assert shown.found == harmless.found
    assert not {"planted", "script"} & {tag for tag, _ in shown.found}
    assert not [name for _, attributes in shown.found for name, _ in attributes if name.startswith(("on", "planted"))]
    assert shown.text.count("<script>planted</script><!-- {{ 7 * 7 }}") >= least
    assert not shown.loose  # Bidirectional control characters are isolated from the text around them.
    assert "\x00" not in source


def test_every_column_of_texts_was_planted() -> None:
    row = filled(schemas.CAPTIONS, "x")
    assert {"clip_id", "status", "reason", "caption", "model", "prompts", "language", "withheld"} <= row.keys()
    assert row["sub_captions"] == row["moves"] == ["x"] * 5


# ── templates ────────────────────────────────────────────────────────────────────────────────────────────────────────


def printed(template: str, **values: object) -> str:
    return pages._environment().from_string(template).render(values)


@given(st.text(st.characters()))
def test_a_text_holds_no_markup_and_fits_into_utf_8(text: str) -> None:
    for template in ("{{ text | shown }}", "{{ text }}"):
        shown = printed(template, text=text)
        assert not {"<", ">", '"', "'", "\x00", "\x1b"} & set(shown)
        shown.encode()
    assert unescape(printed("{{ text }}", text="a\ud800 <\u202e>\x07\t\n")) == "a\ufffd <\u202e>\ufffd\t\n"


def test_a_long_text_is_cut_before_it_is_escaped() -> None:
    assert printed("{{ text | shown(3) }}", text="&&&&&") == "&amp;&amp;&amp;… (5 characters)"
    assert len(printed("{{ text | shown }}", text="x" * 10_000)) < pages.LONGEST + 30


def test_a_name_that_is_missing_is_a_fault() -> None:
    with pytest.raises(jinja2.UndefinedError):
        printed("{{ clip.caption }}", clip={})


def test_no_template_turns_the_escaping_off() -> None:
    assert len(TEMPLATES) >= 5
    for path in TEMPLATES:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"\|\s*safe\b|autoescape|Markup", text), path
