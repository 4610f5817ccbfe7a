"""`longtake report`: a workspace as one HTML file that needs nothing else, to be read, printed and passed on.

Pictures are in it, scripts are not. Its size is bounded whatever the corpus: numbers are aggregated, and so many clips
are shown, each once. Everything that comes from outside (URIs, captions, error messages) is escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.resources import files as resources

import numpy as np

from longtake.curation.looking.report import findings
from longtake.curation.looking.report.charts import Bar, bars, distribution, histogram
from longtake.curation.looking.report.clips import ClipView, Looker, data_uri, plain
from longtake.curation.looking.report.columns import Columns
from longtake.curation.looking.stats import counted, stage_runs
from longtake.curation.recipe import Recipe
from longtake.curation.workspace import Workspace
from longtake.filters.gates import Gate
from longtake.filters.verdicts import Alone

MOST_BYTES = 6_000_000  # of pictures: the file stays below 10 MB
MOST_CLIPS = 160
PICTURE = 224  # pixels wide
KEPT_SHOWN, REJECTED_SHOWN, NEAR_SHOWN = 6, 2, 2  # of each tier, gate, side of a threshold

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


@dataclass(slots=True)
class _Sheets:
    """Shows clips, each once with its pictures, until there is no more room."""

    looker: Looker
    shown: dict[int, str] = field(default_factory=dict)
    pictures: int = 0

    def sheet(self, rows: Iterable[int], tier: str) -> str:
        parts = []
        for row in rows:
            if row in self.shown:
                link = f'<a href="#{self.shown[row]}">{self.shown[row]}</a>'
                parts.append(f'<p class="note">and clip {link}, shown elsewhere on this page</p>')
                continue
            if len(self.shown) >= MOST_CLIPS:
                parts.append('<p class="note">and others: this page has shown as many clips as it may</p>')
                break
            room = self.pictures < MOST_BYTES
            view = self.looker.look([row], PICTURE if room else 0)[0]
            self.pictures += sum(len(picture) * 4 // 3 for picture in view.pictures)
            self.shown[row] = f"clip-{len(self.shown) + 1}"
            parts.append(f'<div id="{self.shown[row]}">{clip_figure(view, tier)}</div>')
        return "".join(parts) or '<p class="note">none</p>'


def write_report(workspace: Workspace, recipe: Recipe) -> bytes:
    """The page, as UTF-8."""
    columns = Columns.load(workspace, recipe)
    looker = Looker(workspace, columns)
    sheets = _Sheets(looker)
    sections = [
        ("summary", "Summary", _summary(workspace, columns, looker)),
        ("funnel", "The funnel", _funnels(columns)),
        ("scores", "Scores and gates", _scores(columns)),
        ("together", "Which gates say the same", _together(columns)),
        ("kept", "Clips that are kept", _kept(columns, sheets)),
        ("rejected", "Clips that a gate rejects", _rejected(columns, sheets)),
        ("near", "On either side of each threshold", _near(columns, sheets)),
        ("errors", "Errors", _errors(workspace, columns)),
        ("files", "Files", _files(workspace)),
        ("captions", "Captions", _captions(looker)),
        ("time", "Where the time went", _time(workspace)),
    ]
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    contents = "".join(f'<li><a href="#{key}">{title}</a></li>' for key, title, _ in sections)
    body = "".join(f'<section id="{key}"><h2>{title}</h2>{text}</section>' for key, title, text in sections)
    style = (resources("longtake.curation.looking.report") / "report.css").read_text(encoding="utf-8")
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{plain(recipe.name)}: report</title><style>{style}</style></head><body>"
        '<a class="skip" href="#main">Skip to the report</a>'
        f"<header><h1>What the recipe <bdi>{plain(recipe.name)}</bdi> makes of <bdi>{plain(workspace.path)}</bdi></h1>"
        f'<p class="note">{now}</p></header><nav aria-label="Contents"><ul>{contents}</ul></nav>'
        f'<main id="main">{body}</main></body></html>\n'
    )
    return page.encode("utf-8", "replace")


# ── a clip ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def clip_figure(view: ClipView, tier: str | None = None) -> str:
    """A clip as HTML: where it is from, the verdict, five keyframes over their sub-captions, scores."""
    tiers = [tier] if tier is not None else list(view.verdicts)
    why = []
    for name in tiers:
        word, alone = view.verdicts[name], view.alone[name]
        by = f" by one gate {alone}" if alone in (Alone.YES, Alone.SO_FAR) else ""
        reasons = "; ".join(view.reasons(name))
        kind = "fine" if word == "kept" else "why"
        why.append(
            f'<p class="{kind}">{plain(name)}: {word}{by}{". " if reasons else ""}<bdi>{plain(reasons)}</bdi></p>'
        )
    caption = f'<p dir="auto">{plain(view.caption, 400)}</p>' if view.caption else ""
    scores = " · ".join(f"{plain(name)} {value:.4g}" for name, value in view.scores.items())
    return (
        f'<article class="clip" aria-label="clip {plain(view.clip_id)}"><h4>{plain(view.clip_id)}</h4>'
        f'<p class="note"><bdi>{plain(view.uri, 300)}</bdi>, {view.start:.2f} to {view.end:.2f} s</p>'
        f'{"".join(why)}{caption}{_frames(view)}<p class="scores">{scores}</p></article>'
    )


def _frames(view: ClipView) -> str:
    if not view.pictures and not view.sub_captions:
        return '<p class="note">no frames of it are stored</p>'
    cells = []
    for i in range(max(len(view.pictures), len(view.sub_captions))):
        picture = ""
        if i < len(view.pictures) and view.pictures[i]:
            at = f" at {view.times[i]:.1f} s" if i < len(view.times) else ""
            picture = f'<img alt="keyframe {i + 1}{at}" width="{PICTURE}" src="{data_uri(view.pictures[i])}">'
        text = plain(view.sub_captions[i], 240) if i < len(view.sub_captions) else ""
        cells.append(f'<li>{picture}<span dir="auto">{text}</span></li>')
    return f'<ul class="frames">{"".join(cells)}</ul>'


# ── sections ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _table(heads: Sequence[str], rows: Sequence[Sequence[object]], title: str, left: int = 1) -> str:
    """left: so many columns are text; the others are numbers. Cells that are `_Html` are put in as they are."""
    pictured = {i for row in rows for i, cell in enumerate(row) if isinstance(cell, _Html)}
    kinds = ["" if i < left else ' class="w"' if i in pictured else ' class="n"' for i in range(len(heads))]
    head = "".join(f'<th scope="col"{kind}>{plain(text)}</th>' for text, kind in zip(heads, kinds, strict=True))
    lines = []
    for row in rows:
        cells = []
        for i, (cell, kind) in enumerate(zip(row, kinds, strict=True)):
            told = cell if isinstance(cell, _Html) else f"<bdi>{plain(cell, 300)}</bdi>"
            cells.append(f'<th scope="row">{told}</th>' if i == 0 else f"<td{kind}>{told}</td>")
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{plain(title)}"><table><caption>{plain(title)}'
        f"</caption><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


class _Html(str):
    """Text that is HTML already."""


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "–"


def _summary(workspace: Workspace, columns: Columns, looker: Looker) -> str:
    videos = counted(workspace.videos.read(["status"], encoded=["status"])["status"])
    clips = counted(columns.scores.table["status"])
    captions = counted(looker.captions()["status"])
    cards = [
        ("videos", sum(videos.values()), f"{videos.get('error', 0):,} errors"),
        ("clips", sum(clips.values()), f"{clips.get('error', 0):,} errors"),
        ("captions", sum(captions.values()), ", ".join(f"{n:,} {status}" for status, n in sorted(captions.items()))),
    ]
    for tier in columns.tiers:
        counts = columns.counts(tier)
        told = ", ".join(f"{counts[v]:,} {v}" for v in ("rejected", "undecided", "error") if counts[v])
        cards.append((f"kept: {tier}", counts["kept"], f"{_share(counts['kept'], len(columns))} of all; {told}"))
    items = "".join(f"<li>{plain(name)}<b>{n:,}</b>{plain(more)}</li>" for name, n, more in cards)
    notes = [f"not applied: {name} ({why})" for name, why in columns.recipe.not_applied.items()]
    notes += [f"taken as they are: scores of {n}, since here {why}" for n, why in columns.scores.unchecked.items()]
    return f'<ul class="cards">{items}</ul>' + "".join(f'<p class="note">{plain(note)}</p>' for note in notes)


def _funnels(columns: Columns) -> str:
    parts = [
        '<p class="note key"><i class="kept"></i>left after the gate<i class="fall"></i>fall at it'
        '<i class="hold"></i>left without a score<i class="whole"></i>fell before</p>',
        '<p class="note">Fail this alone: every other gate passed the clip. Alone so far: no other gate failed it, but some '
        "other has no score of it, so it may fail that one, too.</p>",
    ]
    for tier in columns.tiers:
        counts = columns.counts(tier)
        rows = columns.funnel(tier)
        whole = max(rows[0]["reach it"] if rows else 0, 1)
        lines = []
        for row in rows:
            held = row["no score"] / whole
            drawn = bars(
                [
                    Bar(row["left"] / whole - held, "kept"),
                    Bar(held, "hold"),
                    Bar(row["fall at it"] / whole, "fall"),
                ]
            )
            by_itself = counts["gates"][row["gate"]]
            numbers = [row["reach it"], row["fall at it"], row["no score"], row["left"]]
            numbers += [by_itself[key] for key in ("failed", "only_failure", "only_failure_so_far")]
            lines.append((row["gate"], row["range"], _Html(drawn), *(f"{n:,}" for n in numbers)))
        heads = (
            "gate", "range", "in order", "reach it", "fall at it", "no score", "left", "fail it at all", "fail this alone",
            "alone so far",
        )  # fmt: skip
        parts.append(_table(heads, lines, f"{tier}: {counts['kept']:,} of {len(columns):,} clips are kept", left=2))
    return "".join(parts)


def _scores(columns: Columns) -> str:
    panels = []
    for name, scale in columns.scales.items():
        gates: dict[Gate, list[str]] = {}
        for tier, now in columns.tiers.items():
            if name in now.gates:
                gates.setdefault(now.gates[name].gate, []).append(tier)
        rows = columns.everything()
        known = columns.values(name, rows)
        rows, known = rows[~np.isnan(known)], known[~np.isnan(known)]
        shares = []
        for gate, tiers in gates.items():
            _, excess = columns.tiers[tiers[0]].gates[name].outside(rows)
            below, above = int(np.sum(excess < 0)), int(np.sum(excess > 0))
            sides = [f"{_share(below, known.size)} below" if np.isfinite(gate.low) else ""]
            sides += [f"{_share(known.size - below - above, known.size)} inside"]
            sides += [f"{_share(above, known.size)} above" if np.isfinite(gate.high) else ""]
            shares.append(f"{', '.join(tiers)} {gate}: {', '.join(filter(None, sides))}")
        filter_ = columns.recipe.built[name]
        told = f"{name}: {known.size:,} clips have it. {'; '.join(shares)}"
        drawn = histogram(
            filter_.unit, scale, columns.histogram(name), [(", ".join(t), g) for g, t in gates.items()], told
        )
        lines = "".join(f"<li>{plain(line)}</li>" for line in shares)
        panels.append(
            f'<figure class="panel"><figcaption><h3>{plain(name)}</h3>{known.size:,} of {len(columns):,} clips</figcaption>'
            f'{drawn}<ul class="share">{lines}</ul></figure>'
        )
    note = (
        "The lines are the gates; what lies outside of the first is shaded. The outer bars also hold what lies beyond."
    )
    return f'<p class="note">{note}</p><div class="grid">{"".join(panels)}</div>'


def _together(columns: Columns) -> str:
    found = findings.rank_correlation(columns)
    if len(found.names) < 2:
        return '<p class="note">too few scores to compare</p>'
    rows = []
    for i, name in enumerate(found.names):
        cells = "".join(_rho(float(found.rho[i, j]), int(found.pairs[i, j]), i == j) for j in range(len(found.names)))
        rows.append(f'<tr><th scope="row">{plain(name)}</th>{cells}</tr>')
    heads = "".join(f'<th scope="col" class="n">{plain(name)}</th>' for name in found.names)
    title = "Spearman's rank correlation of each score with each"
    return (
        f'<p class="note">On at most {findings.MOST_RANKED:,} clips that have both scores. Near 1 or −1: two gates that '
        "reject the same clips; which one measures more cheaply may then be enough.</p>"
        f'<div class="scroll" tabindex="0" role="region" aria-label="{title}"><table><caption>{title}</caption>'
        f"<thead><tr><td></td>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _rho(rho: float, pairs: int, same: bool) -> str:
    if np.isnan(rho) or same:
        return f'<td class="rho" title="{pairs:,} clips">{"1" if same else "–"}</td>'
    color = "var(--kept)" if rho >= 0 else "var(--fall)"
    shade = f"background: color-mix(in srgb, {color} {45 * abs(rho):.0f}%, transparent)"
    return f'<td class="rho" style="{shade}" title="{pairs:,} clips">{rho:.2f}</td>'


def _kept(columns: Columns, sheets: _Sheets) -> str:
    return "".join(
        f"<h3>{plain(tier)}</h3>{sheets.sheet(columns.to_show(columns.kept(tier), KEPT_SHOWN).tolist(), tier)}"
        for tier in columns.tiers
    )


def _rejected(columns: Columns, sheets: _Sheets) -> str:
    parts = []
    for gate, name, tiers in _gates(columns):
        result = columns.tiers[tiers[0]].gates[name]
        alone, so_far = columns.alone(tiers[0], name)
        rejected = np.flatnonzero(columns.counted & result.failed)
        told = f"in {tiers[0]} {alone.size:,} by it alone, {so_far.size:,} by it alone as far as they are measured"
        title = f"{name} {gate} ({', '.join(tiers)}): {rejected.size:,} rejected, {told}"
        chosen: list[int] = []
        for rows in (alone, so_far, rejected):
            if len(chosen) < REJECTED_SHOWN and (rows is not rejected or not chosen):
                chosen += columns.to_show(rows, REJECTED_SHOWN - len(chosen)).tolist()
        parts.append(f"<div><h3>{plain(title)}</h3>{sheets.sheet(chosen, tiers[0])}</div>")
    return f'<div class="two">{"".join(parts)}</div>'


def _near(columns: Columns, sheets: _Sheets) -> str:
    parts = [
        '<p class="note">Of the clips that no other gate rejects, where there are any: the nearest inside, and the '
        "nearest outside. First those that every gate has a score of; of the others it is told which gates have none.</p>"
    ]
    for gate, name, tiers in _gates(columns):
        rows = columns.others_pass(tiers[0], name)
        if not np.any(~np.isnan(columns.values(name, rows))):
            rows = columns.everything()
        for end, threshold in (("low", gate.low), ("high", gate.high)):
            if not np.isfinite(threshold):
                continue
            sides = []
            sides_of_it = columns.near_end(tiers[0], name, end, rows, NEAR_SHOWN)
            for near, word in zip(sides_of_it, ("just inside", "just outside"), strict=True):
                sides.append(f"<div><h4>{word}</h4>{sheets.sheet(near.tolist(), tiers[0])}</div>")
            title = f"{name} {'≥' if end == 'low' else '≤'} {threshold:g} ({', '.join(tiers)})"
            parts.append(f'<h3>{plain(title)}</h3><div class="two">{"".join(sides)}</div>')
    return "".join(parts)


def _gates(columns: Columns) -> list[tuple[Gate, str, list[str]]]:
    """Each gate once, with the tiers that have it."""
    found: dict[tuple[str, Gate], list[str]] = {}
    for tier, now in columns.tiers.items():
        for name, result in now.gates.items():
            found.setdefault((name, result.gate), []).append(tier)
    return [(gate, name, tiers) for (name, gate), tiers in found.items()]


def _errors(workspace: Workspace, columns: Columns) -> str:
    found = findings.error_examples(workspace, columns)
    if not found:
        return '<p class="note">none</p>'
    rows = []
    for example in found:
        items = "".join(
            f"<li><bdi>{plain(uri, 200)}</bdi>: <bdi>{plain(message, 300)}</bdi></li>" for uri, message in example.rows
        )
        rows.append((example.kind, example.of, f"{example.count:,}", _Html(f"<ul>{items}</ul>")))
    return _table(("kind", "of", "how many", "for example"), rows, "An error is no rejection", left=2)


def _files(workspace: Workspace) -> str:
    found = findings.files(workspace)
    drawn = "".join(distribution(name, values) for name, values in found.numbers.items())
    tables = "".join(
        _table((name, "videos"), [(key, f"{n:,}") for key, n in counts], f"videos by {name}")
        for name, counts in found.counts.items()
        if counts
    )
    return f'<div class="grid">{drawn}</div><div class="two">{tables}</div>'


def _captions(looker: Looker) -> str:
    found = findings.wording(looker.captions())
    if not found.read:
        return '<p class="note">no captions yet</p>'
    drawn = "".join(distribution(name, values) for name, values in found.words.items())
    repeats = [(text, f"{n:,}") for text, n in found.repeats]
    phrases = [(text, f"{n:,}", _share(n, found.read)) for text, n in found.phrases]
    tables = _table(("caption", "clips"), repeats, "Captions that several clips share") if repeats else ""
    if phrases:
        tables += _table(("phrase", "clips", "share"), phrases, f"Phrases that come again, in {found.read:,} clips")
    return f'<div class="grid">{drawn}</div><div class="two">{tables}</div>'


def _time(workspace: Workspace) -> str:
    rows = findings.seconds_of(stage_runs(workspace))
    if not rows:
        return '<p class="note">no stage has run</p>'
    heads = ("stage", "rows", "computed", "errors", "seconds", "CPU s", "video h", "video h/h", "workers", "all runs")
    return _table(heads, rows, "The last run of each stage")
