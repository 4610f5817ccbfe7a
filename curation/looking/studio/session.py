"""What the studio knows while it runs: the columns, the marks, the recipes. Plain data in and out.

A question brings the tiers that it is about, so that pages with other settings may ask at the same time. Nothing is written
here. Raises StudioError for a question that makes no sense.
"""

from __future__ import annotations

import json
import math
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from longtake.curation.access import Access
from longtake.curation.clip_table import clip_scores
from longtake.curation.errors import SetupError
from longtake.curation.looking.pictures import OF_A_CLIP, NoStrip, Pictures, parts_of
from longtake.curation.looking.questions import answer_words
from longtake.curation.looking.report.clips import Looker, thumbnails
from longtake.curation.looking.report.columns import Bools, Columns, Rows
from longtake.curation.looking.report.findings import sources
from longtake.curation.looking.stats import counted
from longtake.curation.looking.studio.asked import StudioError, ends_of, numbers, shown, whole_number, word
from longtake.curation.looking.studio.marks import Marks, this_user
from longtake.curation.looking.studio.strip import Film, Films, places, step_of, sweep
from longtake.curation.recipe import PUBLISHED, Recipe, load_recipe, parse_recipe, parse_yaml, shipped
from longtake.curation.workspace import Workspace
from longtake.filters.gates import Gate, Tier
from longtake.filters.verdicts import Verdict, decide

SHOWN = 12  # Clips of a list, unless a request asks for more.
MOST_SHOWN = 200  # Clips of one answer at most.
SOURCES = 500
BEGAN = "as it began"  # The name of the recipe that the studio began with, in the list of recipes to compare with.
PICTURE = 320  # Pixels: the width of a picture.
REMEMBERED = 400  # Clips whose pictures stay in memory: some 30 MB.
REMEMBERED_SETTINGS = 8  # Settings whose kept clips stay in memory: 8 MB each for a million kept clips.
FOLDER = "studio"  # The folder of saved recipes, below the workspace.


@dataclass(frozen=True, slots=True)
class Setting:
    """What a page looks at: the gates of each tier, one of the tiers, and which clips are counted and shown."""

    tiers: dict[str, Tier]
    tier: str
    selection: dict[str, str]
    against: tuple[str, dict[str, Tier] | None]  # The name of a recipe; and tiers set by hand, which replace it.


class Session:
    """One workspace in the studio. Its methods may be called from many threads."""

    def __init__(
        self, workspace: Workspace, recipe: Recipe, rater: str | None = None, access: Access | None = None
    ) -> None:
        """rater: whose marks are made here; None: this machine's user. access: what lets it in at remote sources; None: what the
        environment gives. Raises SetupError if marks cannot be read."""
        self.workspace = workspace
        self.recipe = recipe
        self.marks = Marks(workspace, rater or this_user())
        self.marks.by_rater()
        self._writers: dict[str, Marks] = {self.marks.who: self.marks}
        self.lock = threading.RLock()
        self._ready = threading.Event()
        self._failed: BaseException | None = None
        self._pictures: OrderedDict[str, list[bytes]] = OrderedDict()
        self._strips = Pictures(workspace, access)
        # The rows of clips that were shown: a search among a million clips takes 10 ms.
        self._rows: dict[str, int] = {}
        self._selection: dict[str, str] = {}
        self._kept: OrderedDict[str, dict[str, Rows]] = OrderedDict()
        self._sources: pa.ChunkedArray | None = None
        self._videos: pa.Table | None = None

    def begin(self) -> None:
        """Read the columns beside whatever else there is to do; questions wait for it."""
        threading.Thread(target=self.load, name="load", daemon=True).start()

    def close(self) -> None:
        """End what reads sources for pictures."""
        self._strips.close()

    def load(self) -> None:
        """Read the columns. A fault is kept for those who ask."""
        try:
            self._take(Columns.load(self.workspace, self.recipe))
            self._failed = None
        except Exception as error:
            self._failed = error
        finally:
            self._ready.set()

    def _take(self, columns: Columns) -> None:
        with self.lock:
            self._columns = columns
            self._looker = Looker(self.workspace, columns)
            self._films = Films(columns)
            began = {tier: columns.kept(tier) for tier in self.recipe.tiers}
            self._rows, self._selection, self._kept = {}, {}, OrderedDict({BEGAN: began})
            self._sources = self._videos = None
            self._pictures.clear()
            self._strips.forget()

    def reload(self) -> dict[str, Any]:
        """Read the columns again, after a run."""
        self._take(Columns.load(self.workspace, self.recipe))
        return self.state()

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
        with self.lock:
            return {
                "workspace": self.workspace.path,
                "recipe": self.recipe.name,
                "clips": len(columns),
                "tiers": {
                    tier: {name: ends_of(gate) for name, gate in gates.items()}
                    for tier, gates in self.recipe.tiers.items()
                },
                "filters": {
                    name: {"unit": filter_.unit, "low": scale.low, "high": scale.high, "step": step_of(scale)}
                    for name, filter_ in self.recipe.built.items()
                    for scale in (columns.scales[name],)
                },
                "rater": self.marks.who,
                "recipes": self.recipes(),
                "published": list(PUBLISHED),
                "not_applied": self.recipe.not_applied,
                "unchecked": columns.scores.unchecked,
                "videos": counted(self.workspace.videos.read(["status"], encoded=["status"])["status"]),
            }

    def sources(self) -> list[tuple[str, int]]:
        """Folders and hosts that clips come from, the most frequent first."""
        self.columns  # noqa: B018 (waits, as in `setting`)
        with self.lock:
            pairs = [(str(r["values"]), int(r["counts"])) for r in pc.value_counts(self._origins()).to_pylist()]
        return sorted(pairs, key=lambda pair: (-pair[1], pair[0]))[:SOURCES]

    def setting(self, question: Mapping[str, Any]) -> Setting:
        """What a question is about: tiers {tier: {gate: [low or null, high or null]}} (without: those of the recipe); tier;
        optionally selection {source, uri, caption}, and against: {recipe} or {tiers}, what entering and leaving are told by."""
        self.columns  # noqa: B018 (waits before anybody holds the lock, which loading needs)
        tiers: dict[str, Tier] = self.parse_tiers(question["tiers"]) if "tiers" in question else dict(self.recipe.tiers)
        tier = word(question, "tier")
        if tier is None or tier not in tiers:
            raise StudioError(f"no tier {tier!r}")
        selection, against = question.get("selection") or {}, question.get("against") or {"recipe": BEGAN}
        if not isinstance(selection, dict):
            raise StudioError("a selection is {source, uri, caption}")
        if not isinstance(against, dict):
            raise StudioError("against is {recipe} or {tiers}")
        name = word(against, "recipe") or BEGAN
        if name not in self.recipes():
            raise StudioError(f"no recipe {name!r}")
        set_by_hand = self.parse_tiers(against["tiers"]) if "tiers" in against else None
        wanted = {key: (word(selection, key) or "")[:1000] for key in ("source", "uri", "caption")}
        return Setting(tiers, tier, wanted, (name, set_by_hand))

    def apply(self, setting: Setting) -> Columns:
        """The columns with these tiers and this selection; only what is another now costs. Hold the lock."""
        columns = self.columns
        self._select(setting.selection)
        columns.set(setting.tiers)
        return columns

    def decide(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Other gates: counts, funnel and histograms. question: see `setting`; optionally gate (whose line is told), and whole
        (true: the histograms of all clips, too)."""
        setting, name = self.setting(question), self.gate_of(question)
        tier, tiers = setting.tier, setting.tiers
        with self.lock:
            self._against(setting)
            columns = self.apply(setting)
            answer: dict[str, Any] = {
                "counts": {each: columns.counts(each) | self._moved(setting, each) for each in tiers},
                "kept_seconds": {each: columns.kept_seconds(each) for each in tiers},
                "funnel": columns.funnel(tier),
                "histograms": {each: columns.histogram_of_others(tier, each) for each in columns.scales},
                "selected": int(np.count_nonzero(columns.selected)),
            }
            if question.get("whole"):
                answer["whole"] = {each: columns.histogram(each) for each in columns.scales}
            if name is not None:
                answer["line"] = self._film(setting, name).line(setting.tiers[tier].get(name))
            return answer

    def focus(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """All about one end of one gate, for all places where it can be put: see `strip.sweep`. question: see `setting`; gate;
        end (low | high)."""
        setting, name, end = self.setting(question), self.gate_of(question), word(question, "end")
        if name is None or end not in ("low", "high"):
            raise StudioError(f"no end {end!r} of a gate {name!r}")
        with self.lock:
            columns = self.apply(setting)
            film, gates = self._film(setting, name), setting.tiers[setting.tier]
            gate, own = gates.get(name), self.recipe.tiers[setting.tier].get(name)
            further = [one.low if end == "low" else one.high for one in (gate, own) if one is not None]
            grid = places(columns.scales[name], further)
            order = list(self._ordered(setting.tier, [*gates, name]))
            ranks = np.searchsorted(film.values, grid, "left" if end == "low" else "right")
            told: dict[str, Any] = {
                "gate": name,
                "end": end,
                "order": order,
                "clips": int(film.rows.size),
                "line": film.line(gate),
                "places": grid.tolist(),
                "ranks": [*ranks.tolist(), 0 if end == "low" else film.rows.size],
                "sweep": sweep(columns, setting.tier, name, end, order, grid),
                "own": None if own is None else ends_of(own),
            }
            if not film.rows.size:
                told["empty"] = self._why_empty(setting.tier, name)
            return told

    def _why_empty(self, tier: str, name: str) -> dict[str, Any]:
        """Why the film of a gate has no clip: how many clips have its score, and which other gates reject how many of these."""
        columns = self.columns
        scored = columns.counted & ~np.isnan(columns.values(name, slice(None)))
        results = columns.tiers[tier].gates
        gates = [(other, int(np.count_nonzero(r.failed & scored))) for other, r in results.items() if other != name]
        return {
            "counted": int(np.count_nonzero(columns.counted)),
            "scored": int(np.count_nonzero(scored)),
            "gates": sorted((pair for pair in gates if pair[1]), key=lambda pair: -pair[1]),
        }

    def film(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Clips of the film of a gate. question: see `setting`; gate; start, count: which of them, by their place in it."""
        setting, name = self.setting(question), self.gate_of(question)
        if name is None:
            raise StudioError("no gate")
        start, most = whole_number(question, "start", 0), whole_number(question, "count", SHOWN)
        with self.lock:
            self.apply(setting)
            film = self._film(setting, name)
            rows = film.rows[start : start + min(most, MOST_SHOWN)]
            return {"clips": self.cards(rows, setting.tier, name), "start": start, "of": int(film.rows.size)}

    def _film(self, setting: Setting, name: str) -> Film:
        return self._films.of(setting.tier, name, tuple(setting.selection.values()))

    def gate_of(self, question: Mapping[str, Any]) -> str | None:
        """The gate that a question is about; None without. Raises StudioError if there is no such filter."""
        name = word(question, "gate")
        if name is not None and name not in self.recipe.filters:
            raise StudioError(f"no gate {name!r}")
        return name

    def cards(self, rows: Rows, tier: str, name: str | None = None) -> list[dict[str, Any]]:
        """Clips as a page shows them small. measured: whether every gate of the tier but `name` has a score of it; span: the
        values that the gate looks at, where they are more than one."""
        columns = self.columns
        now = columns.tiers[tier]
        tally = now.tally.of(rows)
        verdicts = tally.verdicts(columns.scores.ok()[rows]).tolist()
        if name in now.gates:
            tally = tally.minus(now.gates[name].of(rows))
        measured = tally.measured.tolist()
        few = columns.clips(rows.tolist(), ["clip_id", "has_frames", "start", "end"])
        values = columns.values(name, rows).tolist() if name else [math.nan] * len(few)
        spans = [column[rows].tolist() for column in columns.span(name)[:2]] if name else [values, values]
        self._rows.update(zip((clip["clip_id"] for clip in few), rows.tolist(), strict=True))
        return [
            {
                "id": clip["clip_id"],
                "frames": clip["has_frames"],
                "score": None if math.isnan(value) else shown(value),
                "seconds": (clip["end"] or 0) - (clip["start"] or 0),
                "verdict": Verdict(verdict).name.lower(),
                "measured": whole,
            }
            | ({"span": [shown(low), shown(high)]} if low != high and not math.isnan(low + high) else {})
            for clip, value, verdict, whole, low, high in zip(few, values, verdicts, measured, *spans, strict=True)
        ]

    def _moved(self, setting: Setting, tier: str) -> dict[str, Any]:
        entering, leaving = self._entering(setting, tier)
        seconds = self.columns.seconds
        return {
            "entering": int(entering.size),
            "leaving": int(leaving.size),
            "entering_seconds": float(seconds[entering].sum()),
            "leaving_seconds": float(seconds[leaving].sum()),
        }

    def _entering(self, setting: Setting, tier: str) -> tuple[Rows, Rows]:
        now, before = self.columns.kept(tier), self._against(setting).get(tier, np.zeros(0, np.int64))
        was = np.zeros(len(self.columns), bool)
        was[before] = True
        was &= self.columns.selected
        entering = now[~was[now]]
        was[now] = False
        return entering, np.flatnonzero(was)

    def _against(self, setting: Setting) -> dict[str, Rows]:
        """The clips that the other setting keeps, by tier, of all. Where it is not known yet, the columns are set to it: ask
        before `apply`."""
        name, tiers = setting.against
        key = name if tiers is None else json.dumps(_plain(tiers))
        if key not in self._kept:
            if tiers is not None:
                columns = self.columns
                columns.set(tiers)
                whole = columns.scores.ok()
                kept = {
                    tier: np.flatnonzero(whole & one.tally.unfailed & one.tally.measured)
                    for tier, one in columns.tiers.items()
                }
            else:
                recipe = self.named(name)
                scores = clip_scores(self.workspace, recipe, [])
                if not scores.table["clip_id"].equals(self.columns.scores.table["clip_id"]):
                    raise StudioError("the workspace has changed since the studio began: read it again")
                kept = {tier: np.flatnonzero(decide(scores, gates).kept) for tier, gates in recipe.tiers.items()}
            while len(self._kept) >= REMEMBERED_SETTINGS:
                self._kept.pop(next(key for key in self._kept if key != BEGAN))
            self._kept[key] = kept
        return self._kept[key]

    def beside(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Two settings side by side: A is what `against` names, B what is set. Of each the clips kept and their seconds; who
        enters and who leaves from A to B, and a few of them. question: see `setting`."""
        setting = self.setting(question)
        with self.lock:
            before = self._against(setting)
            columns = self.apply(setting)
            told: dict[str, Any] = {}
            for tier in setting.tiers:
                was = before.get(tier, np.zeros(0, np.int64))
                was = was[columns.selected[was]]
                now = columns.kept(tier)
                told[tier] = self._moved(setting, tier) | {
                    "a": {"clips": int(was.size), "seconds": float(columns.seconds[was].sum())},
                    "b": {"clips": int(now.size), "seconds": float(columns.seconds[now].sum())},
                    "undecided": columns.counts(tier)["undecided"],
                }
            lists = zip(("entering", "leaving"), self._entering(setting, setting.tier), strict=True)
            cards = {which: self.cards(columns.to_show(rows, SHOWN), setting.tier) for which, rows in lists}
            return {"tiers": told, "cards": cards}

    def clips(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Clips of a tier. question: see `setting`; which: kept, rejected, undecided, error, entering, leaving, good, bad (by
        rater `who`), or with a gate alone (those that it alone rejects) and alone so far (those that it alone rejects as far as
        they are measured); optionally start, count."""
        setting, which, gate = self.setting(question), word(question, "which"), self.gate_of(question)
        who = word(question, "who") or self.marks.who
        start, most = whole_number(question, "start", 0), whole_number(question, "count", SHOWN)
        with self.lock:
            if which in ("entering", "leaving"):
                self._against(setting)
            columns = self.apply(setting)
            tier = setting.tier
            if which in ("entering", "leaving"):
                rows = self._entering(setting, tier)[which == "leaving"]
            elif which in ("good", "bad"):
                marks = self.marks.by_rater().get(who, {})
                rows = self.rows_of([clip for clip, good in marks.items() if good == (which == "good")])
            elif which in ("alone", "alone so far"):
                gates = columns.tiers[tier].gates
                rows = columns.alone(tier, gate)[which == "alone so far"] if gate in gates else np.zeros(0, np.int64)
            elif which in ("kept", "rejected", "undecided", "error"):
                rows = np.flatnonzero((columns.verdicts(tier) == Verdict[which.upper()]) & columns.selected)
            else:
                raise StudioError(f"no such clips: {which!r}")
            # A page that asks for more clips gets the same ones first: those that can be seen, then the others.
            chosen = columns.seen_first(rows)[start : start + min(most, MOST_SHOWN)]
            return {"clips": self.cards(chosen, tier, gate), "start": start, "of": int(rows.size)}

    def marks_of(self, who: str) -> Marks:
        """The door for the marks of one rater."""
        with self.lock:
            if who not in self._writers:
                self._writers[who] = Marks(self.workspace, who)
            return self._writers[who]

    def rows_of(self, clips: list[str]) -> Rows:
        """Where these clips are, of those that there are, in the order of the table."""
        ids = self.columns.scores.table["clip_id"]
        return np.flatnonzero(pc.is_in(ids, value_set=pa.array(clips, pa.string())).to_numpy())

    def clip(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """All about one clip. question: see `setting`; clip. Raises KeyError."""
        setting, clip_id = self.setting(question), word(question, "clip") or ""
        with self.lock:
            at = self.row(clip_id)
            columns = self.apply(setting)
            view = self._looker.look([at])[0]
            row = columns.clips([at])[0]
            told = asdict(view)
            del told["pictures"], told["times"]
            video = self._video(row["video_id"])
            codec = ", ".join(filter(None, (video.get("codec"), video.get("container"))))
            told["scores"] = {name: shown(value) for name, value in view.scores.items()}
            unknown = {name for names in view.unknown.values() for name in names}
            told["answers"] = answer_words(self.recipe.built, view.scores, unknown)
            told["failures"] = {
                tier: [each | {"score": shown(each["score"]), "excess": shown(each["excess"])} for each in failures]
                for tier, failures in told["failures"].items()
            }
            told["doubts"] = {tier: [str(doubt) for doubt in doubts] for tier, doubts in view.doubts.items()}
            return told | {
                "reasons": {tier: view.reasons(tier) for tier in view.verdicts},
                "frames": row["has_frames"],
                "pace": self._pace(clip_id),
                "codec": codec,
            }

    def playing(self, clip_id: str) -> dict[str, Any]:
        """What to play of a clip, and from when to when, in seconds (null: to its end). changed: why a source is
        not to be played, where it is another film now. Raises KeyError."""
        if self.encoded(clip_id) is not None:
            return {"what": "encoded", "start": 0.0, "end": None}
        row = self.columns.clips([self.row(clip_id)], OF_A_CLIP)[0]
        changed = self._strips.changed(row)
        told = {"what": "source", "start": row["start"], "end": row["end"]}
        return told | ({"changed": changed} if changed else {})

    def _video(self, video_id: str) -> dict[str, Any]:
        if self._videos is None:
            names = ["video_id", "codec", "container"]
            self._videos = self.workspace.videos.read(names, encoded=["codec", "container"])
        at = pc.index(self._videos["video_id"], pa.scalar(video_id, pa.string())).as_py()
        return {} if at < 0 else dict(self._videos.slice(at, 1).to_pylist()[0])

    def row(self, clip_id: str) -> int:
        """Where a clip is. Raises KeyError."""
        if clip_id in self._rows:
            return self._rows[clip_id]
        return self.columns.row(clip_id)

    def picture(self, clip_id: str, number: int) -> bytes | NoStrip:
        """A picture of a clip as a small JPEG: a keyframe, or what its strip has there; or why there is none. Raises KeyError for
        an unknown clip."""
        with self.lock:
            known = self._pictures.get(clip_id)
            if known is not None:
                self._pictures.move_to_end(clip_id)
        if known is None:
            (row,) = self.columns.clips([self.row(clip_id)], [*OF_A_CLIP, "has_frames"])
            known = thumbnails(self.workspace, row["video_id"], clip_id, PICTURE)[0] if row["has_frames"] else []
            if not any(known):
                strip = self._strips.strip_of(row)
                if isinstance(strip, NoStrip):
                    return strip
                known = parts_of(strip)
            with self.lock:
                self._pictures[clip_id] = known
                while len(self._pictures) > REMEMBERED:
                    self._pictures.popitem(last=False)
        if not known:
            return NoStrip("Its pictures cannot be read.")
        return known[min(number, len(known) - 1)] or NoStrip("This picture cannot be read.")

    def encoded(self, clip_id: str) -> str | None:
        """Where the encoded clip lies, if it does. Raises KeyError for an unknown clip."""
        self.row(clip_id)  # An unknown id raises, so that no text of a request becomes a path.
        if not clip_id.isalnum():
            return None
        name = f"encoded/{clip_id[:2]}/{clip_id}.mp4"
        # A clip that was encoded again has a file with another name.
        if not self.workspace.folder.exists(name):
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
        return str(self.columns.scores.table["uri"][self.row(clip_id)].as_py())

    def needs_access(self, uri: str) -> bool:
        """Whether a video's URI had a user, a password or a signature when it was listed."""
        return self._strips.needs_access(uri)

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
                matching = self._looker.saying(text)
            elif key == "source":
                matching = pc.equal(self._origins(), text).to_numpy().astype(bool)
            else:
                matching = _matching(columns.scores.table["uri"], text)
            rows = matching if rows is None else rows & matching
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

    # ── recipes ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def recipes(self) -> list[str]:
        return [BEGAN, *self.saved(), *shipped()]

    def saved(self) -> list[str]:
        names = (self.workspace.folder / FOLDER).names()
        return sorted(f"{FOLDER}/{name}" for name in names if name.endswith(".yaml") and not name.startswith("."))

    def named(self, name: str) -> Recipe:
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
        for tier in self.recipe.tiers:
            gates = tiers[tier]
            if not isinstance(gates, dict):
                raise StudioError(f"{tier}: gates are {{name: [low, high]}}")
            if unknown := [name for name in gates if name not in self.recipe.filters]:
                raise StudioError(f"{tier}: no filter {unknown[0]!r}")
            try:
                parsed[tier] = {name: Gate.parse(numbers(gates[name])) for name in self._ordered(tier, gates)}
            except ValueError as error:
                raise StudioError(f"{tier}: {error}") from error
        return parsed

    def _ordered(self, tier: str, names: Iterable[str]) -> Iterable[str]:
        """Gates in the order that `Recipe.with_gates` gives them."""
        base, names = self.recipe.tiers[tier], dict.fromkeys(names)
        return [*(name for name in base if name in names), *(name for name in names if name not in base)]

    def recipe_with(self, tiers: Mapping[str, Tier], name: str) -> Recipe:
        """The recipe with these tiers, under another name."""
        changes: dict[str, Gate | None] = {}
        for tier, base in self.recipe.tiers.items():
            changes |= {f"{tier}.{gate}": None for gate in base if gate not in tiers[tier]}
            changes |= {f"{tier}.{gate}": new for gate, new in tiers[tier].items() if base.get(gate) != new}
        changed = self.recipe.with_gates(changes)
        plain = {**changed.model_dump(mode="json"), "name": name}
        return parse_recipe(plain, source="the studio", check_captioner=False)


def _matching(uris: pa.ChunkedArray, text: str) -> Bools:
    return np.asarray(pc.match_substring(uris.cast("string"), text, ignore_case=True).to_numpy()).astype(bool)


def _plain(tiers: Mapping[str, Tier]) -> dict[str, dict[str, list[float | None]]]:
    return {tier: {name: ends_of(gate) for name, gate in gates.items()} for tier, gates in tiers.items()}
