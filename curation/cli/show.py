"""Results as tables on a terminal, and as CSV. Everything that comes from outside is one line of plain text."""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc
from rich.console import Console

from longtake.curation.cli.app import outside
from longtake.curation.cli.tables import print_table, text_of
from longtake.curation.looking.nearest import BEST, Nearest, nearest
from longtake.curation.looking.stats import QUANTILES, Statistics, export_errors, hours, statistics
from longtake.curation.recipe import Recipe
from longtake.curation.workspace import Workspace
from longtake.filters.verdicts import Alone
from longtake.manifests.dataset.switch import published
from longtake.manifests.uris import redact

if TYPE_CHECKING:
    from longtake.curation.doctor import Finding
    from longtake.curation.forgetting import Forgotten
    from longtake.curation.looking.calibrate import Calibration
    from longtake.curation.looking.tiering import Retiering
    from longtake.curation.pipeline import RunResult


_ALONE = (
    "[dim]fail this alone: every other gate passed the clip. alone so far: no other gate failed it, but some other gate "
    "has no score of it, so it may fail that one, too. not known: the clip was measured, and its score cannot be known. "
    "uncertain: the score lies nearer to an end of the gate than its standard error.[/]"
)


def show_summary(console: Console, workspace: Workspace, recipe: Recipe, result: RunResult) -> Statistics:
    """The end of a run: the funnel, errors, where the result lies, and, where next to nothing is kept, how to go on."""
    figures = statistics(workspace, recipe, near=0)
    console.print()
    _show_counts(console, figures)
    _show_funnels(console, figures)
    _show_stages(console, figures)
    _show_not_applied(console, figures)
    for note in result.notes:
        console.print(outside(note), soft_wrap=True)
    if "export" in result.stages:
        _show_not_encoded(console, workspace, recipe)
    for tier, clips in result.datasets.items():
        long = _dataset_hours(workspace, tier)
        console.print(
            f"dataset: {outside(redact(workspace.path))}/dataset/{tier} ({clips} clips){long}", soft_wrap=True
        )
    for tier, why in result.kept_back.items():
        console.print(f"[bold]dataset {outside(tier)} stays as it was:[/] {outside(why)}", soft_wrap=True)
    if result.faults:
        left = f"; {result.left} of them keep the result they had" if result.left else ""
        console.print(
            f"{result.faults} row{'s' if result.faults > 1 else ''} met faults of the world{left}; the same command tries "
            f"{'them' if result.faults > 1 else 'it'} again",
            soft_wrap=True,
        )
    if "export" in result.stages and (near := nearest(workspace, recipe)):
        console.print()
        _show_nearest(console, workspace, near)
    return figures


def _show_not_encoded(console: Console, workspace: Workspace, recipe: Recipe) -> None:
    """Which clips could not be encoded, why, and what to do."""
    wrong, examples = export_errors(workspace, recipe)
    if not wrong:
        return
    kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(wrong.items()))
    place = outside(shlex.quote(redact(workspace.path)))
    many = sum(wrong.values())
    console.print(
        f"not encoded: {many:,} clip{'s' if many > 1 else ''} ({outside(kinds)}). This tries them again:\n"
        f"  longtake curate -o {place} --retry-errors",
        soft_wrap=True,
    )
    if "changed" in wrong:
        console.print(
            "This scans the films anew that have changed, and makes other clips of them:\n"
            f"  longtake curate LIST_OR_FOLDER -o {place}",
            soft_wrap=True,
        )
    _show_examples(console, examples, wrong)


def _show_examples(console: Console, examples: Mapping[str, Mapping[str, Any]], counts: Mapping[str, int]) -> None:
    """Of each kind of error one row that has it, and how many have."""
    for kind, one in sorted(examples.items()):
        which = f"{outside(one['name'])}{f' (one of {counts[kind]:,})' if counts[kind] > 1 else ''}"
        console.print(f"    {outside(kind)}: {which}: {outside(one['error'] or 'no reason is stored')}", soft_wrap=True)


def _dataset_hours(workspace: Workspace, tier: str) -> str:
    index = published(workspace.folder / "dataset" / tier, ["num_frames", "fps"])
    if index is None or not index.num_rows:
        return ""
    return f", {hours(pc.sum(pc.divide(pc.cast(index['num_frames'], 'float64'), index['fps'])).as_py())}"


def _show_nearest(console: Console, workspace: Workspace, near: Nearest) -> None:
    """How to go on where next to nothing is kept: at most eight lines."""
    place = shlex.quote(redact(workspace.path))
    line = f"{near.tier} keeps {near.kept} of {near.clips} clips, {hours(near.kept_seconds)} of {hours(near.seconds)}."
    if near.decisive:
        gate, range_, clips, seconds = near.decisive
        line += f" Most fall at {gate} ({range_}): {clips} clips, {hours(seconds)}."
    console.print(f"[bold]{outside(line)}[/]", soft_wrap=True)
    for clip in near.near:
        told = ", ".join(f"{name} {score:.4g} ({excess:+.3g})" for name, (score, excess) in clip.failed.items())
        more = f", and {clip.unmeasured} gates have no score of it" if clip.unmeasured else ""
        console.print(f"Near: {clip.clip_id} fails {outside(told or 'no gate')}{more}.", soft_wrap=True)
    if near.changes:
        sets = " ".join(f"--set {key}={shlex.quote(range_)}" for key, range_ in near.changes.items())
        best = min(BEST, near.would_keep)
        many = f"{near.would_keep} in all, {hours(near.would_keep_seconds)}"
        if near.exact:
            console.print(f"This keeps the best {best} ({many}):")
        else:
            console.print(f"This lets the best {best} through ({many}), as far as they are measured:")
        console.print(f"  longtake curate -o {outside(place)} {outside(sets)}", soft_wrap=True)
    elif near.too_short:
        console.print("No shot is long enough for a clip. This takes every shot of 2 s and more, and rejects none:")
        console.print(f"  longtake curate -o {outside(place)} -r explore", soft_wrap=True)
    console.print(
        f"  longtake report {outside(place)}  # one page: the clips on both sides of each gate", soft_wrap=True
    )
    console.print(
        f"  longtake studio {outside(place)}  # move gates in a browser, and see what changes", soft_wrap=True
    )


def show_forgotten(console: Console, forgotten: Forgotten) -> None:
    """The end of `longtake forget`."""
    console.print(
        f"erased: {forgotten.known} videos, {forgotten.clips} clips, {forgotten.rows} rows, {forgotten.files} files",
        soft_wrap=True,
    )
    for tier, lost in forgotten.datasets.items():
        console.print(f"dataset {outside(tier)}: {lost} clips fewer", soft_wrap=True)
    for tier, count in forgotten.without.items():
        console.print(f"dataset {outside(tier)}: {count} further clips were missing, the next export brings them back")
    for tier in forgotten.removed:
        console.print(
            f"dataset {outside(tier)}: removed, since its index cannot be read; the next export writes it anew"
        )
    for name in forgotten.before:
        console.print(f"{outside(redact(name))}: was forgotten before", soft_wrap=True)
    for name in forgotten.unknown:
        console.print(
            f"{outside(redact(name))}: not in this workspace; its name is noted, so that no later run takes it",
            soft_wrap=True,
        )


def show_statistics(console: Console, figures: Statistics) -> None:
    """`longtake stats`."""
    _show_counts(console, figures)
    _show_funnels(console, figures)
    for tier, counts in figures.summary["tiers"].items():
        keys = (
            "range",
            "passed",
            "failed",
            "no score",
            "not_known",
            "only_failure",
            "only_failure_so_far",
            "uncertain",
        )
        gates = {
            name: {**gate, "no score": gate["missing"] - gate["not_known"]} for name, gate in counts["gates"].items()
        }
        rows = [(name, *(gate[key] for key in keys)) for name, gate in gates.items()]
        columns = (
            "gate",
            "range",
            "pass",
            "fail",
            "no score",
            "not known",
            "fail this alone",
            "alone so far",
            "uncertain",
        )
        print_table(console, f"{tier}: each gate by itself", columns, rows, left=2)
    console.print(_ALONE, "")
    shares = ("min", "5 %", "25 %", "median", "75 %", "95 %", "max")
    assert len(shares) == len(QUANTILES)
    known = [(name, *values) for name, values in figures.quantiles.items()]
    print_table(console, "scores", ("score", *shares), known)
    _show_near_misses(console, figures)
    _show_stages(console, figures)
    _show_not_applied(console, figures)


def _show_near_misses(console: Console, figures: Statistics) -> None:
    every = len(figures.funnels)
    for alone, title in (
        (Alone.YES, "nearly kept: one gate alone rejects them"),
        (Alone.SO_FAR, "perhaps nearly kept: one gate alone rejects them as far as they are measured"),
    ):
        near = [
            (m.clip_id, "all" if len(m.tiers) == every else ", ".join(m.tiers), m.gate, m.score, f"{m.excess:+.4g}")
            + ((", ".join(m.no_score),) if m.no_score else ())
            for m in figures.near_misses
            if m.alone == alone
        ]
        heads = ("clip", "tiers", "gate", "score", "outside by", "no score of")
        if near:
            print_table(console, title, heads[: len(near[0])], near, left=3)


def _show_counts(console: Console, figures: Statistics) -> None:
    for name in ("videos", "clips"):
        counts = figures.summary[name]
        kinds = ", ".join(f"{kind} {n}" for kind, n in sorted(counts["error_kinds"].items()))
        console.print(
            f"{name}: {counts['total']} = {counts['ok']} ok + {counts['error']} errors"
            + (f" ({outside(kinds)})" if kinds else "")
            + (f", {hours(3600 * figures.summary['hours'][name])}" if counts["total"] else "")
        )
        if counts.get("tone_mapped"):
            console.print(f"    HDR, mapped to SDR: {counts['tone_mapped']}")
        _show_examples(console, figures.summary["error_examples"][name], counts["error_kinds"])
        if hosts := ", ".join(f"{host} {n}" for host, n in sorted(figures.summary["error_hosts"][name].items())):
            console.print(f"    errors by machine: {outside(hosts)}", soft_wrap=True)
    captions = figures.summary["captions"]
    if captions["total"] or captions["gone"]:
        by_status = " + ".join(f"{count} {status}" for status, count in sorted(captions["status"].items())) or "0 ok"
        paid = ""
        if captions["requests"]:
            paid = f", {captions['prompt_tokens']} + {captions['completion_tokens']} tokens"
            paid += f" (with {captions['gone']} captions of clips that are gone)" if captions["gone"] else ""
        console.print(f"captions: {captions['total']} = {outside(by_status)}{paid}")
        if faults := ", ".join(f"{name.replace('_', ' ')} {n}" for name, n in captions["faults"].items() if n):
            console.print(f"    of them with {faults}")
    for tier, counts in figures.summary["tiers"].items():
        lengths = figures.summary["hours"]["tiers"][tier]
        parts = [
            f"{counts[v]} {v}"
            for v in ("kept", "rejected", "error", "undecided")
            if counts[v] or v in ("kept", "rejected")
        ]
        long = ", ".join(f"{hours(3600 * lengths[v])} {v}" for v in lengths if counts[v])
        console.print(f"{outside(tier)}: {', '.join(parts)}" + (f" ({long})" if long else ""))
    console.print()


def _show_funnels(console: Console, statistics: Statistics) -> None:
    for tier, rows in statistics.funnels.items():
        if rows:
            print_table(
                console,
                f"{tier}: the funnel",
                [*rows[0], "hours left"],
                [
                    [*row.values(), long]
                    for row, long in zip(rows, statistics.summary["hours"]["left"][tier], strict=True)
                ],
                left=2,
            )


def _rough(value: float | None) -> str | None:
    return None if value is None else f"{value:.3g}"


def _show_stages(console: Console, statistics: Statistics) -> None:
    rows = []
    for stage, run in statistics.summary["stages"].items():
        hours = run["seconds"] / 3600
        speed = run["video_hours"] / hours if run["computed"] and hours else None
        core = run["video_hours"] / (run["cpu_seconds"] / 3600) if run["cpu_seconds"] else None
        rows.append(
            (
                stage,
                run["rows"],
                run["computed"],
                run["errors"],
                _rough(run["seconds"]),
                _rough(run["per_second"]),
                None if run["busy_share"] is None else f"{run['busy_share']:.0%}",
                *map(_rough, (run["cpu_seconds"], run["video_hours"], speed, core)),
            )
        )
    if rows:
        columns = (
            "stage",
            "rows",
            "done",
            "errors",
            "s",
            "rows/s",
            "busy",
            "CPU s",
            "video h",
            "h/h",
            "per core",
        )
        print_table(console, "the last run of each stage", columns, rows)


def _show_not_applied(console: Console, figures: Statistics) -> None:
    for note in (*figures.summary["lengths"], *figures.summary["files"]):
        console.print(outside(note), soft_wrap=True)
    for name, count in figures.summary["other_spacing"].items():
        console.print(
            f"not comparable: {outside(name)} of {count} clips, whose keyframes are not as far apart as those of this recipe's "
            f"windows (`filters.{outside(name)}.spacing: any` takes them all the same)",
            soft_wrap=True,
        )
    for name, why in figures.summary["not_applied"].items():
        console.print(f"not applied: {outside(name)} ({outside(why)})")
    for name, why in figures.summary["unchecked"].items():
        console.print(
            f"taken as they are: scores of {outside(name)}, since the method cannot be checked: {outside(why)}",
            soft_wrap=True,
        )


def statistics_csv(statistics: Statistics) -> str:
    """One line per tier and gate."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    keys = ("range", "passed", "failed", "missing", "not_known", "only_failure", "only_failure_so_far", "uncertain")
    writer.writerow(["tier", "gate", *keys, "left"])
    for tier, counts in statistics.summary["tiers"].items():
        left = {row["gate"]: row["left"] for row in statistics.funnels[tier]}
        for name, gate in counts["gates"].items():
            writer.writerow([tier, name, *(gate[key] for key in keys), left[name]])
    return out.getvalue()


def show_changes(console: Console, retiering: Retiering) -> None:
    """`longtake tiers`."""
    show_differences(console, retiering.settings, retiering.stale)
    rows = [
        (c.tier, c.before, c.after, f"+{c.entering}", f"−{c.leaving}", c.undecided, hours(c.seconds))
        for c in retiering.tiers
    ]
    print_table(console, "kept", ("tier", "before", "after", "enter", "leave", "undecided", "hours after"), rows)
    if any(c.undecided for c in retiering.tiers):
        console.print("undecided clips lack a score that the old gates made needless: `longtake curate` measures it")


def show_differences(console: Console, settings: Sequence[tuple[str, Any, Any]], stale: Sequence[str]) -> None:
    """Settings that differ, and what has to be measured again."""
    if settings:
        print_table(console, "settings", ("key", "before", "after"), settings, left=3)
    else:
        console.print("the recipes are the same")
    if stale:
        console.print(f"to be measured again: {outside(', '.join(stale))}", "")


_CROP = ("crop_x", "crop_y", "crop_width", "crop_height")


def show_clip(console: Console, known: Mapping[str, Any]) -> None:
    """`longtake show`."""
    for key, value in known.items():
        if key not in ("scores", "tiers", "captions", "exported", *_CROP) and value is not None:
            console.print(f"{key}: {outside(text_of(value))}", soft_wrap=True)
    if known.get("crop_width") is not None:
        x, y, width, height = (known[key] for key in _CROP)
        console.print(f"crop: {width}×{height} px of its picture, from ({x}, {y}) on: its scores are of that part")
    console.print()
    rows = [
        (
            name,
            "not known" if s["value"] is None else s["value"],
            s["standard error"],
            ", ".join(f"{v:.4g}" for v in s["detail"] or []),
            s["protocol"],
        )
        for name, s in known["scores"].items()
    ]
    print_table(console, "scores", ("score", "value", "±", "detail", "protocol"), rows, left=5)
    for tier, verdict in known["tiers"].items():
        by = f" by one gate {verdict['alone']}" if verdict["alone"] in (Alone.YES, Alone.SO_FAR) else ""
        console.print(f"{outside(tier)}: {verdict['verdict']}{by}")
        for name, why in verdict["failed"].items():
            console.print(
                f"    {name} {why['score']:.4g} is outside {outside(why['range'])} by {why['outside by']:.4g}"
            )
        for name, why in verdict["uncertain"].items():
            console.print(
                f"    uncertain: {name} {why['score']:.4g} {'passes' if why['passed'] else 'fails'} {outside(why['range'])} by "
                f"less than its standard error, {why['standard error']:.2g}",
                soft_wrap=True,
            )
        if verdict["no score"]:
            console.print(f"    no score yet: {', '.join(verdict['no score'])}")
        if verdict["not knowable"]:
            console.print(f"    cannot be known of this clip: {', '.join(verdict['not knowable'])}")
    captions = known["captions"]
    if captions:
        console.print(
            f"\ncaptions: {outside(str(captions['status']))}"
            + (f" ({outside(captions['reason'])})" if captions["reason"] else "")
            + (f", on {outside(captions['host'])}" if captions["status"] != "ok" and captions.get("host") else "")
        )
        for text in [captions["caption"], *(captions["sub_captions"] or [])]:
            if text:
                console.print(f"    {outside(text)}", soft_wrap=True)
    if known["exported"]:
        done = known["exported"]
        console.print(
            f"\nexported: {outside(str(done['status']))}, {outside(str(done['path']))}, {done['width']}×{done['height']}, "
            f"{done['num_frames']} frames"
            + (f", {done['pace']:.3g} times as fast as it was filmed" if (done["pace"] or 1.0) > 1 else "")
            + (
                f", its last {done['seconds_left_out']:.1f} s left out"
                if (done["seconds_left_out"] or 0.0) > 0.05
                else ""
            ),
            soft_wrap=True,
        )
        if done["status"] != "ok":
            where = f" (on {done['host']})" if done.get("host") else ""
            console.print(
                f"    {outside(str(done['error_kind']))}: {outside(str(done['error']))}{outside(where)}", soft_wrap=True
            )


def show_findings(console: Console, findings: Sequence[Finding]) -> None:
    """`longtake doctor`."""
    for finding in findings:
        mark = "[green]ok[/]" if finding.good else "[red]no[/]" if finding.needed else "[yellow] –[/]"
        console.print(f"{mark}  {outside(finding.what)}: {outside(finding.detail)}", soft_wrap=True)


def show_calibration(console: Console, calibration: Calibration) -> None:
    """How two backends relate: correlation, quantiles, matching thresholds."""
    left, right = (outside(protocol.partition("/")[0]) for protocol in calibration.protocols)
    for protocol in calibration.protocols:
        console.print(outside(protocol), soft_wrap=True)
    console.print(
        f"{calibration.clips} clips"
        + (f"; {calibration.failed} could not be measured by both" if calibration.failed else "")
    )
    console.print(f"rank correlation (Spearman): {calibration.rank_correlation:.3f}")
    rows = [(f"{share:.0%}", a, b) for share, a, b in calibration.quantiles]
    print_table(console, "quantiles", ("share below", left, right), rows)
    for match in calibration.matches:
        kept = f"{match.of} {match.gate} keeps {match.kept:.1%}"
        if match.match is None:
            console.print(f"{kept}: no clip shows what that is on {match.on}'s scale", soft_wrap=True)
        else:
            agree = f"they agree on {match.agree:.1%} of the clips"
            console.print(f"{kept}, as {match.on} {match.match} does; {agree}", soft_wrap=True)
