"""What strips cost a scan: `python -m benchmarks.strips [FILM ...]`.

Each film is scanned in turn with strips and without them, in one process, which of the two comes first changing each time; CPU
seconds are medians. Beside it: the CPU seconds within the making and writing of strips, and their bytes. Films: by default
`short`, `long` and `static` of the real corpus, where it is there, and six of the generated one.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.scan import CORPUS, recipe
from longtake.curation.errors import RowError
from longtake.curation.reading import judge, one_pass
from longtake.curation.reading.strips import strip_of_pictures
from longtake.curation.stages import scan
from longtake.manifests import ids
from longtake.manifests.frames import StoredStrip, read_strips
from tests.corpus import build

ROUNDS = 5
GENERATED = ("pan_right", "pan_1080p", "long_take", "letterbox", "dark", "burnt_in_text")
_NONE = StoredStrip(b"", [])


@contextmanager
def strips_made(made: bool, spent: list[float], sizes: list[int]) -> Iterator[None]:
    """With strips, noting the CPU seconds and the bytes of each; or with an empty one in the place of each."""

    def counted(*args: Any) -> StoredStrip:
        if not made:
            return _NONE
        began = time.process_time()
        strip = strip_of_pictures(*args)
        spent.append(time.process_time() - began)
        sizes.append(len(strip.jpeg))
        return strip

    modules: list[Any] = [judge, scan, one_pass]
    for module in modules:
        module.strip_of_pictures = counted
    try:
        yield
    finally:
        for module in modules:
            module.strip_of_pictures = strip_of_pictures


def scanned(path: Path, made: bool, spent: list[float], sizes: list[int]) -> tuple[float, int, int]:
    """CPU seconds of a scan, its clips, and those of them that have a strip."""
    row = {"uri": str(path), "video_id": ids.video_id(str(path)), "licence": None, "spans": []}
    with tempfile.TemporaryDirectory() as workspace, strips_made(made, spent, sizes):
        began = time.process_time()
        found = scan.scan_row(row, workspace, recipe().model_dump(mode="json"), False)
        took = time.process_time() - began
        clips = [clip["clip_id"] for clip in found["clips"] if clip["has_strip"]]
        stored = len(read_strips(workspace, row["video_id"], clips)) if clips and made else 0
    return took, len(found["clips"]), stored


def main() -> None:
    real = [path for kind in ("short", "long", "static") for path in sorted((CORPUS / "videos" / kind).glob("*"))]
    films = [Path(name) for name in sys.argv[1:]] or [*real, *build(Path("bench") / "films", GENERATED).values()]
    whole, bare, within, sizes = 0.0, 0.0, 0.0, []
    print(f"{'film':40}{'clips':>6}{'strips':>7}{'CPU s':>8}{'without':>9}{'in strips':>10}")
    for path in films:
        times: dict[bool, list[float]] = {True: [], False: []}
        spent: list[float] = []
        clips = strips = 0
        try:
            for round_ in range(ROUNDS):
                for made in (True, False) if round_ % 2 else (False, True):
                    took, clips, stored = scanned(path, made, spent, sizes)
                    times[made].append(took)
                    strips = max(strips, stored)
        except RowError as error:
            print(f"{path.name:40}{error}")
            continue
        with_, without, inside = statistics.median(times[True]), statistics.median(times[False]), sum(spent) / ROUNDS
        print(f"{path.name:40}{clips:6}{strips:7}{with_:8.2f}{without:9.2f}{inside:10.4f}", flush=True)
        if strips:
            whole, bare, within = whole + with_, bare + without, within + inside
    print(f"\nof films with strips: {whole:.2f} CPU s with them, {bare:.2f} without: {whole / bare - 1:+.2%}")
    print(f"in the making of strips: {within / whole:.2%}")
    print(
        f"bytes of a strip: median {statistics.median(sizes):,.0f}, mean {statistics.mean(sizes):,.0f}, most {max(sizes):,}"
    )


if __name__ == "__main__":
    main()
