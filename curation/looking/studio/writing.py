"""Recipes out of the studio: written, compared with others, priced and run. Functions on a session, and a run of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from longtake.curation.clip_table import UNDER_SCAN
from longtake.curation.errors import SetupError
from longtake.curation.looking.compare import Named, compare
from longtake.curation.looking.compare_tables import headline, notes, tables
from longtake.curation.looking.stats import stage_runs
from longtake.curation.looking.status import look
from longtake.curation.looking.studio.asked import StudioError, word
from longtake.curation.looking.studio.marks import write_whole
from longtake.curation.looking.studio.session import BEGAN, FOLDER, Session
from longtake.curation.stages.stage import STAGES
from longtake.filters.base import Needs
from longtake.manifests.folder import in_words

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
# The stage score measures the filters with other needs.
_STAGE_OF = {Needs.PROBE: "scan", Needs.SAMPLE: "scan", Needs.CAPTIONS: "caption"}
LOG_BYTES = 6000  # Bytes that are shown of what a run printed last: some 60 lines.


def save(session: Session, question: Mapping[str, Any]) -> dict[str, Any]:
    """Write the tiers as a recipe into the workspace's folder `studio`. question: tiers, name, replace (true: a recipe of that
    name may be there)."""
    name = word(question, "name")
    if name is None or not _NAME.fullmatch(name) or name.endswith((".yaml", ".")):
        raise StudioError("a name has letters, digits, . - and _, and no ending")
    recipe = session.recipe_with(session.parse_tiers(question.get("tiers")), name)
    file = f"{FOLDER}/{name}.yaml"
    try:
        path = write_whole(session.workspace, file, recipe.to_yaml(), replace=question.get("replace") is True)
    except FileExistsError:  # Another studio may have written it a moment ago.
        return {"exists": file}
    return {"saved": path, "name": file, "yaml": recipe.to_yaml(), "recipes": session.recipes()}


def funnels(session: Session, question: Mapping[str, Any]) -> dict[str, Any]:
    """What other recipes keep of all clips, beside the tiers as they are set. question: tiers, recipes (names among `state`'s
    `recipes`)."""
    names = question.get("recipes")
    there = session.recipes()
    if not isinstance(names, list) or not all(isinstance(name, str) and name in there for name in names):
        raise StudioError("recipes is a list of recipes that there are")
    here = session.recipe_with(session.parse_tiers(question.get("tiers")), session.recipe.name)
    chosen = [Named(name, session.named(name)) for name in names if name != BEGAN]
    comparison = compare(session.workspace, [Named("as set here", here, own=True), *chosen])
    told = [asdict(table) for table in tables(comparison)]
    return {"headline": headline(comparison), "tables": told, "notes": list(notes(comparison))}


def cost(session: Session, question: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a run with these tiers has to compute, stage by stage: clips, films (of scan), and seconds of CPU as the runs so far
    took them for each row; null where no run tells. At least so much: clips that get through a stage cost more in the next."""
    setting = session.setting(question)
    with session.lock:
        columns = session.apply(setting)
        alive = np.zeros(len(columns), bool)
        kept = np.zeros(len(columns), bool)
        may_be_captioned = np.zeros(len(columns), bool)
        ok = columns.scores.ok()
        captions = session.recipe.needing(Needs.CAPTIONS)
        for tier in columns.tiers.values():
            alive |= tier.tally.unfailed & ok
            kept |= tier.tally.unfailed & tier.tally.measured & ok
            others = tier.tally
            for name in captions:
                others = others.minus(tier.gates[name]) if name in tier.gates else others
            may_be_captioned |= others.unfailed & others.measured & ok
        todo = {listed.name: np.zeros(len(columns), bool) for listed in STAGES}
        for name, filter_ in session.recipe.built.items():
            lacks = columns.scores.missing(name) & ~columns.scores.settled(name) & alive
            among = may_be_captioned if filter_.needs == Needs.CAPTIONS else alive
            todo[_STAGE_OF.get(filter_.needs, "score")] |= lacks & among
        ids = columns.scores.table["clip_id"]
        captioned, encoded = (
            columns.current.among(manifest.read(UNDER_SCAN))["clip_id"]
            for manifest in (session.workspace.captions, session.workspace.exports)
        )
        todo["caption"] |= may_be_captioned & ~_among(ids, captioned)
        todo["export"] |= kept & ~_among(ids, encoded)
        films = columns.scores.table["video_id"].filter(pa.array(todo["scan"])).cast(pa.string()).unique()
    runs = stage_runs(session.workspace, columns.current)
    told = []
    for name, rows in todo.items():
        total = runs.get(name, {}).get("total", {})
        each = total["cpu_seconds"] / total["computed"] if total.get("computed") else None
        count = len(films) if name == "scan" else int(np.count_nonzero(rows))
        cpu = None if each is None else each * count
        told.append({"stage": name, "clips": int(np.count_nonzero(rows)), "rows": count, "cpu_seconds": cpu})
    return told


def _among(ids: pa.ChunkedArray, others: pa.ChunkedArray) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return np.asarray(pc.is_in(ids, value_set=others.combine_chunks()).to_numpy()).astype(bool)


class Runs:
    """The run of a recipe that a page began, one at a time: `longtake curate` in a process of its own, which goes on when the
    studio ends. options: further ones of that command."""

    def __init__(self, session: Session, options: Sequence[str] = ()) -> None:
        self._session, self._options = session, list(options)
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._log: Any = None
        self._command: list[str] = []
        self._began = 0.0

    def start(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Begin. question: recipe, the name of one that was saved. Raises StudioError if one is under way."""
        name, workspace = word(question, "recipe"), self._session.workspace
        if name not in self._session.saved():
            raise StudioError(f"no saved recipe {name!r}")
        with self._lock:
            if self._process is not None and self._process.poll() is None:
                raise StudioError("a run that was begun here is not over yet")
            self._command = ["curate", "-o", workspace.path, "-r", workspace.folder.file(name), *self._options]
            self._log = tempfile.TemporaryFile()  # noqa: SIM115
            environment = {**os.environ, "PYTHONUNBUFFERED": "1", "NO_COLOR": "1", "COLUMNS": "100"}
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "longtake", *self._command],
                    stdin=subprocess.DEVNULL, stdout=self._log, stderr=subprocess.STDOUT, env=environment,
                    start_new_session=True,
                )  # fmt: skip
            except OSError as error:
                raise SetupError(f"the run cannot be started: {in_words(error)}") from error
            self._began = time.time()
        return self.state()

    def stop(self) -> dict[str, Any]:
        """As Ctrl-C would: what is committed stays, and the same command goes on."""
        with self._lock:
            if self._process is not None and self._process.poll() is None:
                self._process.send_signal(signal.SIGINT)
        return self.state()

    def state(self) -> dict[str, Any]:
        """How the run goes. state: none, running, ended, stopped or failed; status: of `longtake status --json`, null until the
        run has written its first; log: what it printed last."""
        with self._lock:
            if self._process is None:
                return {"state": "none"}
            code = self._process.poll()
            end = self._log.seek(0, os.SEEK_END)
            log = os.pread(self._log.fileno(), LOG_BYTES, max(0, end - LOG_BYTES)).decode(errors="replace")
            told: dict[str, Any] = {"command": ["longtake", *self._command], "code": code, "log": log}
            told["seconds"] = time.time() - self._began
            pid = self._process.pid
        word_for = {None: "running", 0: "ended", 1: "ended", 130: "stopped", -signal.SIGINT: "stopped"}
        told["state"] = word_for.get(code, "failed")
        try:
            seen = look(self._session.workspace).as_json()["runs"]
        except SetupError:
            seen = []
        return told | {"status": next((run for run in seen if run["pid"] == pid), None)}
