from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtake.manifests.dataset.card import DatasetFacts, dataset_card, escape
from longtake.manifests.dataset.shards import DATASET_SCHEMA

markdown_it = pytest.importorskip("markdown_it")

FACTS = DatasetFacts(
    title="pretrain of street scenes",
    tier="pretrain",
    version="0.1.0",
    videos=1200,
    clips=4000,
    kept=100,
    seconds=1500.0,
    size=2_500_000_000,
    funnel=[
        {"gate": "width", "range": "≥ 1280", "passed": 3000, "failed": 1000, "left": 3000},
        {"gate": "flow", "range": "≥ 40", "passed": 150, "failed": 2850, "left": 100},
    ],
    recipe="tiers:\n  pretrain:\n    flow: '>= 40'\n",
    licences={"CC BY 4.0": 60, "CC0": 15, None: 25},
    problems={"fewer than 450 frames: dropped": 3},
)


def test_what_marks_say_stands_below_the_funnel() -> None:
    assert "beside marks" not in dataset_card(FACTS)
    truth = [{"gate": "flow", "range": ">= 40", "precision": "0.80 (0.38 to 0.96; 4 of 5)", "silent": ""}]
    answers = [{"question": "slideshow", "answered": 5, "agrees with the marks": "1.00 (0.57 to 1.00)"}]
    card = dataset_card(replace(FACTS, marks="4 clips were marked <good>.", truth=truth, answers=answers))
    assert card.index("## Funnel") < card.index("## Gates beside marks") < card.index("## Licences")
    assert "4 clips were marked &lt;good&gt;." in card
    assert "| flow | &gt;= 40 | 0.80 (0.38 to 0.96; 4 of 5) |" in card
    assert "| slideshow | 5 | 1.00 (0.57 to 1.00) |" in card


class Page(HTMLParser):
    """The tags and the text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.rows: list[list[str]] = []
        self._in_cell = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self._in_cell = True

    def handle_endtag(self, tag: str) -> None:
        self._in_cell &= tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._in_cell:
            self.rows[-1][-1] += data


def render(card: str) -> Page:
    """As a viewer shows it that allows HTML and tables: an independent Markdown parser."""
    return Page(markdown_it.MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(card))


def test_a_card_says_what_is_in_the_dataset() -> None:
    page = render(dataset_card(FACTS))
    for words in (
        "100 clips, 0.42 hours, 2.50 GB",
        "out of 4,000 clips (2.5%) of 1,200 videos",
        "longtake 0.1.0",
        "3 clips: fewer than 450 frames: dropped",
        "Of 25 clips the licence is unknown",
        "--num_prompts 5 --stride_per_prompt 90",
        "sha256sum -c SHA256SUMS",
        "tiers:\n  pretrain:\n    flow: '>= 40'\n",
    ):
        assert words in page.text, words
    for row in (
        ["gate", "range", "passed", "failed", "left"],
        ["width", "≥ 1280", "3,000", "1,000", "3,000"],
        ["flow", "≥ 40", "150", "2,850", "100"],
        ["CC BY 4.0", "60"],
        ["CC0", "15"],
        ["unknown", "25"],
    ):
        assert row in page.rows, row
    names = {row[0] for row in page.rows}
    assert set(DATASET_SCHEMA.names) <= names
    assert ["cap", "struct of 45, 135, 225, 315, 405: string"] in [row[:2] for row in page.rows]


def test_clips_that_no_licence_counts_are_unknown() -> None:
    page = render(dataset_card(replace(FACTS, licences={"CC0": 15})))
    assert ["unknown", "85"] in page.rows
    page = render(dataset_card(replace(FACTS, licences={"CC0": 100})))
    assert "unknown" not in {row[0] for row in page.rows}
    assert "licence is unknown" not in page.text


def test_an_empty_dataset_says_so() -> None:
    card = dataset_card(replace(FACTS, videos=0, clips=0, kept=0, seconds=0.0, size=0, funnel=[], licences={}))
    assert "No clip is in this dataset." in render(card).text


def test_the_loading_example_is_python() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", dataset_card(FACTS), re.DOTALL)
    compile(code, "example", "exec")


HOSTILE = [
    "<script>alert(1)</script>",
    "[click](javascript:alert(1))",
    "![x](https://evil.example/pixel.png)",
    "a | b | c",
    "line\nbreak\n\n# heading\n---\n- item",
    "`code` **bold** _it_ ~~gone~~ __init__",
    "</td></tr></table><img src=x>",
    "&lt;b&gt; &amp; \\| \\",
    "1. list",
    "1) list",
    "- item",
    "+ item",
    "> quote",
    "# heading",
    "=====",
    "| --- |",
    "[ref]: https://evil.example",
    "<!-- comment",
    "```\nfence",
    "\x1b[31mred\x00",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_text_from_outside_stays_text(text: str) -> None:
    plain = render(dataset_card(replace(FACTS, notes=["a"], licences={"b": 100}, recipe="c: d")))
    facts = replace(
        FACTS,
        title=text,
        notes=[text],
        licences={text: 100},
        recipe=text,
        tier=text,
        version=text,
        problems={text: 3},
        funnel=[dict.fromkeys(row, text) | {"gate": text} for row in FACTS.funnel],
    )
    page = render(dataset_card(facts))
    assert page.tags == plain.tags
    shown = " ".join(re.sub(r"[\x00-\x08\x1b]", "\N{REPLACEMENT CHARACTER}", text).split())
    assert page.rows[1] == [shown] * 5
    assert [shown, "100"] in page.rows


@given(st.text(max_size=60))
def test_escaped_text_shows_itself(text: str) -> None:
    shown = " ".join(
        "".join(c if c.isprintable() or c in " \t\r\n" else "\N{REPLACEMENT CHARACTER}" for c in text).split()
    )
    page = render(f"| a |\n| --- |\n| {escape(text)} |\n")
    assert page.rows == [["a"], [shown]]
    page = render(escape(text))
    assert page.tags == (["p"] if shown else [])
    assert page.text.removesuffix("\n") == shown


@pytest.mark.parametrize("text", ["see https://evil.example", "www.evil.example", "me@evil.example", "mailto:me@x.org"])
def test_addresses_do_not_become_links_by_themselves(text: str) -> None:
    """What GitHub's viewer makes links of without being asked (GFM, 6.9): these do not stand in the text."""
    trigger = re.compile(r"https?://|ftp://|www\.|\w@\w|mailto:|xmpp:")
    assert trigger.search(text)
    assert not trigger.search(escape(text))
    assert render(escape(text)).text.strip() == text
