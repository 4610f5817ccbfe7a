"""A tier's dataset to the Hugging Face Hub, in the layout that its viewer plays.

    SPLIT/metadata.parquet      the table; its column `file_name` leads to the clip, and loads as the column `video`
    SPLIT/ab/CLIP_ID.mp4        the clips, by the first digits of their ids
    README.md, croissant.json   the card, and the same for programs
    truth.json                  what marks say of the gates, where somebody marked clips

Clips go first, in commits of their own; table, card and Croissant file last, in one commit, which also takes out what is no part
of the dataset any more. So whoever looks finds the old table with its clips, or the new one with its own. A push that was stopped
goes on where it stopped: what the Hub has under the same checksum is not sent again.
"""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from longtake.curation.errors import SetupError
from longtake.curation.looking.truth import TRUTH
from longtake.curation.recipe import Recipe
from longtake.curation.workspace import Workspace
from longtake.manifests.dataset.croissant import CROISSANT, Published, croissant
from longtake.manifests.dataset.huggingface import METADATA, front_matter
from longtake.manifests.dataset.splits import REST, SPLIT
from longtake.manifests.dataset.switch import published
from longtake.manifests.folder import Folder

if TYPE_CHECKING:
    from huggingface_hub import HfApi

MOST_IN_FOLDER = 10_000  # Files. The Hub refuses more in one folder.
# Files and bytes of one commit. A stopped push loses the files since its last commit, and each commit costs some
# seconds.
_COMMIT_FILES, _COMMIT_BYTES = 250, 5 * 10**9
_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_HEAD = re.compile(r"\A---\n.*?^---\n", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Pushed:
    """What a push came to. sent, there: clips that were sent now, and that the Hub had already. removed: files that were taken
    out. url: of the dataset's page."""

    sent: int
    there: int
    removed: int
    url: str


def publish(
    workspace: Workspace,
    recipe: Recipe,
    tier: str,
    repo: str,
    *,
    public: bool = False,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> Pushed:
    """Push `dataset/TIER` to the dataset repository `repo` (OWNER/NAME), which is made if it is not there,
    private unless `public`.
    advance: told after each commit how many clips are there, of how many. Raises SetupError."""
    if not _NAME.fullmatch(repo):
        raise SetupError(f"{repo!r} names no repository: write OWNER/NAME")
    place = workspace.folder / "dataset" / tier
    table = published(place)
    if table is None:
        raise SetupError(f"{workspace.path} has no dataset {tier!r}: `longtake export` writes it")
    if not table.num_rows:
        raise SetupError(f"the dataset {tier!r} of {workspace.path} holds no clip: there is nothing to publish")
    table = _laid_out(table)
    api = _api()
    with _plainly(repo):
        url = str(api.create_repo(repo, repo_type="dataset", private=not public, exist_ok=True))
        there = _files_there(api, repo)
        names = dict(zip(table["to"].to_pylist(), table["sha256"].to_pylist(), strict=True))
        todo = table.filter(pa.array([there.get(to) != sha256 for to, sha256 in names.items()], pa.bool_()))
        have = table.num_rows - todo.num_rows
        advance(have, table.num_rows)
        for batch in _batches(todo, [_size(place, path) for path in todo["path"].to_pylist()]):
            files = [
                (to, place.path / path if place.is_local else place.read(path))
                for to, path in zip(batch["to"].to_pylist(), batch["path"].to_pylist(), strict=True)
            ]
            _commit(api, repo, files, [], f"Add {len(files)} clips")
            have += batch.num_rows
            advance(have, table.num_rows)
        told = _texts(table, recipe, tier, repo, url, place.read("README.md").decode())
        told |= {TRUTH: place.read(TRUTH)} if place.exists(TRUTH) else {}
        stale = sorted(path for path in there if path not in names and path not in told and path != ".gitattributes")
        _commit(api, repo, list(told.items()), stale, f"{table.num_rows} clips of the tier {tier}")
    return Pushed(todo.num_rows, table.num_rows - todo.num_rows, len(stale), url)


def _laid_out(table: pa.Table) -> pa.Table:
    """With the columns `split` and `to`: where each clip lies in the repository. Raises SetupError where there is no room."""
    splits = table[SPLIT].to_pylist() if SPLIT in table.column_names else [REST] * table.num_rows
    ids = table["clip_id"].to_pylist()
    for digits in (2, 3):
        to = [f"{split}/{clip[:digits]}/{clip}.mp4" for split, clip in zip(splits, ids, strict=True)]
        if max(Counter(path.rpartition("/")[0] for path in to).values()) <= MOST_IN_FOLDER:
            break
    else:
        raise SetupError(
            f"{table.num_rows} clips have no room in folders of {MOST_IN_FOLDER}: publish WebDataset shards"
        )
    if SPLIT not in table.column_names:
        table = table.append_column(SPLIT, pa.array(splits, pa.string()))
    return table.append_column("to", pa.array(to, pa.string()))


def _texts(table: pa.Table, recipe: Recipe, tier: str, repo: str, url: str, card: str) -> dict[str, bytes]:
    """What tells of the clips: path in the repository → content."""
    splits = sorted(set(table[SPLIT].to_pylist()), key=lambda name: (name != REST, name))
    plain = table.drop_columns(["to"])
    at = plain.column_names.index("path")
    names = [to.partition("/")[2] for to in table["to"].to_pylist()]
    plain = plain.set_column(at, pa.field("file_name", pa.string(), nullable=False), pa.array(names, pa.string()))
    texts: dict[str, bytes] = {}
    for split in splits:
        sink = io.BytesIO()
        pq.write_table(plain.filter(pc.equal(plain[SPLIT], split)), sink, compression="zstd")
        texts[f"{split}/{METADATA}"] = sink.getvalue()
    title = f"{recipe.name}: {tier}"
    body = _HEAD.sub("", card).split("\n", 1)
    note = (
        f"\nOn the Hub the table is `SPLIT/{METADATA}`, and `path` is called `file_name`; it loads with a column `video`, the "
        "clip itself.\n"
    )
    texts["README.md"] = (front_matter(title, table.num_rows, splits) + body[0] + "\n" + note + body[-1]).encode()
    licences = set(table["licence"].to_pylist())
    one = licences.pop() if len(licences) == 1 else None
    about = Published(
        title,
        f"{table.num_rows} clips of video with captions and scores, made with longtake {version('longtake')}.",
        url,
        url,
        splits,
        one,
        "1.0.0",
        datetime.now(UTC).strftime("%Y-%m-%d"),
    )
    texts[CROISSANT] = croissant(about, plain.schema).encode()
    return texts


def _size(place: Folder, path: str) -> int:
    """Bytes of a clip; of one behind a URI 0, so that commits have their number of files."""
    return (place.path / path).stat().st_size if place.is_local else 0


def _batches(todo: pa.Table, sizes: Sequence[int]) -> Iterator[pa.Table]:
    start = size = 0
    for i, more in enumerate(sizes):
        if i > start and (i - start >= _COMMIT_FILES or size + more > _COMMIT_BYTES):
            yield todo.slice(start, i - start)
            start, size = i, 0
        size += more
    if start < todo.num_rows:
        yield todo.slice(start)


def _files_there(api: HfApi, repo: str) -> dict[str, str]:
    """The files of a repository → their SHA-256; of files that are no LFS objects, nothing."""
    from huggingface_hub.hf_api import RepoFile

    return {
        entry.path: entry.lfs.sha256 if entry.lfs else ""
        for entry in api.list_repo_tree(repo, recursive=True, repo_type="dataset")
        if isinstance(entry, RepoFile)
    }


def _commit(
    api: HfApi, repo: str, files: Sequence[tuple[str, Path | bytes]], gone: Sequence[str], message: str
) -> None:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    operations: list[Any] = [
        CommitOperationAdd(path_in_repo=to, path_or_fileobj=content if isinstance(content, bytes) else str(content))
        for to, content in files
    ]
    operations += [CommitOperationDelete(path_in_repo=path) for path in gone]
    api.create_commit(repo, operations, commit_message=message, repo_type="dataset")


def _api() -> HfApi:
    try:
        from huggingface_hub import HfApi
        from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]
    except ModuleNotFoundError as error:
        raise SetupError(f"publishing needs {error.name}: pip install 'longtake[publish]'") from error
    disable_progress_bars()
    return HfApi(library_name="longtake", library_version=version("longtake"))


@contextmanager
def _plainly(repo: str) -> Iterator[None]:
    """Errors of the Hub and of the way there, in a sentence."""
    # The HTTP client below the Hub's changes its name from version to version, so its errors are caught, too.
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, LocalTokenNotFoundError  # type: ignore[attr-defined]

    again = "the files that were sent are kept, and the same command sends the rest"
    try:
        yield
    except LocalTokenNotFoundError as error:
        raise SetupError("the Hub wants a token: set HF_TOKEN to one that may write") from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else None
        hint = " (set HF_TOKEN to a token that may write to this repository)" if status in (401, 403) else ""
        raise SetupError(f"{repo}: the Hub answers HTTP {status}{hint}; {again}") from error
    except (HTTPError, OSError) as error:
        raise SetupError(f"{repo}: the Hub cannot be reached: {str(error) or type(error).__name__}; {again}") from error
