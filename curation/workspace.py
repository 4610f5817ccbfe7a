"""The output folder of a run: its manifests, its recipe and its datasets."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from fsspec.implementations.local import LocalFileSystem

from longtake.curation.errors import SetupError
from longtake.curation.recipe import Recipe, load_recipe, parse_yaml
from longtake.manifests import schemas
from longtake.manifests.store import Manifest, locate

_LEFT_SECONDS = 3600.0


@dataclass(frozen=True)
class Workspace:
    """A workspace by its path or URI. Nothing is created until something is written."""

    path: str

    @cached_property
    def inputs(self) -> Manifest:
        return schemas.inputs(self.path)

    @cached_property
    def videos(self) -> Manifest:
        return schemas.videos(self.path)

    @cached_property
    def clips(self) -> Manifest:
        return schemas.clips(self.path)

    @cached_property
    def captions(self) -> Manifest:
        return schemas.captions(self.path)

    @cached_property
    def exports(self) -> Manifest:
        return schemas.exports(self.path)

    @cached_property
    def runs(self) -> Manifest:
        return schemas.runs(self.path)

    def recipe(self, name_or_file: str | None = None) -> Recipe:
        """The recipe asked for; else the workspace's own; else `embedded`. Raises RecipeError."""
        if name_or_file is not None:
            return load_recipe(name_or_file)
        fs, root = locate(self.path)
        file = f"{root}/recipe.yaml"
        if not fs.exists(file):
            return load_recipe("embedded")
        with fs.open(file, "rb") as stream:
            # It was checked when it was written. Whoever only looks may lack the package that brings its captioner.
            return parse_yaml(stream.read(), source=f"{self.path}/recipe.yaml", check_captioner=False)

    def save_recipe(self, recipe: Recipe) -> None:
        """Write recipe.yaml, with every default written out."""
        fs, root = locate(self.path)
        try:
            fs.makedirs(root, exist_ok=True)
            # renamed: a full disk or a kill must not leave half of it
            fs.pipe_file(f"{root}/.recipe.yaml.tmp", recipe.to_yaml().encode())
            fs.mv(f"{root}/.recipe.yaml.tmp", f"{root}/recipe.yaml")
        except OSError as error:
            raise SetupError(f"cannot write {self.path}/recipe.yaml: {error}") from error

    def clear_leftovers(self) -> int:
        """Remove what killed writers left half done in the folders of frames and of encoded clips; how many files. On a local
        disk only (an object appears when it is whole), and nothing younger than an hour: it may still be written."""
        fs, root = locate(self.path)
        if not isinstance(fs, LocalFileSystem):
            return 0
        removed = 0
        for folder in ("frames", "encoded"):
            for file in Path(root, folder).glob("*/.*"):
                with suppress(FileNotFoundError):
                    if file.suffix in (".tmp", ".part") and time.time() - file.stat().st_mtime > _LEFT_SECONDS:
                        file.unlink()
                        removed += 1
        return removed

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
