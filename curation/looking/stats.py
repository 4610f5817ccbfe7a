"""What a workspace holds, in numbers: the funnel of each tier, quantiles, errors, near misses, where the time went."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from longtake.curation.clip_table import UNDER_SCAN, CurrentClips, clip_scores, score_slices, written_slices
from longtake.curation.looking.questions import NOT_SURE_SHARE, answer_counts, with_share
from longtake.curation.recipe import Recipe
from longtake.curation.stages.stage import STAGES
from longtake.curation.workspace import Workspace
from longtake.filters.verdicts import Alone, ClipScores, TierResult, Verdict, decide
from longtake.manifests import schemas
from longtake.manifests.arrow import from_numpy
from longtake.manifests.parts import steadily
from longtake.manifests.store import Manifest, rows_in
from longtake.manifests.uris import redact

Floats = npt.NDArray[np.float64]
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


@dataclass(frozen=True, slots=True)
class NearMiss:
    """A clip that one gate fails and no other. excess: how far outside of the gate its score is. alone: whether every other
    gate passed it, or only those did that have a score of it; no_score: the gates that have none."""

    clip_id: str
    tiers: tuple[str, ...]
    gate: str
    score: float
    excess: float
    alone: Alone
    no_score: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Statistics:
    """Everything `longtake stats` shows. summary: the contract of its JSON (design, section 12), and some more.
    funnels: by tier, see `funnel`. quantiles: by score, at QUANTILES, None where no clip has it."""

    summary: dict[str, Any]
    funnels: dict[str, list[dict[str, Any]]]
    quantiles: dict[str, list[float | None]]
    near_misses: list[NearMiss]

    def as_json(self) -> dict[str, Any]:
        """All of it as plain data."""
        return {
            **self.summary,
            "funnels": self.funnels,
            "quantiles": {"at": QUANTILES, "scores": self.quantiles},
            "near_misses": [asdict(miss) for miss in self.near_misses],
        }


def statistics(workspace: Workspace, recipe: Recipe, near: int = 10) -> Statistics:
    """Read the manifests and count, a slice at a time. near: how many near misses to name, see `near_misses`."""
    return steadily(lambda: _statistics(workspace, recipe, near))


def _statistics(workspace: Workspace, recipe: Recipe, near: int) -> Statistics:
    (videos, video_seconds), clips = _videos(workspace), _OfClips(recipe, near)
    slices = score_slices(workspace, recipe, ["host", "start", "end"]) if workspace.clips.rows() else ()
    current = CurrentClips(map(clips.add, slices))
    if not clips.slices:
        clips.add(clip_scores(workspace, recipe, ["host", "start", "end"]))
    left_out, files = facts_of_files(workspace)
    summary = {
        "recipe": recipe.name,
        "videos": {
            "total": videos["status"].total(),
            "ok": videos["status"]["ok"],
            "error": videos["status"]["error"],
            "error_kinds": dict(videos["error_kind"]),
            "tone_mapped": videos["tone_mapped"]["True"],
        },
        "clips": {
            "total": clips.misses.rows,
            "ok": clips.status["ok"],
            "error": clips.status["error"],
            "error_kinds": dict(clips.kinds),
        },
        "error_examples": {
            "videos": _of_videos(workspace.videos, videos["error_kind"]),
            "clips": clips.examples,
        },
        "error_hosts": {"videos": dict(videos["host"]), "clips": dict(clips.hosts)},
        "captions": caption_counts(workspace, recipe, current),
        "questions": clips.questions(),
        "tiers": clips.tiers,
        "hours": {
            "videos": video_seconds / 3600,
            "clips": clips.seconds / 3600,
            "tiers": clips.hours,
            "left": clips.left,
        },
        "stages": stage_runs(workspace, current),
        "seconds_left_out": left_out,
        "lengths": length_notes(recipe, left_out, encoded_clips(workspace, recipe, current)),
        "files": files,
        "other_spacing": {name: clips.settled[name] for name in recipe.filters if clips.settled[name]},
        "not_applied": recipe.not_applied,
        "unchecked": clips.unchecked,
    }
    return Statistics(summary, clips.funnels, clips.quantiles(), clips.misses.named())


def _videos(workspace: Workspace) -> tuple[dict[str, Counter[str]], float]:
    """How often each status, kind of error, host of an error and so on stands in the videos manifest, and the seconds of all
    videos."""
    seconds = 0.0
    counters: dict[str, Counter[str]] = {name: Counter() for name in ("status", "error_kind", "host", "tone_mapped")}
    names = ["status", "error_kind", "host"]
    for videos in workspace.videos.scan([*names, "tone_mapped", "duration"], encoded=names):
        seconds += pc.sum(videos["duration"]).as_py() or 0.0
        counters["status"].update(counted(videos["status"]))
        counters["error_kind"].update(counted(videos["error_kind"].drop_null()))
        counters["host"].update(_hosts_of_errors(videos))
        counters["tone_mapped"].update(counted(videos["tone_mapped"].drop_null()))
    return counters, seconds


def _of_videos(manifest: Manifest, kinds: Counter[str]) -> dict[str, dict[str, str | None]]:
    """The examples of the kinds of errors of videos that were counted."""
    found: dict[str, dict[str, str | None]] = {}
    for rows in manifest.scan(["uri", "status", "error_kind", "error", "host"]) if kinds else ():
        _add_examples(found, rows, "uri")
        if len(found) == len(kinds):
            break
    return found


def _add_examples(found: dict[str, dict[str, str | None]], rows: pa.Table, name: str) -> None:
    """Add for each new kind of error a row that has it: the column `name`, the error and the machine that made it."""
    wrong = pc.equal(rows["status"].cast(pa.string()), "error")
    failed = rows.select([name, "error_kind", "error", "host"]).filter(wrong)
    kinds = failed["error_kind"].cast(pa.string())
    for kind in set(pc.unique(kinds).to_pylist()) - set(found):
        row = failed.slice(pc.index(kinds, kind).as_py(), 1).to_pylist()[0]
        found[kind] = {"name": redact(row[name]), "error": row["error"], "host": row["host"]}


class _OfClips:
    """What is counted of clips, slice by slice."""

    def __init__(self, recipe: Recipe, near: int) -> None:
        self.recipe = recipe
        self.slices = 0
        self.status, self.kinds, self.hosts = Counter[str](), Counter[str](), Counter[str]()
        self.examples: dict[str, dict[str, str | None]] = {}
        self.settled = Counter[str]()
        self.tiers: dict[str, Any] = {}
        self.funnels: dict[str, list[dict[str, Any]]] = {}
        self.unchecked: dict[str, str] = {}
        self.seconds = 0.0
        self.hours: dict[str, dict[str, float]] = {}
        self.left: dict[str, list[float]] = {}
        self._answers: dict[str, Counter[str]] = {}
        self.misses = _Misses(near)
        self._known: dict[str, list[npt.NDArray[np.float64]]] = {name: [] for name in recipe.filters}

    def add(self, scores: ClipScores) -> pa.Table:
        """Count a slice; its table."""
        clips, recipe = scores.table, self.recipe
        results = {tier: decide(scores, gates) for tier, gates in recipe.tiers.items()}
        self.status.update(counted(clips["status"]))
        self.kinds.update(counted(clips["error_kind"].drop_null()))
        self.hosts.update(_hosts_of_errors(clips))
        _add_examples(self.examples, clips, "clip_id")
        self.settled.update({name: _count(scores.settled(name)) for name in recipe.filters})
        for name in recipe.filters:
            low, _, bound = scores.span(name)
            self._known[name].append(low[~np.isnan(low) & ~bound])
        tiers = {tier: tier_counts(result) for tier, result in results.items()}
        seconds = clip_seconds(clips)
        self.seconds += float(seconds.sum())
        funnels = {tier: funnel(result) for tier, result in results.items()}
        left = {tier: [row["hours left"] for row in funnel(result, seconds)] for tier, result in results.items()}
        self.left = added(self.left, left) if self.slices else left
        hours = {tier: hours_by_verdict(result, seconds) for tier, result in results.items()}
        self.hours = added(self.hours, hours) if self.slices else hours
        for name, answers in answer_counts(scores).items():
            counts = self._answers.setdefault(name, Counter())
            counts.update({answer: int(count) for answer, count in answers.items() if answer != NOT_SURE_SHARE})
        self.tiers = added(self.tiers, tiers) if self.slices else tiers
        self.funnels = added(self.funnels, funnels) if self.slices else funnels
        self.unchecked |= scores.unchecked
        self.misses.add(clips, results)
        self.slices += 1
        return clips

    def questions(self) -> dict[str, dict[str, float]]:
        """What `answer_counts` says of all clips."""
        return {name: with_share(counts) for name, counts in self._answers.items()}

    def quantiles(self) -> dict[str, list[float | None]]:
        """QUANTILES of each score over the clips that have it."""
        with ThreadPoolExecutor(2) as threads:  # Arrow releases the interpreter's lock while it computes.
            return dict(zip(self._known, threads.map(_quantiles, self._known.values()), strict=True))


def added(one: Any, other: Any) -> Any:
    """Two nests of dicts and lists of one shape, their numbers added."""
    if isinstance(one, dict):
        return {key: added(value, other[key]) for key, value in one.items()}
    if isinstance(one, list):
        return [added(a, b) for a, b in zip(one, other, strict=True)]
    return one + other if isinstance(one, int | float) else one


def _quantiles(known: Sequence[npt.NDArray[np.float64]]) -> list[float | None]:
    column = pa.chunked_array([from_numpy(values) for values in known], pa.float64())
    if not len(column):
        return [None] * len(QUANTILES)
    quantiles: list[float | None] = pc.quantile(
        column, q=list(QUANTILES)
    ).to_pylist()  # NumPy's quantile would import numpy.ma.
    return quantiles


def facts_of_files(workspace: Workspace) -> tuple[float, list[str]]:
    """Over all videos: seconds at the ends of shots that gave clips and were longer than these, and sentences on what their files
    lack, on what was not read of them, and on pictures that are not those of a plain camera, as far as there are any."""
    seconds, streams, cut_off, unusual = 0.0, 0, 0, 0
    damaged: list[float] = []
    columns = ["seconds_left_out", "streams_left_out", "cut_off", "projection", "stereo", "seconds_damaged"]
    for videos in workspace.videos.scan(columns):
        seconds += pc.sum(videos["seconds_left_out"]).as_py() or 0.0
        streams += pc.sum(videos["streams_left_out"]).as_py() or 0
        cut_off += len(videos) - videos["cut_off"].null_count
        unusual += pc.sum(pc.or_(videos["projection"].is_valid(), videos["stereo"].is_valid())).as_py() or 0
        damaged += videos["seconds_damaged"].filter(pc.greater(videos["seconds_damaged"], 0.0)).to_pylist()
    return seconds, _file_notes(streams, cut_off, unusual, damaged)


def _file_notes(streams: int, cut_off: int, unusual: int, damaged: Sequence[float]) -> list[str]:
    notes = []
    if damaged:
        notes.append(
            f"Damaged: {len(damaged):,} video{'s' if len(damaged) > 1 else ''}, {_clock(sum(damaged))} together (by video in the "
            "column seconds_damaged). From where something does not decode to the next keyframe no clip is made."
        )
    if unusual:
        notes.append(
            f"Of all directions, or in stereo: {unusual:,} video{'s' if unusual > 1 else ''} (columns projection and stereo). "
            "The pictures of such a film are bent, or hold the scene twice, and are exported as they are."
        )
    if cut_off:
        notes.append(
            f"Cut off: {cut_off:,} file{'s' if cut_off > 1 else ''} (a download or a recording that broke off; by video in the "
            "column cut_off). What they hold was read."
        )
    if streams:
        notes.append(
            f"Not read: {streams:,} further video stream{'s' if streams > 1 else ''} of the files (another angle, or a recording "
            "that was joined to the first; by video in the column streams_left_out). `ffmpeg -i FILE -map 0:v:1 -c copy OTHER` "
            "makes a film of a second stream."
        )
    return notes


def encoded_clips(workspace: Workspace, recipe: Recipe, current: CurrentClips) -> pa.Table:
    """The clips that are there and are encoded as the recipe says: clip_id, pace, seconds_left_out, sha256."""
    columns = ["clip_id", "pace", "seconds_left_out", "sha256"]
    tables = [pa.schema([schemas.EXPORTS.field(name) for name in columns]).empty_table()]
    texts = ["status", "export_protocol"]
    for table in workspace.exports.scan([*columns, "scan_id", *texts], encoded=texts):
        status, protocol = (table[name].cast(pa.string()) for name in texts)
        ours = pc.and_(pc.equal(status, "ok"), pc.equal(protocol, recipe.export_protocol))
        tables.append(current.among(table.filter(ours)).select(columns))
    return pa.concat_tables(tables)


def export_errors(workspace: Workspace, recipe: Recipe) -> tuple[Counter[str], dict[str, dict[str, str | None]]]:
    """How many clips could not be encoded as the recipe says, by the kind of the error; and of each kind an example. Clips that
    are there no more, as of a film that was scanned anew, do not count."""
    kinds, examples = Counter[str](), dict[str, dict[str, str | None]]()
    texts, current = ["status", "error_kind", "export_protocol"], CurrentClips.of(workspace)
    for table in workspace.exports.scan([*UNDER_SCAN, "error", "host", *texts], encoded=texts):
        protocol, failed = (table[name].cast(pa.string()) for name in ("export_protocol", "error_kind"))
        wrong = current.among(table.filter(pc.and_(pc.equal(protocol, recipe.export_protocol), failed.is_valid())))
        kinds.update(counted(wrong["error_kind"]))
        _add_examples(examples, wrong, "clip_id")
    return kinds, examples


def length_notes(recipe: Recipe, left_out: float, encoded: pa.Table) -> list[str]:
    """What became of the rest of long shots and clips, in sentences; none where nothing is left out or sped up. left_out: the
    seconds of `facts_of_files`. encoded: with the columns pace and seconds_left_out."""
    notes = []
    if left_out >= 0.05:
        notes.append(
            f"Left out at the ends of shots that are longer than their clips: {_clock(left_out)} (splitting.longer: "
            f"{recipe.splitting.longer}; by video in the column seconds_left_out)."
        )
    fast = encoded.filter(pc.greater(encoded["pace"], 1.0))
    if fast.num_rows:
        notes.append(
            f"Shown faster than they were filmed: {fast.num_rows} of {encoded.num_rows} clips, up to "
            f"{pc.max(fast['pace']).as_py():.3g} times (splitting.longer: faster; by clip in the column pace)."
        )
    cut = encoded.filter(pc.greater(encoded["seconds_left_out"], 0.05))
    if cut.num_rows:
        frames = recipe.export.frames
        notes.append(
            f"Longer than {frames} frames, so that their end is left out: {cut.num_rows} of {encoded.num_rows} clips, "
            f"{_clock(pc.sum(cut['seconds_left_out']).as_py())} together, though their captions describe the whole clip "
            "(`splitting.longer: faster` shows them whole, faster)."
        )
    return notes


def _clock(seconds: float) -> str:
    return (
        f"{seconds:.1f} s"
        if seconds < 120
        else f"{seconds / 60:.1f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )


def _hosts_of_errors(table: pa.Table) -> dict[str, int]:
    """Machine → how many rows ended in an error there, of those that tell."""
    return counted(table["host"].filter(pc.equal(table["status"], "error")).drop_null())


def counted(column: pa.ChunkedArray) -> dict[str, int]:
    """Value → how often."""
    return {str(row["values"]): int(row["counts"]) for row in pc.value_counts(column).to_pylist()}


def caption_counts(workspace: Workspace, recipe: Recipe, current: CurrentClips) -> dict[str, Any]:
    """Captions by the recipe's captioner, of the clips that are there: their status, and how many have faults
    (`captioning.quality`). What was paid is of all captions, also those of clips that are gone (`gone`: how many)."""
    numbers = ["requests", "prompt_tokens", "completion_tokens"]
    faults = ["outside_band", "other_language", "lead_ins", "list_markers", "echoes", "speculations", "moves_wrong"]
    counts: dict[str, Any] = {"total": 0, "gone": 0, "status": {}, **dict.fromkeys(numbers, 0)}
    counts["faults"] = dict.fromkeys(faults, 0)
    for written in written_slices(workspace, recipe, [*UNDER_SCAN, "status", *numbers, *faults]):
        table = current.among(written)
        counts["total"] += table.num_rows
        counts["gone"] += written.num_rows - table.num_rows
        for status, count in counted(table["status"]).items():
            counts["status"][status] = counts["status"].get(status, 0) + count
        for name in numbers:
            counts[name] += pc.sum(written[name].cast("int64"), min_count=0).as_py()
        for name in faults:
            counts["faults"][name] += pc.sum(pc.greater(table[name].cast("int64"), 0), min_count=0).as_py()
    return counts


def tier_counts(result: TierResult) -> dict[str, Any]:
    """Verdicts, and each gate by itself. An errored clip counts in none of the gates. not_known: of the missing ones, the clips
    that were measured, and whose score cannot be known. uncertain: of those passed or failed, the
    clips whose score lies nearer to an end of the gate than its standard error. only_failure: clips that this gate
    failed and every other passed; only_failure_so_far: that it failed and no other did, but some other has no score."""
    by_one, so_far = result.tally.by_one, result.tally.by_one_so_far
    return {
        "kept": _count(result.verdicts == Verdict.KEPT),
        "rejected": _count(result.verdicts == Verdict.REJECTED),
        "error": _count(result.verdicts == Verdict.ERROR),
        "undecided": _count(result.verdicts == Verdict.UNDECIDED),
        "gates": {
            name: {
                "range": str(gate.gate),
                "passed": _count(gate.passed),
                "failed": _count(gate.failed),
                "missing": _count(gate.missing),
                "not_known": _count(gate.unknown),
                "only_failure": _count(gate.failed & by_one),
                "only_failure_so_far": _count(gate.failed & so_far),
                "uncertain": _count(gate.uncertain),
            }
            for name, gate in result.gates.items()
        },
    }


def clip_seconds(clips: pa.Table) -> Floats:
    """The length of each clip [clips], seconds. clips: with start and end."""
    return np.asarray(pc.subtract(clips["end"], clips["start"]).to_numpy(), np.float64)


def hours_by_verdict(result: TierResult, seconds: Floats) -> dict[str, float]:
    """Hours of the clips of each verdict; by its name as `tier_counts` has it."""
    return {
        verdict.name.lower(): float(seconds[result.verdicts == verdict].sum()) / 3600
        for verdict in (Verdict.KEPT, Verdict.REJECTED, Verdict.ERROR, Verdict.UNDECIDED)
    }


def hours(seconds: float) -> str:
    """A length as hours, in words: with two decimals, or two digits where there is less than a hundredth."""
    many = seconds / 3600
    return f"{many:,.0f} h" if many >= 100 else f"{many:.2f} h" if many >= 0.01 or not many else f"{many:.2g} h"


def funnel(result: TierResult, seconds: Floats | None = None) -> list[dict[str, Any]]:
    """Gate by gate in order: how many clips come to it (not rejected before), fall at it, and are left. Of
    those left, "no score" are the clips that wait for one, "not known" those whose score cannot be known.
    seconds [clips]: their lengths; then also how many hours are left."""
    left = result.verdicts != Verdict.ERROR
    rows: list[dict[str, Any]] = []
    for name, gate in result.gates.items():
        falls = left & gate.failed
        rows.append(
            {
                "gate": name,
                "range": str(gate.gate),
                "reach it": _count(left),
                "fall at it": _count(falls),
                "no score": _count(left & gate.missing & ~gate.unknown),
                "not known": _count(left & gate.unknown),
                "left": _count(left & ~falls),
            }
            | ({} if seconds is None else {"hours left": float(seconds[left & ~falls].sum()) / 3600})
        )
        left = left & ~falls
    return rows


def near_misses(clips: pa.Table, results: Mapping[str, TierResult], most: int) -> list[NearMiss]:
    """Clips that a single gate fails. First those that every other gate passed, then those that some other gate has no
    score of; of each, the closest first, measured by the spread of that gate's scores."""
    misses = _Misses(most)
    misses.add(clips, results)
    return misses.named()


_Miss = tuple[int, str, float, tuple[str, ...]]  # Row, gate, excess, gates without a score.


class _Misses:
    """Near misses as they are found, slice by slice: of each tier and gate the closest."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.rows = 0
        self._tiers: list[str] = []
        self._spreads: dict[str, _Spread] = {}
        self._found: dict[tuple[Alone, str, str], list[tuple[float, _Miss, float, str]]] = {}

    def add(self, clips: pa.Table, results: Mapping[str, TierResult]) -> None:
        self._tiers = list(results)
        measured: set[str] = set()
        for tier, result in results.items() if self.most > 0 else ():
            for name, gate in result.gates.items():
                if name not in measured:
                    self._spreads.setdefault(name, _Spread()).add(gate.low[gate.passed | gate.failed])
                    measured.add(name)
                for alone, mask in ((Alone.YES, result.tally.by_one), (Alone.SO_FAR, result.tally.by_one_so_far)):
                    self._see(clips, result, (alone, tier, name), np.flatnonzero(gate.failed & mask))
        self.rows += clips.num_rows

    def _see(
        self, clips: pa.Table, result: TierResult, where: tuple[Alone, str, str], at: npt.NDArray[np.int64]
    ) -> None:
        if not at.size:
            return
        score, excess = result.gates[where[2]].outside(at)
        if at.size > self.most:
            closest = np.argpartition(np.abs(excess), self.most - 1)[: self.most]
            at, score, excess = at[closest], score[closest], excess[closest]
        ids = clips["clip_id"].take(from_numpy(at)).to_pylist()
        nearest = self._found.setdefault(where, [])
        for row, value, over, clip in zip(at.tolist(), score.tolist(), excess.tolist(), ids, strict=True):
            nearest.append((abs(over), (self.rows + row, where[2], over, result.missing(row)), value, clip))
        nearest.sort()
        del nearest[self.most :]

    def named(self) -> list[NearMiss]:
        near: list[NearMiss] = []
        for alone in (Alone.YES, Alone.SO_FAR):
            tiers: dict[_Miss, list[str]] = {}
            values: dict[_Miss, tuple[float, float, str]] = {}
            for (which, tier, name), misses in self._found.items():
                for distance, miss, value, clip in misses if which == alone else ():
                    tiers.setdefault(miss, []).append(tier)
                    values[miss] = distance / (self._spreads[name].value or 1.0), value, clip
            order = sorted(values, key=lambda miss: (values[miss][0], miss))[: self.most - len(near)]
            for miss in order:
                _, value, clip = values[miss]
                named = tuple(sorted(tiers[miss], key=self._tiers.index))
                near.append(NearMiss(clip, named, miss[1], value, miss[2], alone, miss[3]))
        return near


class _Spread:
    """The standard deviation of numbers that come bit by bit."""

    def __init__(self) -> None:
        self._count, self._mean, self._squares = 0, 0.0, 0.0

    def add(self, values: npt.NDArray[np.float64]) -> None:
        if not values.size:
            return
        mean, count = float(values.mean()), self._count + values.size
        apart = mean - self._mean
        self._squares += float(((values - mean) ** 2).sum()) + apart**2 * self._count * values.size / count
        self._mean += apart * values.size / count
        self._count = count

    @property
    def value(self) -> float:
        return float(np.sqrt(self._squares / self._count)) if self._count else 0.0


def stage_runs(workspace: Workspace, current: CurrentClips) -> dict[str, dict[str, Any]]:
    """Each stage's last run; `rows`: what its output holds now, without captions and encoded files of clips that are gone,
    `computed`: what that run added."""
    runs = workspace.runs.read().to_pylist()  # Their order is that in which they ended.
    written = {listed.name: rows_in(workspace.folder / listed.writes) for listed in STAGES}
    for stage, manifest in (("caption", workspace.captions), ("export", workspace.exports)):
        written[stage] = sum(current.among(table).num_rows for table in manifest.scan(UNDER_SCAN))
    stages: dict[str, dict[str, Any]] = {}
    for row in runs:
        stages[row["stage"]] = {
            "rows": written.get(row["stage"], 0),
            "computed": row["computed"],
            "errors": row["errors"],
            "seconds": row["seconds"],
            "per_second": row["computed"] / row["seconds"] if row["computed"] else None,
            "busy_share": row["busy_share"],
            "requests": row["requests"],
            "prompt_tokens": row["prompt_tokens"],
            "completion_tokens": row["completion_tokens"],
            "video_hours": row["video_seconds"] / 3600,
            "cpu_seconds": row["cpu_seconds"],
            "workers": row["workers"],
            "total": _totals([r for r in runs if r["stage"] == row["stage"]]),
        }
    return stages


def _totals(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    keys = ("computed", "seconds", "cpu_seconds")
    return {"runs": len(runs), **{key: sum(run[key] for run in runs) for key in keys}}


def _count(mask: npt.NDArray[Any]) -> int:
    return int(np.count_nonzero(mask))
