"""What `import longtake` offers for workspaces: open one, read its tables, decide again, look at a clip, curate.

Nothing is computed here that a command does not compute too: the same manifests, statistics and verdicts, as tables.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, Literal, overload

import pyarrow as pa

from longtake.curation.clip_table import clip_scores
from longtake.curation.errors import SetupError
from longtake.curation.looking.report.clips import ClipView, open_clip
from longtake.curation.looking.stats import statistics
from longtake.curation.looking.tiering import parse_gate, verdict_table
from longtake.curation.recipe import Recipe, RecipeError, load_recipe
from longtake.curation.stages.stage import STAGES, Options
from longtake.curation.workspace import Workspace
from longtake.filters.gates import Gate
from longtake.filters.verdicts import decide
from longtake.manifests import schemas

if TYPE_CHECKING:
    import pandas as pd

    from longtake.curation.forgetting import Forgotten
    from longtake.curation.inputs import InputReport
    from longtake.curation.pipeline import Watcher

StrPath = str | PathLike[str]
GateRange = str | Gate | Sequence[float | None]

# The videos manifest nests each video's clips; `OpenWorkspace.clips` gives them, brought up to date, as rows.
_OF_VIDEOS = [name for name in schemas.VIDEOS.names if name != "clips"]


class OpenWorkspace:
    """A workspace to look at: its manifests as tables, its statistics, verdicts and clips. Made by `longtake.open`.

    path: where it is, as it was given. recipe: what verdicts and statistics are computed under; nothing here writes it.

    Every method reads the manifests anew, so a run that goes on shows at the next call, and a handle needs no closing.
    Of rows with one id the newest counts, also while a run writes. A table is a pandas DataFrame, or a pyarrow Table with
    `arrow=True`; the dtypes are those of `pandas.read_parquet`: float64 (nan: null), int64 (float64 where there are
    nulls), bool, strings (nan or None: null), lists as NumPy arrays. docs/guide.md tells the meaning of each column.

    Each method raises StoreError where a manifest cannot be read, or a column that is asked for is in none of its files.
    """

    def __init__(self, path: StrPath, recipe: Recipe | StrPath | None = None) -> None:
        self._workspace = Workspace(fspath(path))
        self._workspace.must_exist()
        self._given = None if recipe is None else _recipe(self._workspace, recipe)

    def __repr__(self) -> str:
        return f"longtake.open({self.path!r})"

    @property
    def path(self) -> str:
        """The folder or URI, as it was given."""
        return self._workspace.path

    @property
    def recipe(self) -> Recipe:
        """The recipe that `open` was given, else the workspace's own, else `embedded`. Raises RecipeError."""
        return self._given or self._workspace.recipe()

    @overload
    def videos(self, columns: Sequence[str] | None = None, *, arrow: Literal[False] = False) -> pd.DataFrame: ...
    @overload
    def videos(self, columns: Sequence[str] | None = None, *, arrow: Literal[True]) -> pa.Table: ...
    def videos(self, columns: Sequence[str] | None = None, *, arrow: bool = False) -> Any:
        """The manifest `videos`: a row per scanned video, with its `video_id`, `uri`, `status` (ok or error),
        `error_kind`, `width` and `height` (pixels), `fps`, `duration` (seconds), `codec`, …

        columns: these only, in this order; None: all but the nested column `clips`.
        """
        return _shown(self._workspace.videos.read(_OF_VIDEOS if columns is None else columns), arrow)

    @overload
    def clips(self, columns: Sequence[str] | None = None, *, arrow: Literal[False] = False) -> pd.DataFrame: ...
    @overload
    def clips(self, columns: Sequence[str] | None = None, *, arrow: Literal[True]) -> pa.Table: ...
    def clips(self, columns: Sequence[str] | None = None, *, arrow: bool = False) -> Any:
        """The manifest `clips`: a row per clip, with its `clip_id`, `video_id`, `uri`, `start` and `end` (seconds),
        `status` (ok or error), `error_kind`, …, and for each filter the columns `<filter>` (float64, in the filter's
        unit; nan: not measured) and `<filter>_detail` (the values that the score was reduced from).

        A score stands here as it was measured, under the protocol that the column `protocols` names; `verdicts` reads
        it only if that is the recipe's. columns: these only, in this order; None: all but `embedding`.
        """
        return _shown(self._workspace.clips.read(columns), arrow)

    @overload
    def captions(self, columns: Sequence[str] | None = None, *, arrow: Literal[False] = False) -> pd.DataFrame: ...
    @overload
    def captions(self, columns: Sequence[str] | None = None, *, arrow: Literal[True]) -> pa.Table: ...
    def captions(self, columns: Sequence[str] | None = None, *, arrow: bool = False) -> Any:
        """The manifest `captions`: a row per clip that was captioned, with its `clip_id`, `status` (ok, truncated,
        refused, duplicate or error), `reason`, `caption` and `sub_captions` (five strings; null unless ok),
        `text_similarity`, …

        columns: these only, in this order; None: all.
        """
        return _shown(self._workspace.captions.read(columns), arrow)

    def stats(self, near: int = 10) -> dict[str, Any]:
        """The statistics that `longtake stats --json` prints, as plain data: counts of videos, clips and captions, for
        each tier its verdicts, gates and funnel, quantiles of each score, near misses, and each stage's last run.

        near: how many clips to name that a single gate rejects. Raises RecipeError.
        """
        return statistics(self._workspace, self.recipe, near).as_json()

    @overload
    def verdicts(self, tier: str, /, *, arrow: Literal[False] = False, **gates: GateRange) -> pd.DataFrame: ...
    @overload
    def verdicts(self, tier: str, /, *, arrow: Literal[True], **gates: GateRange) -> pa.Table: ...
    def verdicts(self, tier: str, /, *, arrow: bool = False, **gates: GateRange) -> Any:
        """What a tier decides on each clip, computed from the stored scores. Nothing is written.

        gates: other ranges for this tier, as a recipe writes them: `flow=">= 30"`, `fps=[24, 60]`, `psnr="off"`.

        A row per clip:

        - clip_id (string);
        - verdict (string): `kept`; `rejected`: a gate failed; `undecided`: no gate failed, but a score is missing, so
          the clip is not kept; `error`: the clip or its captions ended in an error, which is no rejection;
        - failed (list of strings): the gates that reject the clip, in the recipe's order;
        - excess (list of float64, as long as `failed`): how far outside of each its score is, in the filter's unit:
          positive above the range, negative below it;
        - missing (list of strings): the gates that have no score of the clip under the recipe's protocol, or one that
          cannot be known. A clip that was rejected early has some too;
        - error_kind, error (string): null unless the verdict is `error`.

        Warns of scores that are believed since this machine cannot tell whether their protocol is the recipe's. Raises
        RecipeError for a tier that the recipe has not, a gate without a filter, or what is no range.
        """
        recipe = self.recipe
        if tier not in recipe.tiers:
            raise RecipeError(f"recipe {recipe.name} has no tier {tier!r}; there are: {', '.join(recipe.tiers)}")
        if gates:
            changes = {f"{tier}.{name}": _gate(name, range_) for name, range_ in gates.items()}
            recipe = recipe.with_gates(changes, source=f"verdicts({tier!r}, …)")
        scores = clip_scores(self._workspace, recipe, [])
        result = decide(scores, recipe.tiers[tier])
        for name in result.gates.keys() & scores.unchecked.keys():
            warnings.warn(f"stored scores of {name} are believed: {scores.unchecked[name]}", stacklevel=2)
        return _shown(verdict_table(scores, result), arrow)

    def forget(self, videos: StrPath | Sequence[StrPath]) -> Forgotten:
        """Erase videos as `longtake forget` does: frames, clips, captions, encoded files, rows, marks, and their place in
        exported datasets. What remains is a note that it was asked for, and that keeps them from being curated again.

        videos: paths, URIs or ids of videos; an archive or a table stands for all videos in it. A name that is not known
        here is noted, too. Raises SetupError for the id of a clip, WorkspaceBusy while a run writes to this workspace, and
        StoreError or OSError where something cannot be erased; the same call then goes on.
        """
        from longtake.curation.forgetting import forget

        names = [fspath(v) for v in ([videos] if isinstance(videos, str | PathLike) else videos)]
        return forget(self._workspace, names)

    def clip(self, clip_id: str) -> ClipView:
        """One clip by its id, or by the first digits of it. A notebook shows it: keyframes over their sub-captions,
        scores, and each tier's verdict with its reasons.

        Raises SetupError if no clip is called so, or several are.
        """
        return open_clip(self._workspace, self.recipe, clip_id)


@dataclass(frozen=True, slots=True)
class CurateResult:
    """What one call of `curate` did.

    workspace: the workspace, open. computed, errors: stage → rows that this call computed, and those of them that ended
    in an error; a stage with nothing left to do computed 0. datasets: tier → the folder (or URI) of its dataset, empty
    unless the stage export ran. exported: tier → clips in that dataset. inputs: what was read of `videos`, what was left
    out, and why (None: none were given).
    """

    workspace: OpenWorkspace
    computed: dict[str, int]
    errors: dict[str, int]
    datasets: dict[str, str]
    exported: dict[str, int]
    inputs: InputReport | None = None


def open(workspace: StrPath, recipe: Recipe | StrPath | None = None) -> OpenWorkspace:
    """Open a workspace, a folder or a URI, to look at it. Nothing in it is changed.

    recipe: what to decide under: a Recipe, the name of a shipped one or a YAML file; None: the workspace's own.
    Raises SetupError if there is no workspace at this place, RecipeError for a recipe that cannot be used, and
    StoreError where the place cannot be read.
    """
    return OpenWorkspace(workspace, recipe)


def curate(
    videos: StrPath | Sequence[StrPath],
    output: StrPath,
    recipe: Recipe | StrPath | None = None,
    *,
    until: str = STAGES[-1].name,
    uri_column: str | None = None,
    all_scores: bool = False,
    retry_errors: bool = False,
    engine: str | None = None,
    address: str | None = None,
    workers: int | None = None,
    gpus_per_worker: float | None = None,
    progress: bool | Watcher = False,
    strict: bool = False,
    list_fps: float | None = None,
    access: StrPath | None = None,
    secret_query: Sequence[str] = (),
    allow_scheme: Sequence[str] = (),
    allow_private: bool = False,
    allow_endpoints: Sequence[str] = (),
) -> CurateResult:
    """Run the stages over videos, as `longtake curate` does. The same call goes on after a stop, and computes only what
    is missing.

    videos: files, folders, globs, URIs or lists of them; none (`[]`): those that the workspace has. output: the workspace,
    a folder or a URI. recipe: a Recipe, the name of a shipped one or a YAML file; None: the workspace's own, else
    `embedded`. It becomes the workspace's recipe.

    until: the last stage to run. uri_column: the column of URIs in lists. all_scores: measure also what is rejected
    already. retry_errors: try again what ended in an error. engine: `inline`, in this process, or `ray`: on the Ray cluster
    at `address` (`auto`, `HOST:PORT`), or on a local one. None: a local Ray only where there is more than a minute of CPU to
    do. workers: how many at once (None: one per CPU). gpus_per_worker: the part of a GPU that a worker with a model takes
    (None: a whole one, or less where there are too few). progress: True shows how it goes on standard output; or an object with
    the methods `begin(stage, rows)`, `advance(report)` and `end(stage, total, seconds)`.

    strict: raise SetupError before any work if some row of a list, or a folder, cannot be used. list_fps: the rate that
    frame numbers and time codes of lists count at. access: a file that lets this call read its videos (None: the one that
    LONGTAKE_ACCESS names). secret_query: further query keys of URIs that are secret. allow_scheme: further schemes that lists
    may name. allow_private: web addresses may lead into this machine or its network. allow_endpoints: hosts (HOST, HOST:PORT
    or URLs) that a captioner may send frames and its key to, though only a recipe names them; they are remembered for this
    user, as by the command's `--allow-endpoint`.

    A video that cannot be read is an error row, not an exception. Raises RecipeError for a recipe that cannot be used,
    WorkspaceBusy while another run writes to this workspace, StoreError where it cannot be written, and SetupError for
    everything else that has to be changed first. What is committed stays.
    """
    from longtake.curation.access import Access, Reach
    from longtake.curation.lists import ListRules
    from longtake.curation.pipeline import run

    names = [listed.name for listed in STAGES]
    if until not in names:
        raise SetupError(f"until={until!r}: the stages are {', '.join(names)}")
    _allow(allow_endpoints)
    target = Workspace(fspath(output), remembers=True)
    inputs = [fspath(v) for v in ([videos] if isinstance(videos, str | PathLike) else videos)]
    options = Options(
        names[: names.index(until) + 1], all_scores, retry_errors, engine, address, workers, gpus_per_worker
    )
    chosen = _recipe(target, recipe)
    reads = Access.load(None if access is None else fspath(access), Reach.of(allow_scheme, allow_private, secret_query))
    rules = ListRules(uri_column, list_fps)
    if progress is True:
        from longtake.curation.cli.app import PrintableConsole
        from longtake.curation.cli.progress import Progress

        with Progress(PrintableConsole()) as bars:
            result = run(target, chosen, inputs, options, bars, rules=rules, access=reads, strict=strict)
    else:
        watcher = progress or _Quiet()
        result = run(target, chosen, inputs, options, watcher, rules=rules, access=reads, strict=strict)
    return CurateResult(
        OpenWorkspace(target.path),
        computed={stage: report.rows for stage, report in result.stages.items()},
        errors={stage: report.errors for stage, report in result.stages.items()},
        datasets={tier: f"{target.path.rstrip('/')}/dataset/{tier}" for tier in result.datasets},
        exported=result.datasets,
        inputs=result.inputs,
    )


class _Quiet:
    """A watcher that says nothing."""

    def begin(self, stage: str, rows: int) -> None: ...

    def advance(self, report: object) -> None: ...

    def end(self, stage: str, total: object, seconds: float) -> None: ...


def _allow(hosts: Sequence[str]) -> None:
    from longtake.captioning.permission import PermissionFault, allow

    for host in [hosts] if isinstance(hosts, str) else hosts:
        try:
            allow(host)
        except (ValueError, PermissionFault) as error:
            raise SetupError(f"allow_endpoints: {error}") from None


def _recipe(workspace: Workspace, recipe: Recipe | StrPath | None) -> Recipe:
    if isinstance(recipe, Recipe):
        return recipe
    return workspace.recipe() if recipe is None else load_recipe(fspath(recipe))


def _gate(name: str, range_: GateRange) -> Gate | None:
    try:
        return parse_gate(range_)
    except ValueError as error:
        raise RecipeError(f"{name}={range_!r}: {error}") from error


def _shown(table: pa.Table, arrow: bool) -> Any:
    return table if arrow else table.to_pandas()
