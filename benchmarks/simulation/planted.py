"""Faults planted into the store, the lock and the journal: a simulation that does not find them proves nothing."""

from __future__ import annotations

from dataclasses import dataclass

_FOLDER = "longtake.manifests.folder"
_PARTS = "longtake.manifests.parts"
_READER = "longtake.manifests.reader"
_STORE = "longtake.manifests.store"
_LOCK = "longtake.manifests.lock"


@dataclass(frozen=True, slots=True)
class Planted:
    """A fault: in `module`, `old` is replaced by `new`."""

    name: str
    module: str
    old: str
    new: str


PLANTED = (
    Planted(
        "a part is not synced before it gets its name",
        _FOLDER,
        """                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                yield lambda final""",
        """                    file.write(data)
                yield lambda final""",
    ),
    Planted(
        "the name of a part is not synced",
        _FOLDER,
        """                yield lambda final: os.replace(part, f"{self.root}/{final}")
            _sync_folder(os.path.dirname(f"{self.root}/{name}"))""",
        """                yield lambda final: os.replace(part, f"{self.root}/{final}")""",
    ),
    Planted(
        "a paid answer is not synced",
        _FOLDER,
        """            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if new:""",
        """            file.write(data)
        if new:""",
    ),
    Planted(
        "no second listing after a reading",
        _READER,
        "return any(part.compacted or part.name < newest for part in set(self.parts()) - set(parts))",
        "return False",
    ),
    Planted(
        "the last write wins by the clock alone",
        _STORE,
        "now = max(time.time_ns(), self._latest + 1, (noted or 0) + 1, after + 1)",
        "now = time.time_ns()",
    ),
    Planted(
        "a name is chosen, and taken later, with no turn",
        _PARTS,
        "fcntl.flock(folder, fcntl.LOCK_EX)",
        "pass",
    ),
    Planted(
        "a compaction deletes what came meanwhile",
        _STORE,
        """            self._write(table, lambda _: when)
        self._delete_all(parts)""",
        """            self._write(table, lambda _: when)
        self._delete_all([part for part in self.parts() if not part.compacted])""",
    ),
    Planted(
        "a compaction deletes before it writes",
        _STORE,
        """        for table in _pieces(rows_to_keep(), self._full):
            self._write(table, lambda _: when)
        self._delete_all(parts)""",
        """        tables = list(_pieces(rows_to_keep(), self._full))
        self._delete_all(parts)
        for table in tables:
            self._write(table, lambda _: when)""",
    ),
    Planted(
        "of two rows with one key the first wins",
        "longtake.manifests.keys",
        "mask[order[:-1][same]] = False",
        "mask[order[1:][same]] = False",
    ),
    Planted(
        "a merged part is newer than those behind it",
        _STORE,
        "made = self._written_again(parts, parts[-1].time | 1)",
        "made = self._written_again(parts, time.time_ns() | 1)",
    ),
    Planted(
        "a note of the newest part that outlives a power cut",
        _PARTS,
        "return int(noted) if boot == _boot() else None",
        "return int(noted)",
    ),
    Planted(
        "a lock that two can hold",
        _LOCK,
        "(fcntl.LOCK_SH if self._shared else fcntl.LOCK_EX) | fcntl.LOCK_NB",
        "fcntl.LOCK_SH | fcntl.LOCK_NB",
    ),
    Planted(
        "a temporary file that readers see",
        _FOLDER,
        'return f".{name}.{uuid.uuid4().hex[:8]}.tmp"',
        'return f"{uuid.uuid4().hex[:8]}.{name}"',
    ),
)
