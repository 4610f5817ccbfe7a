"""What the studio knows while it runs: the columns, the marks, the recipe to compare with. Plain data in and out.

A mark is written at once, a recipe by `save`, and nothing else. Raises StudioError for a question that makes no sense.
"""

from __future__ import annotations

import math
import re
import sys
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from longtake.curation.clip_table import clip_scores
from longtake.curation.errors import SetupError
from longtake.curation.looking.compare import Named, compare
from longtake.curation.looking.compare_tables import headline, notes, tables
from longtake.curation.looking.questions import agreement_with_marks, answer_words
from longtake.curation.looking.report.clips import Looker, thumbnails
from longtake.curation.looking.report.columns import Bools, Columns, Rows
from longtake.curation.looking.report.findings import sources
from longtake.curation.looking.stats import counted
from longtake.curation.looking.studio.marks import Agreement, Marks, agreement, propose, this_user, write_whole
from longtake.curation.looking.truth import WANTED, Share, gate_truth
from longtake.curation.recipe import PUBLISHED, Recipe, load_recipe, parse_recipe, parse_yaml, shipped
from longtake.curation.workspace import Workspace
from longtake.filters.gates import Gate, Tier
from longtake.filters.verdicts import Verdict, decide

NEAR = 6  # clips on each side of a threshold
SHOWN = 12  # clips of a list
SOURCES = 500
BEGAN = "as it began"  # the recipe that the studio began with, among those to compare with
PICTURE = 320  # pixels wide
REMEMBERED = 400  # clips whose pictures stay in memory: some 30 MB
_FOLDER = "studio"  # in the workspace
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")


class StudioError(ValueError):
    """A question that makes no sense: what was wrong with it."""


class Session:
    """One workspace in the studio. Its methods may be called from many threads."""

    def __init__(self, workspace: Workspace, recipe: Recipe, rater: str | None = None) -> None:
        """rater: whose marks are made here; None: this machine's user. Raises SetupError if marks cannot be read."""
        self.workspace = workspace
        self.recipe = recipe
        self.marks = Marks(workspace, rater or this_user())
        self.marks.by_rater()
        self._lock = threading.RLock()
        self._ready = threading.Event()
        self._failed: BaseException | None = None
        self._pictures: OrderedDict[str, list[bytes]] = OrderedDict()
        self._rows: dict[str, int] = {}  # of clips that were shown: to look for one takes 10 ms among a million
        self._selection: dict[str, str] = {}
        self._sources: pa.ChunkedArray | None = None
        self._videos: pa.Table | None = None
        self._needing: set[str] | None = None

    def begin(self) -> None:
        """Read the columns beside whatever else there is to do; questions wait for it."""
        threading.Thread(target=self.load, name="load", daemon=True).start()

    def load(self) -> None:
        """Read the columns. A fault is kept for those who ask."""
        try:
            self._columns = Columns.load(self.workspace, self.recipe)
            self._looker = Looker(self.workspace, self._columns)
            self._baseline = {tier: self._columns.kept(tier) for tier in self.recipe.tiers}
        except Exception as error:
            self._failed = error
        finally:
            self._ready.set()

    @property
    def columns(self) -> Columns:
        """Waits until they are read. Raises SetupError if that failed."""
        self._ready.wait()
        if self._failed is not None:
            raise SetupError(f"{self.workspace.path} cannot be read: {self._failed}") from self._failed
        return self._columns

    # ── questions ────────────────────────────────────────────────────────────────────────────────────────────────────

    def state(self) -> dict[str, Any]:
        """What a page needs to begin."""
        columns = self.columns
        marks = self.marks.by_rater()
        with self._lock:
            return {
                "workspace": self.workspace.path,
                "recipe": self.recipe.name,
                "clips": len(columns),
                "tiers": {
                    tier: {name: _ends(gate) for name, gate in gates.items()}
                    for tier, gates in self.recipe.tiers.items()
                },
                "filters": {
                    name: {"unit": filter_.unit, "low": columns.scales[name].low, "high": columns.scales[name].high}
                    for name, filter_ in self.recipe.built.items()
                },
                "rater": self.marks.who,
                "marks": _words(marks.pop(self.marks.who, {})),
                "others": {who: len(made) for who, made in sorted(marks.items())},
                "recipes": self._recipes(),
                "published": list(PUBLISHED),
                "not_applied": self.recipe.not_applied,
                "unchecked": columns.scores.unchecked,
                "videos": counted(self.workspace.videos.read(["status"], encoded=["status"])["status"]),
            }

    def sources(self) -> list[tuple[str, int]]:
        """Folders and hosts that clips come from, the most frequent first."""
        with self._lock:
            pairs = [(str(r["values"]), int(r["counts"])) for r in pc.value_counts(self._origins()).to_pylist()]
        return sorted(pairs, key=lambda pair: (-pair[1], pair[0]))[:SOURCES]

    def decide(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Other gates: counts, funnel, histograms, and the clips on both sides of the end of a gate that is moved.

        question: tiers {tier: {gate: [low or null, high or null]}}; tier; optionally gate, end (low | high), selection
        {source, uri, caption}, whole (true: the histograms of all clips, too).
        """
        tiers = self.parse_tiers(question.get("tiers"))
        tier, name, end = (word(question, key) for key in ("tier", "gate", "end"))
        if tier not in tiers:
            raise StudioError(f"no tier {tier!r}")
        if name is not None and (name not in self.recipe.filters or end not in ("low", "high")):
            raise StudioError(f"no end {end!r} of a gate {name!r}")
        selection = question.get("selection") or {}
        if not isinstance(selection, dict):
            raise StudioError("a selection is {source, uri, caption}")
        wanted = {key: (word(selection, key) or "")[:1000] for key in ("source", "uri", "caption")}
        columns = self.columns
        with self._lock:
            self._select(wanted)
            columns.set(tiers)
            answer: dict[str, Any] = {
                "counts": {each: columns.counts(each) | self._moved(each) for each in tiers},
                "kept_seconds": {each: columns.kept_seconds(each) for each in tiers},
                "funnel": columns.funnel(tier),
                "histograms": {each: columns.histogram_of_others(tier, each) for each in columns.scales},
                "selected": int(np.count_nonzero(columns.selected)),
            }
            if question.get("whole"):
                answer["whole"] = {each: columns.histogram(each) for each in columns.scales}
            if name is not None:
                answer["near"] = self._near(tier, name, str(end), columns.others_pass(tier, name))
            return answer

    def _near(self, tier: str, name: str, end: str, rows: Rows) -> dict[str, list[dict[str, Any]]]:
        columns = self.columns
        gate = columns.tiers[tier].gates.get(name)
        if gate is None or math.isinf(gate.gate.low if end == "low" else gate.gate.high):
            return {"inside": [], "outside": []}
        inside, outside = columns.near_end(tier, name, end, rows, NEAR)
        return {"inside": self._cards(inside, tier, name), "outside": self._cards(outside, tier, name)}

    def _cards(self, rows: Rows, tier: str, name: str | None = None) -> list[dict[str, Any]]:
        """measured: whether every gate of the tier has a score of the clip."""
        columns = self.columns
        measured = columns.tiers[tier].tally.of(rows).measured.tolist()
        few = columns.clips(rows.tolist(), ["clip_id", "has_frames"])
        values = columns.values(name, rows).tolist() if name else [math.nan] * len(few)
        self._rows.update(zip((clip["clip_id"] for clip in few), rows.tolist(), strict=True))
        return [
            {"id": clip["clip_id"], "frames": clip["has_frames"], "score": None if math.isnan(value) else _shown(value)}
            | {"measured": whole}
            for clip, value, whole in zip(few, values, measured, strict=True)
        ]

    def _moved(self, tier: str) -> dict[str, int]:
        entering, leaving = self._entering(tier)
        return {"entering": int(entering.size), "leaving": int(leaving.size)}

    def _entering(self, tier: str) -> tuple[Rows, Rows]:
        now, before = self.columns.kept(tier), self._baseline.get(tier, np.zeros(0, np.int64))
        was = np.zeros(len(self.columns), bool)
        was[before] = True
        was &= self.columns.selected
        entering = now[~was[now]]
        was[now] = False
        return entering, np.flatnonzero(was)

    def clips(self, question: Mapping[str, Any]) -> list[dict[str, Any]]:
        """A few clips of a tier, as it is set now. question: tier; which: kept, rejected, undecided, error, entering,
        leaving, good, bad, or with a gate alone (those that it alone rejects) and alone so far (those that it alone rejects
        as far as they are measured)."""
        tier, which, gate = (word(question, key) for key in ("tier", "which", "gate"))
        columns = self.columns
        with self._lock:
            if tier not in columns.tiers:
                raise StudioError(f"no tier {tier!r}")
            if which in ("entering", "leaving"):
                rows = self._entering(tier)[which == "leaving"]
            elif which in ("good", "bad"):
                marked = [clip for clip, good in self.marks.own().items() if good == (which == "good")]
                ids = columns.scores.table["clip_id"]
                rows = np.flatnonzero(pc.is_in(ids, value_set=pa.array(marked, pa.string())).to_numpy())
            elif which in ("alone", "alone so far") and gate in columns.tiers[tier].gates:
                rows = columns.alone(tier, gate)[which == "alone so far"]
            elif which in ("kept", "rejected", "undecided", "error"):
                rows = np.flatnonzero((columns.verdicts(tier) == Verdict[which.upper()]) & columns.selected)
            else:
                raise StudioError(f"no such clips: {which!r}")
            gate = gate if gate in self.recipe.filters else None
            return self._cards(columns.to_show(rows, SHOWN), tier, gate)

    def clip(self, clip_id: str) -> dict[str, Any]:
        """All about one clip under the tiers as they are set now. Raises KeyError."""
        columns = self.columns
        with self._lock:
            at = self._row(clip_id)
            view = self._looker.look([at])[0]
            row = columns.clips([at])[0]
            told = asdict(view)
            del told["pictures"], told["times"]
            video = self._video(row["video_id"])
            codec = ", ".join(filter(None, (video.get("codec"), video.get("container"))))
            told["scores"] = {name: _shown(value) for name, value in view.scores.items()}
            unknown = {name for names in view.unknown.values() for name in names}
            told["answers"] = answer_words(self.recipe.built, view.scores, unknown)
            told["failures"] = {
                tier: [each | {"score": _shown(each["score"]), "excess": _shown(each["excess"])} for each in failures]
                for tier, failures in told["failures"].items()
            }
            told["doubts"] = {tier: [str(doubt) for doubt in doubts] for tier, doubts in view.doubts.items()}
            return told | {
                "reasons": {tier: view.reasons(tier) for tier in view.verdicts},
                "frames": row["has_frames"],
                "encoded": self.encoded(clip_id) is not None,
                "pace": self._pace(clip_id),
                "codec": codec,
            }

    def _video(self, video_id: str) -> dict[str, Any]:
        if self._videos is None:
            names = ["video_id", "codec", "container"]
            self._videos = self.workspace.videos.read(names, encoded=["codec", "container"])
        at = pc.index(self._videos["video_id"], pa.scalar(video_id, pa.string())).as_py()
        return {} if at < 0 else dict(self._videos.slice(at, 1).to_pylist()[0])

    def _row(self, clip_id: str) -> int:
        if clip_id in self._rows:
            return self._rows[clip_id]
        return self.columns.row(clip_id)

    def picture(self, clip_id: str, number: int) -> bytes | None:
        """A keyframe of a clip as a small JPEG; None where there is none. Raises KeyError for an unknown clip."""
        with self._lock:
            known = self._pictures.get(clip_id)
            if known is not None:
                self._pictures.move_to_end(clip_id)
        if known is None:
            row = self.columns.clips([self._row(clip_id)], ["video_id"])[0]
            known, _ = thumbnails(self.workspace, row["video_id"], clip_id, PICTURE)
            with self._lock:
                self._pictures[clip_id] = known
                while len(self._pictures) > REMEMBERED:
                    self._pictures.popitem(last=False)
        return known[number] or None if 0 <= number < len(known) else None

    def encoded(self, clip_id: str) -> str | None:
        """Where the encoded clip lies, if it does. Raises KeyError for an unknown clip."""
        self._row(clip_id)  # so that nobody's text becomes a path
        if not clip_id.isalnum():
            return None
        name = f"encoded/{clip_id[:2]}/{clip_id}.mp4"
        if not self.workspace.folder.exists(name):  # it was encoded again, which gave the file another name
            exports = self.workspace.exports.read(["clip_id", "path"])
            paths = exports.filter(pc.equal(exports["clip_id"], clip_id))["path"].to_pylist()
            name = paths[0] if paths and paths[0] else name
        return self.workspace.folder.file(name) if self.workspace.folder.exists(name) else None

    def _pace(self, clip_id: str) -> float:
        """Seconds of the source per second of the encoded clip; 1 where there is none."""
        exports = self.workspace.exports.read(["clip_id", "pace"])
        paces = exports.filter(pc.equal(exports["clip_id"], clip_id))["pace"].to_pylist()
        return float(paces[0]) if paces and paces[0] else 1.0

    def source(self, clip_id: str) -> str:
        """The URI of a clip's video. Raises KeyError for an unknown clip."""
        return str(self.columns.scores.table["uri"][self._row(clip_id)].as_py())

    def needs_access(self, uri: str) -> bool:
        """Whether a video's URI had a user, a password or a signature when it was listed."""
        if self._needing is None:
            inputs = self.workspace.inputs.read(["uri", "needs_access"])
            self._needing = set(
                inputs.filter(pc.equal(inputs["needs_access"], True).fill_null(False))["uri"].to_pylist()
            )
        return uri in self._needing

    # ── filters ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _select(self, wanted: dict[str, str]) -> None:
        if wanted == self._selection:
            return
        columns = self.columns
        rows: Bools | None = None
        for key, text in wanted.items():
            if not text:
                continue
            if key == "caption":
                found = self._looker.saying(text)
            elif key == "source":
                found = pc.equal(self._origins(), text).to_numpy().astype(bool)
            else:
                found = _matching(columns.scores.table["uri"], text)
            rows = found if rows is None else rows & found
        columns.select(rows)
        self._selection = wanted

    def _origins(self) -> pa.ChunkedArray:
        if self._sources is None:
            uris = pc.dictionary_encode(self.columns.scores.table["uri"]).unify_dictionaries()
            if not uris.num_chunks:
                return pa.chunked_array([pa.array([], pa.string())])
            folders = sources(pa.chunked_array([uris.chunk(0).dictionary])).combine_chunks()
            codes = pa.chunked_array([chunk.indices for chunk in uris.chunks])
            shorter = pc.dictionary_encode(folders)
            places = shorter.indices.take(codes.combine_chunks())
            self._sources = pa.chunked_array([pa.DictionaryArray.from_arrays(places, shorter.dictionary)])
        return self._sources

    # ── marks ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def mark(self, clip_id: str, mark: str | None) -> dict[str, str]:
        """Call a clip good or bad; None takes it back. When this returns, it is on the disk, with the clip's scores and the
        gates as they are set now. Gives all marks of this rater. Raises KeyError for an unknown clip, and SetupError."""
        row = self._row(clip_id)
        if mark not in ("good", "bad", None):
            raise StudioError(f"a mark is good, bad or null, not {mark!r}")
        columns = self.columns
        with self._lock:
            values = {name: columns.values(name, np.array([row])).tolist()[0] for name in self.recipe.filters}
            known = {
                "scores": {name: None if math.isnan(value) else _shown(value) for name, value in values.items()},
                "gates": {
                    tier: {name: _ends(result.gate) for name, result in columns.tiers[tier].gates.items()}
                    for tier in self.recipe.tiers
                },
            }
        self.marks.add(clip_id, mark, known)
        return _words(self.marks.own())

    def agreement(self, tier: str) -> dict[str, Any]:
        """How each gate of a tier, as it is set now, agrees with the marks; and a threshold that would agree best."""
        columns, marks = self.columns, self.marks.own()
        with self._lock:
            if tier not in columns.tiers:
                raise StudioError(f"no tier {tier!r}")
            ids = columns.scores.table["clip_id"]
            at = pc.index_in(pa.array(list(marks), pa.string()), value_set=ids.combine_chunks())
            good = np.array(list(marks.values()), bool)[at.is_valid().to_numpy(zero_copy_only=False)]
            rows = at.drop_null().to_numpy().astype(np.int64)
            now = columns.tiers[tier]
            gates = {}
            for name, result in now.gates.items():
                found = gate_truth(name, result.of(rows), good)
                proposed = propose(result.gate, columns.values(name, rows), good)
                gates[name] = _told(found.agreement) | {
                    "silent": found.silent,
                    "for_precision": None if found.for_precision is None else found.for_precision.range,
                    "wanted": WANTED,
                    "proposed": None if proposed is None else _ends(proposed),
                    "range": None if proposed is None else str(proposed),
                }
            verdicts = columns.verdicts(tier)[rows]
            whole = agreement(verdicts == Verdict.KEPT, verdicts == Verdict.REJECTED, good)
            return {
                "good": int(good.sum()),
                "bad": int((~good).sum()),
                "tier": _told(whole),
                "gates": gates,
                "questions": agreement_with_marks(columns.scores, rows, good),
            }

    # ── other recipes ────────────────────────────────────────────────────────────────────────────────────────────────────

    def funnels(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """What other recipes keep of all clips, beside the tiers as they are set. question: tiers, recipes (names among `state`'s
        `recipes`)."""
        names = question.get("recipes")
        if not isinstance(names, list) or not all(isinstance(name, str) and name in self._recipes() for name in names):
            raise StudioError("recipes is a list of recipes that there are")
        here = self.recipe_with(self.parse_tiers(question.get("tiers")), self.recipe.name)
        chosen = [Named(name, self._named(name)) for name in names if name != BEGAN]
        found = compare(self.workspace, [Named("as set here", here, own=True), *chosen])
        told = [asdict(table) for table in tables(found)]
        return {"headline": headline(found), "tables": told, "notes": list(notes(found))}

    # ── recipes ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _recipes(self) -> list[str]:
        return [BEGAN, *self._saved(), *shipped()]

    def _saved(self) -> list[str]:
        names = (self.workspace.folder / _FOLDER).names()
        return sorted(f"{_FOLDER}/{name}" for name in names if name.endswith(".yaml") and not name.startswith("."))

    def compare(self, name: str) -> dict[str, Any]:
        """Count who enters and who leaves against another recipe: one of `state`'s `recipes`."""
        if name not in self._recipes():
            raise StudioError(f"no recipe {name!r}")
        recipe = self._named(name)
        with self._lock:
            scores = clip_scores(self.workspace, recipe, [])
            if not scores.table["clip_id"].equals(self.columns.scores.table["clip_id"]):
                raise StudioError("the workspace has changed since the studio began: start it again")
            self._baseline = {tier: np.flatnonzero(decide(scores, gates).kept) for tier, gates in recipe.tiers.items()}
        return {"name": name, "unchecked": scores.unchecked}

    def _named(self, name: str) -> Recipe:
        """One of `_recipes`."""
        if name == BEGAN:
            return self.recipe
        return load_recipe(name) if name in shipped() else self._read_saved(name)

    def _read_saved(self, name: str) -> Recipe:
        return parse_yaml(self.workspace.folder.read(name), source=name)

    def parse_tiers(self, tiers: object) -> dict[str, Tier]:
        """Gates as a page sends them, in the order that `Recipe.with_gates` gives them."""
        if not isinstance(tiers, dict) or set(tiers) != set(self.recipe.tiers):
            raise StudioError(f"tiers: there are {', '.join(self.recipe.tiers)}")
        parsed: dict[str, Tier] = {}
        for tier, base in self.recipe.tiers.items():
            gates = tiers[tier]
            if not isinstance(gates, dict):
                raise StudioError(f"{tier}: gates are {{name: [low, high]}}")
            if unknown := [name for name in gates if name not in self.recipe.filters]:
                raise StudioError(f"{tier}: no filter {unknown[0]!r}")
            ordered = [*(name for name in base if name in gates), *(name for name in gates if name not in base)]
            try:
                parsed[tier] = {name: Gate.parse(_numbers(gates[name])) for name in ordered}
            except ValueError as error:
                raise StudioError(f"{tier}: {error}") from error
        return parsed

    def recipe_with(self, tiers: Mapping[str, Tier], name: str) -> Recipe:
        """The recipe with these tiers, under another name."""
        changes: dict[str, Gate | None] = {}
        for tier, base in self.recipe.tiers.items():
            changes |= {f"{tier}.{gate}": None for gate in base if gate not in tiers[tier]}
            changes |= {f"{tier}.{gate}": new for gate, new in tiers[tier].items() if base.get(gate) != new}
        changed = self.recipe.with_gates(changes)
        plain = {**changed.model_dump(mode="json"), "name": name}
        return parse_recipe(plain, source="the studio", check_captioner=False)

    def save(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Write the tiers as a recipe into the workspace's folder `studio`. question: tiers, name,
        replace (true: a recipe of that name may be there)."""
        name = word(question, "name")
        if name is None or not _NAME.fullmatch(name) or name.endswith((".yaml", ".")):
            raise StudioError("a name has letters, digits, . - and _, and no ending")
        recipe = self.recipe_with(self.parse_tiers(question.get("tiers")), name)
        file = f"{_FOLDER}/{name}.yaml"
        if file in self._saved() and question.get("replace") is not True:
            return {"exists": file}
        with self._lock:
            path = write_whole(self.workspace, file, recipe.to_yaml())
        return {"saved": path, "yaml": recipe.to_yaml(), "recipes": self._recipes()}


def word(question: Mapping[str, Any], key: str) -> str | None:
    """A text of a question; None where it has none. Raises StudioError if it is anything else."""
    value = question.get(key)
    if value is not None and not isinstance(value, str):
        raise StudioError(f"{key} is a text, or null")
    return value


def _matching(uris: pa.ChunkedArray, text: str) -> Bools:
    return np.asarray(pc.match_substring(uris.cast("string"), text, ignore_case=True).to_numpy()).astype(bool)


def _numbers(ends: object) -> list[float | None]:
    if not isinstance(ends, list) or len(ends) != 2:
        raise ValueError("a gate is [low, high], null for an open end")
    for end in ends:
        if end is not None and (isinstance(end, bool) or not isinstance(end, int | float)):
            raise ValueError(f"{str(end)[:40]!r} is no end of a gate")
        if end is not None and not abs(end) <= sys.float_info.max:  # also of nan
            raise ValueError("an end of a gate is a finite number")
    return [None if end is None else float(end) for end in ends]


def _words(marks: Mapping[str, bool]) -> dict[str, str]:
    return {clip: "good" if good else "bad" for clip, good in marks.items()}


def _ends(gate: Gate) -> list[float | None]:
    return [None if math.isinf(end) else end for end in (gate.low, gate.high)]


def _shown(value: float) -> float | str:
    """JSON has no infinity."""
    return value if math.isfinite(value) else f"{value}"


def _told(found: Agreement) -> dict[str, Any]:
    """The agreement of a gate or a tier: its counts, and its shares with their intervals."""
    shares = {
        "precision": Share.among(found.good_passed, found.good_passed + found.bad_passed),
        "recall": Share.among(found.good_passed, found.good_passed + found.good_failed),
    }
    told = {name: None if share is None else share.share for name, share in shares.items()}
    spans = {f"{name}_interval": None if share is None else [share.low, share.high] for name, share in shares.items()}
    return asdict(found) | told | spans
