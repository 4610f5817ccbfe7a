"""The output folder of a run: its manifests, its recipe and its datasets."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc

from longtake.curation.errors import SetupError
from longtake.curation.recipe import Recipe, load_recipe, parse_yaml
from longtake.filters.base import Needs
from longtake.filters.registry import samples_time
from longtake.manifests import schemas
from longtake.manifests.folder import Folder, in_words
from longtake.manifests.parts import StoreError, hint
from longtake.manifests.remembered import Remembered
from longtake.manifests.store import Manifest, open_folder

_RECIPE = RECIPE_FILE = "recipe.yaml"
# Names of manifests. A folder that holds one of them and a recipe is recognised as a workspace.
MANIFESTS = ("inputs", "videos", "clips")
_LEFT_SECONDS = 3600.0


@dataclass(frozen=True)
class Workspace:
    """A workspace by its path or URI. Nothing is created until something is written. remembers: its manifests keep in memory
    what was read of them, until something is appended: for a run, which asks many questions of each."""

    path: str
    remembers: bool = False

    def __post_init__(self) -> None:
        # An empty path is the current folder to the system. It is mostly a variable of the shell that is not set.
        if not self.path.strip():
            raise SetupError("the workspace has no name: name a folder, such as -o workspace")

    @cached_property
    def folder(self) -> Folder:
        """The folder itself. Raises StoreError."""
        return open_folder(self.path)

    @cached_property
    def inputs(self) -> Manifest:
        return self._manifest(schemas.inputs)

    @cached_property
    def videos(self) -> Manifest:
        return self._manifest(schemas.videos)

    @cached_property
    def pieces(self) -> Manifest:
        return self._manifest(schemas.pieces)

    @cached_property
    def clips(self) -> Manifest:
        return self._manifest(schemas.clips)

    @cached_property
    def captions(self) -> Manifest:
        return self._manifest(schemas.captions)

    @cached_property
    def exports(self) -> Manifest:
        return self._manifest(schemas.exports)

    @cached_property
    def forgotten(self) -> Manifest:
        return self._manifest(schemas.forgotten)

    @cached_property
    def runs(self) -> Manifest:
        return self._manifest(schemas.runs)

    @property
    def outputs(self) -> list[Manifest]:
        """The manifests that workers append to."""
        return [self.videos, self.pieces, self.clips, self.captions, self.exports]

    def _manifest(self, named: Callable[[str], Manifest]) -> Manifest:
        return Remembered.of(named(self.path)) if self.remembers else named(self.path)

    def recipe(self, name_or_file: str | None = None) -> Recipe:
        """The recipe asked for; else the workspace's own; else `embedded`. Raises RecipeError."""
        if name_or_file is not None:
            return load_recipe(name_or_file)
        try:
            text = self.folder.read(_RECIPE)
        except (FileNotFoundError, NotADirectoryError):
            return load_recipe("embedded")
        # The recipe was checked when it was written. A command that only reads may run without the package of its
        # captioner.
        return parse_yaml(text, source=f"{self.path}/{_RECIPE}", check_captioner=False)

    def save_recipe(self, recipe: Recipe) -> None:
        """Write recipe.yaml, with every default written out."""
        try:
            self.folder.write_whole(_RECIPE, recipe.to_yaml().encode())
        except OSError as error:
            raise SetupError(f"cannot write {self.path}/recipe.yaml: {in_words(error)}") from error

    def read_file(self, name: str) -> bytes | None:
        """The content of a file beside the manifests; None where it is missing. Raises StoreError if it cannot be read now."""
        try:
            return self.folder.read(name)
        except FileNotFoundError:
            return None
        except Exception as error:  # Clients of object stores raise errors of their own.
            raise self._fault("read", name, error) from error

    def write_file(self, name: str, data: bytes) -> None:
        """Write a file beside the manifests, whole. Raises StoreError."""
        try:
            self.folder.write_whole(name, data)
        except Exception as error:
            raise self._fault("write", name, error) from error

    def _fault(self, verb: str, name: str, error: Exception) -> StoreError:
        told = f"{in_words(error)}{hint(error, reading=verb == 'read')}"
        return StoreError(f"cannot {verb} {self.folder.file(name)}: {told}")

    def make_readable(self, recipe: Recipe) -> None:
        """Every manifest's folder exists from the first command on, and reads as an empty table where it has no row yet; clips
        and captions with a column for each score of the recipe."""
        on_captions = recipe.needing(Needs.CAPTIONS)
        for manifest in (self.videos, self.exports, self.forgotten, self.runs):
            manifest.make_readable()
        for manifest, names in (
            (self.clips, [name for name in recipe.built if name not in on_captions]),
            (self.captions, list(on_captions)),
        ):
            fields = [field for name in names for field in schemas.score_fields(name)]
            errors = [schemas.standard_error_field(name) for name in names if samples_time(name)]
            manifest.make_readable([*fields, *errors])

    def clear_leftovers(self) -> int:
        """Remove what killed writers left half done in the folders of frames and of encoded clips; how many files. On a local
        disk only (an object appears when it is whole), and nothing younger than an hour: it may still be written."""
        if not self.folder.is_local:
            return 0
        inner = [self.folder / kind / name for kind in ("frames", "encoded") for name in (self.folder / kind).names()]
        return sum(folder.remove_abandoned(_LEFT_SECONDS) for folder in inner)

    def must_exist(self) -> None:
        """Raises SetupError if this is no workspace (yet)."""
        if not self.inputs.parts() and not self.videos.parts():
            raise SetupError(
                f"{self.path} is not a workspace: there is no videos manifest in it. `longtake curate` makes one"
            )


def without_ids(table: pa.Table, key: str, done: pa.Array | pa.ChunkedArray) -> pa.Table:
    """The anti-join that resume, retry and growing a corpus are: rows whose key is not among `done`."""
    return table.filter(
        pc.invert(pc.is_in(table[key], value_set=pa.chunked_array([done]) if isinstance(done, pa.Array) else done))
    )


def looks_like_workspace(folder: str) -> bool:
    """Whether a folder of this machine is a workspace: a recipe beside a manifest of inputs, videos or clips."""
    if not os.path.isfile(os.path.join(folder, _RECIPE)):
        return False
    for name in MANIFESTS:
        with suppress(OSError), os.scandir(os.path.join(folder, name)) as listing:
            if any(entry.name.endswith(".parquet") for entry in listing):
                return True
    return False
