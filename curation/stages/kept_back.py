"""Whether a published dataset stays as it is, since clips would drop out of the new one only because of faults of the world.

A clip that a gate rejects, that a new scan does not have any more or that ended in a fact drops out by right. It does not if it
is kept and its file could not be made, if it ended in a fault of the world, or if a score or caption of it is missing while
the last run of the stage that gives it met such faults; nor if its video was cut into other clips that could not be encoded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from longtake.curation.errors import is_of_the_world
from longtake.curation.workspace import Workspace
from longtake.filters.verdicts import ClipScores, TierResult, Verdict
from longtake.manifests.keys import Index

Codes = npt.NDArray[np.int64]


class Before:
    """What is published of a tier, and the fault of the world that keeps each of its clips out of the new dataset; all clips go
    by, a slice at a time. old: clip_id, video_id, whether it has a caption, path and sha256 of each."""

    def __init__(self, workspace: Workspace, published: pa.Table) -> None:
        """published: of the old dataset, with the columns clip_id, video_id, caption, path and sha256."""
        captioned = published["caption"].is_valid()
        self.old = published.drop_columns(["caption"]).append_column("captioned", captioned)
        self._scores_wait = bool(last_faults(workspace, "score") or last_faults(workspace, "caption"))
        self._captions_wait = bool(last_faults(workspace, "caption"))
        self._clips, self._videos = Index.of(self.old["clip_id"]), Index.of(self.old["video_id"])
        self._stands_for = self._videos.find(self.old["video_id"])  # The row that stands for the video of each clip.
        self._faults = [""]  # Their numbers are what follows is counted in; 0: none.
        self._there = np.zeros(self.old.num_rows, bool)
        self._fault = np.zeros(self.old.num_rows, np.int64)
        self._of_video = np.zeros(self.old.num_rows, np.int64)
        self._rank_of_video = np.zeros(self.old.num_rows, np.int64)

    def add(self, scores: ClipScores, result: TierResult, files: pa.Table) -> None:
        """A slice of all clips. files: clip_id, scan_id and error_kind of the rows of exports, under the recipe's settings, of
        those that are kept."""
        clips = scores.table
        faults, rank = np.zeros(clips.num_rows, np.int64), np.zeros(clips.num_rows, np.int64)
        groups = [(result.kept, self._of_kept), (result.verdicts == Verdict.ERROR, self._of_errors)]
        if self._scores_wait:
            groups.append((result.verdicts == Verdict.UNDECIDED, self._of_undecided))
        for number, (which, of) in enumerate(groups, 1):
            faults[which] = of(clips.filter(pa.array(which)), files)
            rank[which] = number
        at = self._clips.find(clips["clip_id"])
        self._there[at[at >= 0]] = True
        self._fault[at[at >= 0]] = faults[at >= 0]
        of_video = self._videos.find(clips["video_id"])
        for number in range(1, len(groups) + 1):
            here = (rank == number) & (faults > 0) & (of_video >= 0)
            rows, theirs = of_video[here], faults[here]
            first = self._rank_of_video[rows] <= number
            self._of_video[rows[first]], self._rank_of_video[rows[first]] = theirs[first], number

    def reason(self, new: pa.ChunkedArray, silent: Callable[[], pa.ChunkedArray]) -> str | None:
        """Why the dataset stays as it is, in a sentence; None if the new one may take its place. new: the clips that would be
        published. silent: gives those of them without a caption."""
        dropped = np.asarray(pc.invert(pc.is_in(self.old["clip_id"], value_set=new)).to_numpy()).astype(bool)
        # Clips that another scan has replaced are lost with the clips that replaced them.
        faults = np.where(self._there, self._fault, self._of_video[self._stands_for])[dropped]
        counts = np.bincount(faults, minlength=len(self._faults)).tolist()
        why = Counter({fault: n for fault, n in zip(self._faults[1:], counts[1:], strict=True) if n})
        if self._captions_wait:
            captioned = self.old["clip_id"].filter(self.old["captioned"])
            if mute := int(pc.sum(pc.is_in(silent(), value_set=captioned)).as_py() or 0):
                why["caption missing"] += mute
        if not why:
            return None
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(why.items()))
        return (
            f"{why.total()} of its {self.old.num_rows} clips would drop out only because of faults of the world ({kinds}); the "
            f"same command makes it anew once they are over"
        )

    def _of_kept(self, clips: pa.Table, files: pa.Table) -> Codes:
        at = pc.index_in(clips["clip_id"], value_set=files["clip_id"].combine_chunks())
        scans = files["scan_id"].cast(pa.string()).take(at)
        current = np.asarray(pc.fill_null(pc.equal(scans, clips["scan_id"]), False).to_numpy()).astype(bool)
        return np.where(current, self._of_kinds(files["error_kind"].take(at)), self._number("not encoded"))

    def _of_errors(self, clips: pa.Table, files: pa.Table) -> Codes:
        return self._of_kinds(clips["error_kind"])

    def _of_undecided(self, clips: pa.Table, files: pa.Table) -> Codes:
        return np.full(clips.num_rows, self._number("score missing"))

    def _of_kinds(self, kinds: pa.ChunkedArray) -> Codes:
        """The numbers of kinds of errors, 0 of those that are no faults of the world."""
        kinds = pc.dictionary_encode(kinds.cast(pa.string())).combine_chunks()
        numbers = [self._number(kind) if is_of_the_world(kind) else 0 for kind in kinds.dictionary.to_pylist()]
        codes = kinds.indices.fill_null(len(numbers)).to_numpy()
        return np.asarray(np.array([*numbers, 0])[codes], np.int64)

    def _number(self, fault: str) -> int:
        if fault not in self._faults:
            self._faults.append(fault)
        return self._faults.index(fault)


def last_faults(workspace: Workspace, stage: str) -> int:
    """The faults of the world that the last run of a stage with work to do met."""
    runs = workspace.runs.read(["stage", "computed", "faults"])  # Their order is that in which they ended.
    runs = runs.filter(pc.and_(pc.equal(runs["stage"], stage), pc.greater(runs["computed"], 0)))
    return int(runs["faults"][-1].as_py() or 0) if runs.num_rows else 0
