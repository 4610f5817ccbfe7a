"""Marks to and from other tools: a table (CSV), Label Studio's tasks, a FiftyOne dataset.

Each format carries of a mark who made it, when, good or bad, and its note. What is read back is checked as a whole before any of
it is stored: a file that names a clip which is not there, or another choice than good and bad, changes nothing.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from longtake.curation.clip_table import score_slices
from longtake.curation.errors import SetupError
from longtake.curation.looking.html import jpeg_uri
from longtake.curation.looking.pictures import Pictures, Strip
from longtake.curation.looking.studio.marks import Mark, Marks, checked_note, rater_name
from longtake.curation.recipe import Recipe
from longtake.curation.workspace import Workspace
from longtake.filters.verdicts import decide
from longtake.manifests.dataset.fiftyone import VERSION, always, digits, field_of
from longtake.manifests.folder import local_path, whole_file, whole_folder

Format = Literal["csv", "label-studio", "fiftyone"]
CHOICES = ("good", "bad")
NAMED = 3  # Clips or marks that a refusal names at most. It counts the others.
_COLUMNS = ("clip", "who", "when", "mark", "note", "uri", "start", "end")


@dataclass(frozen=True, slots=True)
class Item:
    """A clip that goes to another tool. film: the encoded clip, or the source where there is none. marks: by all raters."""

    clip_id: str
    video_id: str
    uri: str
    start: float
    end: float
    film: str
    marks: list[Mark]


@dataclass(frozen=True, slots=True)
class Imported:
    """How many marks of a file were stored, and how many were there already."""

    new: int
    known: int


# ── out ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def items(workspace: Workspace, marks: Iterable[Mark], further: Iterable[str] = ()) -> list[Item]:
    """The clips that have marks, and further ones (by id) to be marked, in the order of the manifest. Clips that are gone are
    left out."""
    by_clip: dict[str, list[Mark]] = {clip: [] for clip in further}
    for mark in marks:
        by_clip.setdefault(mark.clip, []).append(mark)
    wanted = pa.array(list(by_clip), pa.string())
    exports = workspace.exports.read(["clip_id", "status", "path"])
    exports = exports.filter(pc.and_(pc.equal(exports["status"], "ok"), pc.is_in(exports["clip_id"], value_set=wanted)))
    paths = dict(zip(exports["clip_id"].to_pylist(), exports["path"].to_pylist(), strict=True))
    listed = []
    for clips in workspace.clips.scan(["clip_id", "video_id", "uri", "start", "end"]):
        for row in clips.filter(pc.is_in(clips["clip_id"], value_set=wanted)).to_pylist():
            path = paths.get(row["clip_id"])
            film = workspace.folder.file(path) if path else row["uri"]
            listed.append(Item(**row, film=film, marks=by_clip[row["clip_id"]]))
    return listed


def kept_clips(workspace: Workspace, recipe: Recipe, tier: str) -> list[str]:
    """The clips that a tier keeps. Raises SetupError for a tier that there is not."""
    if tier not in recipe.tiers:
        raise SetupError(f"the recipe {recipe.name} has no tier {tier!r}: it has {', '.join(recipe.tiers)}")
    kept: list[str] = []
    for scores in score_slices(workspace, recipe, []):
        kept += scores.table["clip_id"].filter(pa.array(decide(scores, recipe.tiers[tier]).kept)).to_pylist()
    return kept


def write_marks(workspace: Workspace, marked: Sequence[Item], how: Format, target: Path) -> None:
    """Write a file (CSV, Label Studio) or a folder (FiftyOne). Raises SetupError."""
    try:
        if how == "fiftyone":
            if (
                target.exists()
                and not (target / "samples.json").exists()
                and (target.is_file() or any(target.iterdir()))
            ):
                raise SetupError(f"{target} is there already, and is no FiftyOne dataset: name another folder")
            with whole_folder(target.absolute()) as part:
                _write_samples(marked, part)
        else:
            with whole_file(target.absolute()) as part, open(part, "w", encoding="utf-8", newline="") as file:
                if how == "csv":
                    writer = csv.DictWriter(file, _COLUMNS, quoting=csv.QUOTE_ALL, lineterminator="\n")
                    writer.writeheader()
                    writer.writerows(_lines(marked))
                else:
                    json.dump(_tasks(workspace, marked), file, indent=1)
    except OSError as error:
        raise SetupError(f"cannot write {target}: {error.strerror or error}") from error


def _lines(marked: Iterable[Item]) -> Iterator[dict[str, Any]]:
    for item in marked:
        place = {"clip": item.clip_id, "uri": item.uri, "start": item.start, "end": item.end}
        for mark in item.marks:
            yield place | {"who": mark.who, "when": mark.when.isoformat(), "mark": mark.mark, "note": mark.note or ""}
        if not item.marks:
            yield place


def _tasks(workspace: Workspace, marked: Iterable[Item]) -> list[dict[str, Any]]:
    """Label Studio's JSON of tasks (https://labelstud.io/guide/tasks). A mark is an annotation. Raters there are users of a
    server, and times are its own; so ours stand in the `meta` of the choice, with what they were said of."""
    pictures = Pictures(workspace)
    tasks = []
    for number, item in enumerate(marked, 1):
        row = {name: getattr(item, name) for name in ("clip_id", "video_id", "uri", "start", "end")}
        strip = pictures.strip_of(row, sources=False)
        data = {name: row[name] for name in ("clip_id", "uri", "start", "end")} | {"video": item.film}
        data["strip"] = jpeg_uri(strip.jpeg) if isinstance(strip, Strip) else ""
        tasks.append({"id": number, "data": data, "annotations": [_annotation(mark) for mark in item.marks]})
    return tasks


def _annotation(mark: Mark) -> dict[str, Any]:
    said = {"who": mark.who, "when": mark.when.isoformat(), "mark": mark.mark, "note": mark.note}
    result: list[dict[str, Any]] = [
        {
            "id": digits(mark.clip, mark.who, "mark")[:10],
            "from_name": "mark",
            "to_name": "video",
            "type": "choices",
            "value": {"choices": [mark.mark]},
            "meta": {"longtake": said},
        }
    ]
    if mark.note is not None:
        result.append(
            {
                "id": digits(mark.clip, mark.who, "note")[:10],
                "from_name": "note",
                "to_name": "video",
                "type": "textarea",
                "value": {"text": [mark.note]},
            }
        )
    return {"result": result}


def _write_samples(marked: Iterable[Item], folder: Path) -> None:
    """As `fiftyone.Dataset.from_dir(folder, dataset_type=fiftyone.types.FiftyOneDataset)` reads it: a sample for each clip, a
    classification for each mark."""
    texts = [field_of(name, "StringField") for name in ("label", "rater", "when", "note", "seal")]
    tags = field_of("tags", "ListField", subfield="StringField")
    marks = field_of(
        "classifications", "ListField", subfield="EmbeddedDocumentField", document="labels.Classification",
        fields=[field_of("id", "ObjectIdField"), tags, field_of("confidence", "FloatField"), *texts],
    )  # fmt: skip
    described = {
        "version": VERSION,
        "media_type": "video",
        "sample_fields": [
            *always(),
            *(field_of(name, "StringField") for name in ("filepath", "_media_type", "clip_id", "uri")),
            *(field_of(name, "FloatField") for name in ("_rand", "start", "end")),
            tags,
            field_of("marks", "EmbeddedDocumentField", document="labels.Classifications", fields=[marks]),
        ],
        "frame_fields": [
            *always(),
            field_of("frame_number", "FrameNumberField"),
            field_of("_sample_id", "ObjectIdField"),
        ],
    }
    (folder / "metadata.json").write_text(json.dumps(described), encoding="ascii")
    # FiftyOne reads this file in the locale's encoding.
    with open(folder / "samples.json", "w", encoding="ascii") as file:
        file.write('{"samples": [')
        for number, item in enumerate(marked):
            file.write(",\n" if number else "\n")
            json.dump(_sample(item), file)
        file.write("\n]}\n")


def _seal(*said: str | None) -> str:
    """What tells a mark that we wrote from one that somebody changed: clip, label, rater, time and note."""
    return digits(*said)


def _sample(item: Item) -> dict[str, Any]:
    said: list[dict[str, Any]] = [
        {
            "_id": {"$oid": digits(mark.clip, mark.who, "mark")},
            "_cls": "Classification",
            "tags": [],
            "label": mark.mark,
            "rater": mark.who,
            "when": mark.when.isoformat(),
            "note": mark.note,
            "seal": _seal(item.clip_id, mark.mark, mark.who, mark.when.isoformat(), mark.note),
        }
        for mark in item.marks
    ]
    return {
        "_id": {"$oid": digits(item.clip_id)},
        "filepath": str(local_path(item.film) or item.film),
        "tags": [],
        "_media_type": "video",
        "_rand": int(digits(item.clip_id, "rand")[:8], 16) / 2**32,
        "clip_id": item.clip_id,
        "uri": item.uri,
        "start": item.start,
        "end": item.end,
        "marks": {"_cls": "Classifications", "classifications": said} if said else None,
    }


# ── in ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


def read_marks(workspace: Workspace, how: Format, source: Path, rater: str) -> Imported:
    """Store the marks of a file. rater: whose marks those are that name nobody. A mark that is there already is not stored again;
    of one rater's marks on a clip the newest counts, wherever it comes from. Raises SetupError, and then nothing is stored."""
    readers: dict[Format, Callable[[Path, str], Iterator[_Read]]] = {
        "csv": _of_csv, "label-studio": _of_tasks, "fiftyone": _of_samples,
    }  # fmt: skip
    marks = Marks(workspace, rater)
    try:
        read = list(readers[how](source, marks.who))
    except OSError as error:
        raise SetupError(f"cannot read {source}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        said = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise SetupError(f"{source} holds no marks as {how} writes them: {said}") from error
    _refuse(workspace, source, read)
    # A file may have several marks of one rater on one clip. All are stored; the newest counts.
    new = list(dict.fromkeys(_mark(one, source) for one in read))
    known = {(mark.who, mark.clip, mark.when): mark for mark in marks.everything()}
    fresh = [mark for mark in new if known.get((mark.who, mark.clip, mark.when)) != mark]
    # The same rater, clip and time with another mark or note: the mark was changed in the file.
    fresh = [
        replace(mark, when=datetime.now(UTC)) if (mark.who, mark.clip, mark.when) in known else mark for mark in fresh
    ]
    if fresh:
        marks.put(fresh)
    return Imported(len(fresh), len(new) - len(fresh))


@dataclass(frozen=True, slots=True)
class _Read:
    """A mark as a file has it, unchecked. where: in the file, for people."""

    where: str
    clip: Any
    who: Any
    when: Any
    mark: Any
    note: Any


def _refuse(workspace: Workspace, source: Path, read: Sequence[_Read]) -> None:
    """Raises SetupError, which names them, for choices that are none of ours and for clips that are not there."""
    foreign = [f"{one.mark!r} of {one.where}" for one in read if one.mark not in CHOICES]
    if foreign:
        raise SetupError(f"{source}: a mark is good or bad, not {_some(foreign)}; nothing was stored")
    clips = list(dict.fromkeys(one.clip for one in read))
    wanted = pa.array([clip if isinstance(clip, str) else "" for clip in clips], pa.string())
    there: set[str] = set()
    for table in workspace.clips.scan(["clip_id"]):
        there.update(table["clip_id"].filter(pc.is_in(table["clip_id"], value_set=wanted)).to_pylist())
    if unknown := [str(clip) for clip in clips if clip not in there]:
        what = "is no clip" if len(unknown) == 1 else "are no clips"
        raise SetupError(f"{source}: {_some(unknown)} {what} of {workspace.path}; nothing was stored")


def _some(texts: Sequence[str]) -> str:
    rest = len(texts) - NAMED
    return ", ".join(texts[:NAMED]) + (f" and {rest} more" if rest > 0 else "")


def _mark(one: _Read, source: Path) -> Mark:
    try:
        when = one.when if isinstance(one.when, datetime) else datetime.fromisoformat(one.when)
        if when.tzinfo is None:
            raise ValueError("its time has no time zone")
        if not isinstance(one.who, str) or not isinstance(one.note, str | None):
            raise TypeError("its rater and its note are texts")
        note = None if one.note is None else checked_note(one.note)
        return Mark(rater_name(one.who), when.astimezone(UTC), one.clip, one.mark, note)
    except (SetupError, ValueError, TypeError) as error:
        raise SetupError(f"{source}: the mark of {one.where} cannot be used: {error}; nothing was stored") from error


def _of_csv(source: Path, rater: str) -> Iterator[_Read]:
    now = datetime.now(UTC)
    with open(source, encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file, strict=True)
        if missing := {"clip", "mark"} - set(rows.fieldnames or ()):
            raise ValueError(f"there is no column {', '.join(sorted(missing))}")
        for row in rows:
            if row["mark"]:
                who, when = row.get("who") or rater, row.get("when") or now
                yield _Read(f"line {rows.line_num}", row["clip"], who, when, row["mark"], row.get("note") or None)


def _of_tasks(source: Path, rater: str) -> Iterator[_Read]:
    tasks = json.loads(source.read_bytes())
    if not isinstance(tasks, list):
        raise TypeError("the file is a list of tasks")
    for task in tasks:
        for annotation in task.get("annotations") or ():
            if annotation.get("was_cancelled"):
                continue
            results = {result["from_name"]: result for result in annotation["result"]}
            if "mark" not in results:
                continue
            where = f"task {task.get('id')}"
            choices = results["mark"]["value"]["choices"]
            mark = choices[0] if len(choices) == 1 else " and ".join(map(str, choices))
            note = _text(results["note"]["value"]["text"]) if "note" in results else None
            said = (results["mark"].get("meta") or {}).get("longtake")
            # The exported rater and time hold for the exported choice only. A changed choice is a mark of the person who
            # changed it.
            if said is None or (said.get("mark"), said.get("note")) != (mark, note):
                when = annotation.get("updated_at") or annotation.get("created_at") or datetime.now(UTC)
                said = {"who": _user(annotation.get("completed_by"), rater), "when": when}
            yield _Read(where, task["data"]["clip_id"], said["who"], said["when"], mark, note)


def _text(text: str | list[str]) -> str | None:
    return (text if isinstance(text, str) else "\n".join(text)).strip() or None


def _user(user: Any, rater: str) -> str:
    """Who made an annotation: Label Studio names a user of its server by a number, or by more."""
    if isinstance(user, Mapping):
        return str(user.get("email") or user.get("username") or f"Label Studio user {user.get('id')}")
    return rater if user is None else f"Label Studio user {user}"


def _of_samples(source: Path, rater: str) -> Iterator[_Read]:
    file = source / "samples.json" if source.is_dir() else source
    samples = json.loads(file.read_bytes())["samples"]
    for sample in samples:
        clip = sample["clip_id"]
        changed = _date(sample.get("last_modified_at"))
        for one in (sample.get("marks") or {}).get("classifications") or ():
            mark, who, when, note = one["label"], one.get("rater"), one.get("when"), one.get("note") or None
            if one.get("seal") not in (
                None,
                _seal(clip, mark, who, when, note),
            ):  # A changed mark is a new one.
                who = when = None
            yield _Read(f"clip {clip}", clip, who or rater, when or changed, mark, note)
        if tagged := [tag for tag in CHOICES if tag in (sample.get("tags") or ())]:
            yield _Read(f"clip {clip}", clip, rater, changed, " and ".join(tagged), None)


def _date(value: Any) -> datetime:
    """A time of FiftyOne's database; now, where there is none."""
    if not isinstance(value, Mapping):
        return datetime.now(UTC)
    date = value["$date"]
    if isinstance(date, int | float):
        return datetime.fromtimestamp(date / 1000, UTC)
    return datetime.fromisoformat(date)
