"""The output folder: what killed writers leave behind."""

from __future__ import annotations

import os
import time
from pathlib import Path

from longtake.curation.workspace import Workspace


def test_only_old_unfinished_files_are_removed(tmp_path: Path) -> None:
    names = {
        "frames/ab/.abc.parquet.01234567.tmp": True,
        "encoded/00/.x.mp4.89abcdef.tmp": True,
        "frames/ab/abc.parquet": False,  # The file is complete.
        "frames/ab/.abc.parquet.56789abc.tmp": False,  # The file is too young.
        "frames/ab/.keep": False,  # The file is not one of ours.
        "notes/.mine.tmp": False,  # The file lies in a folder that longtake does not clean.
    }
    for name in names:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"half")
        age = 60 if "5678" in name else 2 * 3600
        os.utime(file, (time.time() - age,) * 2)
    assert Workspace(str(tmp_path)).clear_leftovers() == 2
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {name for name, leftover in names.items() if not leftover}
    assert Workspace(str(tmp_path)).clear_leftovers() == 0
    assert Workspace("memory://nothing").clear_leftovers() == 0
