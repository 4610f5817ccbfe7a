"""The formats of an exported dataset besides Parquet: which parts of its folder belong to them, and who writes them."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from longtake.curation.errors import SetupError
from longtake.manifests.folder import Folder

if TYPE_CHECKING:
    import pyarrow as pa

# Format → the names that it puts into a dataset's folder.
_PLACES = {
    "webdataset": "webdataset",
    "huggingface": "metadata.parquet",
    "fiftyone": "fiftyone",
    "lance": "clips.lance",
}
NAMES = tuple(_PLACES.values())
READ_CLIPS = frozenset({"webdataset", "fiftyone", "lance"})  # Formats whose writers look into the clips' files.


def formats_in(dataset: Folder) -> list[str]:
    """The formats besides Parquet that a dataset has."""
    there = set(dataset.names())
    return [name for name, place in _PLACES.items() if place in there]


def check_formats(formats: Sequence[str]) -> None:
    """Raises SetupError if a format needs a package that is not here."""
    if "lance" in formats and find_spec("lance") is None:
        raise SetupError("export.formats: lance needs the package pylance: pip install 'longtake[lance]'")


def write_formats(table: pa.Table, dataset: Path, formats: Sequence[str], clips_per_tar: int) -> None:
    """Write the clips of `table`, which lie in `dataset` already, in each of `formats`. Raises DatasetError."""
    from longtake.manifests.dataset.fiftyone import write_samples
    from longtake.manifests.dataset.huggingface import write_metadata
    from longtake.manifests.dataset.lance import write_lance
    from longtake.manifests.dataset.webdataset import write_tars

    if "webdataset" in formats:
        write_tars(table, dataset, dataset / "webdataset", clips_per_tar)
    if "huggingface" in formats:
        write_metadata(table, dataset)
    if "fiftyone" in formats:
        write_samples(table, dataset, dataset / "fiftyone")
    if "lance" in formats:
        write_lance(table, dataset, dataset / "clips.lance")
