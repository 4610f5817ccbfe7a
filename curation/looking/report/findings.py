"""What a report tells besides the funnel: how scores go together, what the files are like, what captions repeat."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from longtake.curation.looking.report.columns import OF_A_CROP, Columns, crop_words
from longtake.curation.workspace import Workspace

MOST_RANKED = 20_000  # Clips that are ranked for a correlation of two scores.
_EXAMPLES = 3  # Rows that are shown of a kind of error.
_MOST_KINDS = 12  # Kinds that are counted one by one, such as sizes of frames; the rest is counted together.
MOST_READ = 5_000  # Clips whose captions are searched for phrases.
MOST_WORDS = 400  # Words of a caption that are searched for phrases.
FEWEST_PAIRS = 10
PHRASE = 4  # Words of a phrase.


@dataclass(frozen=True, slots=True)
class Correlation:
    """names; rho [names, names]: Spearman's rank correlation over the clips that have both scores, nan for fewer than
    FEWEST_PAIRS; pairs [names, names]: how many those are."""

    names: list[str]
    rho: npt.NDArray[np.float64]
    pairs: npt.NDArray[np.int64]


def rank_correlation(columns: Columns) -> Correlation:
    """Score against score, on at most MOST_RANKED clips."""
    rows = columns.some(columns.everything(), MOST_RANKED)
    values = {name: columns.values(name, rows) for name in columns.scales}
    names = [name for name, score in values.items() if np.count_nonzero(~np.isnan(score)) >= FEWEST_PAIRS]
    n = len(names)
    rho, pairs = np.full((n, n), np.nan), np.zeros((n, n), np.int64)
    for i in range(n):
        for j in range(i, n):
            a, b = values[names[i]], values[names[j]]
            both = ~np.isnan(a) & ~np.isnan(b)
            pairs[i, j] = pairs[j, i] = np.count_nonzero(both)
            if pairs[i, j] >= FEWEST_PAIRS:
                rho[i, j] = rho[j, i] = spearman(a[both], b[both])
    return Correlation(names, rho, pairs)


def spearman(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    """Spearman's rank correlation, equal values sharing their mean rank; nan where one of them is constant."""
    x, y = (r - r.mean() for r in (_ranks(a), _ranks(b)))
    norm = float(np.sqrt((x * x).sum() * (y * y).sum()))
    return float((x * y).sum() / norm) if norm else float("nan")


def _ranks(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    _, at, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts + 1) / 2)[at])


@dataclass(frozen=True, slots=True)
class Example:
    """One error kind: how often, and a few of those rows as (URI, message with the machine that met it)."""

    kind: str
    of: str
    count: int
    rows: list[tuple[str, str]]


def error_examples(workspace: Workspace, columns: Columns) -> list[Example]:
    """Errors of videos and of clips by kind, the most frequent first."""
    names = ["uri", "status", "error_kind", "error", "host"]
    clips = columns.scores.table.select([name for name in names if name in columns.scores.table.column_names])
    videos = workspace.videos.read(names)
    examples = []
    for of, table in (("videos", videos), ("clips", clips)):
        wrong = table.filter(pc.equal(table["status"], "error"))
        for kind in pc.unique(wrong["error_kind"]).to_pylist():
            rows = wrong.filter(pc.equal(wrong["error_kind"], kind))
            few = rows.slice(0, _EXAMPLES).to_pylist()
            examples.append(Example(str(kind), of, rows.num_rows, [(r["uri"] or "", _told(r)) for r in few]))
    return sorted(examples, key=lambda e: -e.count)


def _told(row: Mapping[str, Any]) -> str:
    host = row.get("host")
    return f"{row['error'] or ''}{f' (on {host})' if host else ''}"


@dataclass(frozen=True, slots=True)
class Files:
    """The videos that could be read. numbers: seconds, MB and frames per second of each, where known. counts: sizes,
    codecs and folders (or hosts), most frequent first."""

    numbers: dict[str, npt.NDArray[np.float64]]
    counts: dict[str, list[tuple[str, int]]]


def files(workspace: Workspace) -> Files:
    """What the videos manifest says of the files."""
    names = ["uri", "status", "width", "height", "fps", "duration", "codec", "transfer", "container", "bytes"]
    videos = workspace.videos.read(names)
    videos = videos.filter(pc.equal(videos["status"], "ok"))
    megabytes = pc.divide(videos["bytes"].cast("float64"), 1e6)
    numbers = {
        name: column.cast("float64").drop_null().to_numpy()
        for name, column in (("duration, s", videos["duration"]), ("size, MB", megabytes), ("fps", videos["fps"]))
    }
    sizes = pc.binary_join_element_wise(videos["width"].cast("string"), videos["height"].cast("string"), "×")
    counts = {
        "frame size": _most(sizes),
        "codec": _most(videos["codec"]),
        "transfer (of colours)": _most(videos["transfer"]),
        "container": _most(videos["container"]),
        "source": _most(sources(videos["uri"])),
    }
    return Files(numbers, counts)


def crops(workspace: Workspace) -> list[tuple[str, int, float]]:
    """What was cut away where a recipe says `crop: borders`, the most frequent first: what became of borders, of how many clips,
    and the share of their pictures' area that was cut away, in the mean."""
    videos = workspace.videos.read(["video_id", "width", "height"])
    areas = pc.multiply(videos["width"].cast("int64"), videos["height"].cast("int64")).fill_null(0).to_pylist()
    whole = dict(zip(videos["video_id"].to_pylist(), areas, strict=True))
    clips_table = workspace.clips.read(["video_id", *OF_A_CROP])
    if not set(OF_A_CROP) <= set(clips_table.column_names):
        # Nothing was cut away when this workspace was written.
        return []
    by_words: dict[str, tuple[int, float]] = {}
    groups = clips_table.group_by(["video_id", *OF_A_CROP]).aggregate([([], "count_all")])
    for group in groups.to_pylist():
        number, area = int(group["count_all"]), whole.get(group["video_id"], 0)
        kept = (group["crop_width"] or 0) * (group["crop_height"] or 0)
        words = crop_words(group) or "the whole picture"
        clips, cut = by_words.get(words, (0, 0.0))
        by_words[words] = clips + number, cut + number * (1 - kept / area if kept and area else 0.0)
    rows = [(words, clips, cut / clips) for words, (clips, cut) in by_words.items()]
    rows.sort(key=lambda row: (-row[1], row[0]))
    rest = rows[_MOST_KINDS:]
    others = sum(clips for _, clips, _ in rest)
    more = (f"{len(rest)} others", others, sum(clips * cut for _, clips, cut in rest) / max(1, others))
    return [*rows[:_MOST_KINDS], *([more] if rest else [])]


def sources(uris: pa.ChunkedArray) -> pa.ChunkedArray:
    """Where videos come from: their URIs without the last part; of those in archives and tables, the folder of these."""
    encoded = uris if pa.types.is_dictionary(uris.type) else pc.dictionary_encode(uris)
    return pc.replace_substring_regex(encoded.cast("string"), r"/[^/]*(?:#(?:member|cell)=.*)?$", "")


def _most(column: pa.ChunkedArray) -> list[tuple[str, int]]:
    pairs = [(str(row["values"]), int(row["counts"])) for row in pc.value_counts(column.drop_null()).to_pylist()]
    pairs.sort(key=lambda pair: (-pair[1], pair[0]))
    rest = sum(count for _, count in pairs[_MOST_KINDS:])
    return pairs[:_MOST_KINDS] + ([(f"{len(pairs) - _MOST_KINDS} others", rest)] if rest else [])


@dataclass(frozen=True, slots=True)
class Wording:
    """Captions. words: of each overall caption and of each sub-caption. repeats: texts that more than one clip has.
    phrases: runs of PHRASE words, and in how many of the `read` clips they are."""

    words: dict[str, npt.NDArray[np.float64]]
    repeats: list[tuple[str, int]]
    phrases: list[tuple[str, int]]
    read: int


def wording(captions: pa.Table, most: int = 12) -> Wording:
    """Of the good captions in a captions table."""
    good = captions.filter(pc.equal(captions["status"], "ok"))
    subs = pc.list_flatten(good["sub_captions"].combine_chunks())
    words = {
        "words of a caption": _words(good["caption"]),
        "words of a sub-caption": _words(pa.chunked_array([subs], subs.type)),
    }
    counted = pc.value_counts(good["caption"].drop_null())
    if len(counted):
        times = counted.field("counts")
        counted = counted.filter(pc.greater(times, 1))
    repeats = [(str(row["values"]), int(row["counts"])) for row in counted.to_pylist()[: 50 * most]]
    step = max(1, good.num_rows // MOST_READ)
    few = good.select(["caption", "sub_captions"]).take(pa.array(range(0, good.num_rows, step), pa.int64()))
    seen: Counter[str] = Counter()
    for row in few.to_pylist():
        texts = [row["caption"] or "", *(row["sub_captions"] or [])]
        seen.update({phrase for text in texts for phrase in phrases(text or "")})
    common = [(phrase, n) for phrase, n in seen.most_common(20 * most) if n > 1]
    return Wording(words, sorted(repeats, key=lambda r: -r[1])[:most], _distinct(common, most), few.num_rows)


def _words(column: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    return np.asarray(pc.count_substring_regex(column.drop_null(), r"\S+").cast("float64").to_numpy())


def phrases(text: str) -> list[str]:
    """All runs of PHRASE words of a text, in small letters."""
    words = re.findall(r"[^\W_]+(?:['’-][^\W_]+)*", text[: 20 * MOST_WORDS].lower())[:MOST_WORDS]
    return [" ".join(words[i : i + PHRASE]) for i in range(len(words) - PHRASE + 1)]


def _distinct(common: list[tuple[str, int]], most: int) -> list[tuple[str, int]]:
    """Without phrases that are another one, shifted by a word or two."""
    chosen: list[tuple[str, int]] = []
    for phrase, count in common:
        pairs = set(zip(phrase.split(), phrase.split()[1:], strict=False))
        if all(len(pairs & set(zip(other.split(), other.split()[1:], strict=False))) < 2 for other, _ in chosen):
            chosen.append((phrase, count))
        if len(chosen) == most:
            break
    return chosen


def seconds_of(stages: dict[str, dict[str, Any]]) -> list[tuple[str, ...]]:
    """The last run of each stage, and all of them, as cells."""
    rows: list[tuple[str, ...]] = []
    for stage, run in stages.items():
        hours = run["seconds"] / 3600
        speed = f"{run['video_hours'] / hours:.3g}" if run["computed"] and hours else "–"
        rows.append(
            (
                stage,
                f"{run['rows']:,}",
                f"{run['computed']:,}",
                f"{run['errors']:,}",
                f"{run['seconds']:,.1f}",
                f"{run['cpu_seconds'] or 0:,.1f}",
                f"{run['video_hours']:,.3g}",
                speed,
                str(run["workers"]),
                f"{run['total']['runs']}, {run['total']['seconds']:,.0f} s",
            )
        )
    return rows
