"""The dataset card: the README.md of an exported dataset.

Everything that comes from outside (licences, the names of gates, numbers as text) is escaped: a source list must not be
able to put a link, an image or a script into a page that people trust.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from longtake.manifests.dataset.shards import CHECKSUMS, DATASET_SCHEMA, INDEX, MEANINGS

_SPECIAL = re.compile(r"[\\`*{}\[\]#|~$^]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|^[-+=]")
_NUMBERED = re.compile(r"^(\d+)([.)])(?=\s|$)")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "@": "&#64;"}
# Viewers make links of these even where the text has no mark of a link.
_LINKS = re.compile(r"(?i):(?=//)|(?<=www)\.|(?<=mailto):|(?<=xmpp):")


@dataclass(frozen=True, slots=True)
class DatasetFacts:
    """What a card says. title: of the dataset. tier, version: names of the set of gates and of this tool's version.

    videos, clips: read in. kept: clips in the dataset, `seconds` long together, `size` bytes. funnel: one mapping per
    gate, all with the same keys, which become the table's head. recipe: YAML. licences: clips by licence, None for
    those of which the source list says nothing. problems: clips that the published trainer would not take, by reason.
    schema: of the table. notes: whatever else must be said, a paragraph each. marks: a paragraph on clips that were marked
    by eye; truth, answers: what they say of each gate, and of each question to a model, one mapping each as in funnel.
    """

    title: str
    tier: str
    version: str
    videos: int
    clips: int
    kept: int
    seconds: float
    size: int
    funnel: Sequence[Mapping[str, object]]
    recipe: str
    licences: Mapping[str | None, int]
    problems: Mapping[str, int] = field(default_factory=dict)
    schema: pa.Schema = DATASET_SCHEMA
    notes: Sequence[str] = ()
    marks: str = ""
    truth: Sequence[Mapping[str, object]] = ()
    answers: Sequence[Mapping[str, object]] = ()


def dataset_card(facts: DatasetFacts) -> str:
    """README.md of a dataset: GitHub-flavoured Markdown, ends in a line break."""
    sections = [
        f"# {escape(facts.title)}",
        *_counts(facts),
        "## Funnel",
        _funnel(facts.funnel),
        *_truth(facts),
        "## Licences",
        *_licences(facts.licences, facts.kept),
        "## Loading",
        *_loading(facts),
        "## Columns",
        _columns(facts.schema),
        "## Recipe",
        _code(facts.recipe, "yaml"),
    ]
    return "\n\n".join(sections) + "\n"


def escape(text: object) -> str:
    """`text` as one line of Markdown that shows it literally, in a paragraph and in a table."""
    line = " ".join(_printable(str(text), " \t\n\r").split())
    line = _NUMBERED.sub(r"\1\\\2", _SPECIAL.sub(lambda match: f"\\{match[0]}", line))
    line = "".join(_ENTITIES.get(c, c) for c in line)
    return _LINKS.sub(lambda match: f"&#{ord(match[0])};", line)


def _printable(text: str, also: str) -> str:
    return "".join(c if c.isprintable() or c in also else "\N{REPLACEMENT CHARACTER}" for c in text)


def _counts(facts: DatasetFacts) -> list[str]:
    share = f" ({facts.kept / facts.clips:.1%})" if facts.clips else ""
    hours = facts.seconds / 3600
    paragraphs = [
        f"{facts.kept:,} clips, {hours:,.2f} hours, {facts.size / 1e9:,.2f} GB: tier {escape(facts.tier)}, out "
        f"of {facts.clips:,} clips{share} of {facts.videos:,} videos. Made with longtake {escape(facts.version)}.",
        *(escape(note) for note in facts.notes),
    ]
    if not facts.kept:
        paragraphs.append("**No clip is in this dataset.** The funnel shows which gates rejected them.")
    if facts.problems:
        paragraphs.append("The published Presto trainer will not take every clip of it as it is:")
        paragraphs.append("\n".join(f"- {number:,} clips: {escape(what)}" for what, number in facts.problems.items()))
    return paragraphs


def _funnel(rows: Sequence[Mapping[str, object]]) -> str:
    if not rows:
        return "No gates."
    return _table(list(rows[0]), [list(row.values()) for row in rows])


def _truth(facts: DatasetFacts) -> list[str]:
    if not facts.marks:
        return []
    tables = [_funnel(rows) for rows in (facts.truth, facts.answers) if rows]
    return ["## Gates beside marks", escape(facts.marks), *tables]


def _licences(licences: Mapping[str | None, int], kept: int) -> list[str]:
    unknown = licences.get(None, 0) + kept - sum(licences.values())
    known = [(name, n) for name, n in licences.items() if name is not None]
    rows: list[list[object]] = [[name, n] for name, n in sorted(known, key=lambda pair: (-pair[1], pair[0]))]
    if unknown:
        rows.append(["unknown", unknown])
    told = "As the source list gives them; they were not checked."
    if unknown:
        told += f" **Of {unknown:,} clips the licence is unknown**: find out before you publish or share them."
    return [told, _table(["licence", "clips"], rows)] if rows else [told]


def _loading(facts: DatasetFacts) -> list[str]:
    keys = [f.name for f in facts.schema.field("cap").type]
    example = f"""import pandas as pd

clips = pd.read_parquet("{INDEX}")  # or the folder "shards": the same rows in parts
clip = clips.iloc[0]
clip.path  # the file, relative to this folder
[clip.cap[str(frame)] for frame in ({", ".join(keys)})]  # its sub-captions"""
    return [
        _code(example, "python"),
        f"The trainer published with Presto takes this folder as `--data_dir` and `{INDEX}` as `--meta_file`, with "
        f"`--num_prompts {len(keys)} --stride_per_prompt {int(keys[1]) - int(keys[0])}`. It keeps the list of clips "
        "that it made once: delete its `data_cache` after a new export.",
        f"`sha256sum -c {CHECKSUMS}` checks every file.",
    ]


def _columns(schema: pa.Schema) -> str:
    rows = [[f.name, _type(f.type), MEANINGS.get(f.name, "score of the filter of this name")] for f in schema]
    return _table(["column", "type", "meaning"], rows)


def _type(kind: pa.DataType) -> str:
    if pa.types.is_struct(kind):
        return f"struct of {', '.join(f.name for f in kind)}: {kind.field(0).type}"
    return f"list of {kind.value_type}" if pa.types.is_list(kind) else str(kind)


def _table(head: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    numbers = [bool(rows) and all(isinstance(row[i], int | float) for row in rows) for i in range(len(head))]
    lines = [
        [escape(cell) for cell in head],
        ["---:" if number else "---" for number in numbers],
        *([_cell(cell) for cell in row] for row in rows),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(cell: object) -> str:
    if cell is None:
        return ""
    if isinstance(cell, int) and not isinstance(cell, bool):
        return f"{cell:,}"
    return escape(f"{cell:.4g}" if isinstance(cell, float) else cell)


def _code(text: str, language: str) -> str:
    text = _printable(text.expandtabs(4), "\n")
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.strip()}\n{fence}"
