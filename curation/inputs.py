"""What a user hands in, as rows of the inputs manifest: files, folders, globs and lists; and a report of what was left out."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from longtake.curation.access import Access, is_chain
from longtake.curation.archives import NOT_BY_RANGE, is_archive_name, is_compressed_name, read_archive
from longtake.curation.errors import SetupError
from longtake.curation.folders import (
    HIDDEN,
    LINKED,
    MADE,
    MADE_HERE,
    METADATA,
    NO_FILE,
    OURS,
    WORKSPACE,
    Unlisted,
    Walker,
    Workspaces,
    file_facts,
    is_video_name,
    listed_facts,
    may_hold_videos,
)
from longtake.curation.gathered import Found, Gathered, add_span, contradicts, two_licences
from longtake.curation.input_report import InputReport, count, shown
from longtake.curation.list_records import ListNotes
from longtake.curation.listing import WorkspacesPassing, files_below, in_order, looked_through
from longtake.curation.lists import (
    ListRules,
    Row,
    is_list,
    local_file,
    names_videos,
    read_list,
    refuse_packed,
    stored,
)
from longtake.curation.workspace import MANIFESTS, RECIPE_FILE
from longtake.manifests import ids
from longtake.manifests.folder import FolderError, is_uri, local_path, seconds_of
from longtake.manifests.members import MemberError, absolute, container_of, file_of
from longtake.manifests.uris import UriAccess, join_uri, redact, scheme_of, split_uri, stored_path, why_no_address

__all__ = ["Gathered", "InputReport", "gather", "place_of", "read_inputs"]

_ROW = "#row="


def read_inputs(items: Sequence[str], uri_column: str | None = None) -> pa.Table:
    """The rows of the inputs manifest for `items`: `gather` says more."""
    return gather(items, ListRules(uri_column)).table


def gather(
    items: Sequence[str],
    rules: ListRules | None = None,
    access: Access | None = None,
    *,
    workspace: str | None = None,
    strict: bool = False,
) -> Gathered:
    """Rows of the inputs manifest for `items`, one per video, in order. The clips of one video in a list are gathered, and a
    row or a folder that cannot be used is a row with an error.

    access: what lets one in; that of the URIs is added to it. workspace: the one that is written to, which is no input.
    Raises SetupError for an item that matches nothing, or a list that cannot be read; with `strict` also for what cannot be
    used, naming all of it.
    """
    reading = _Reading(rules or ListRules(), access or Access(), workspace)
    for item in items:
        reading.read(item)
    known = set(reading.report.bad)
    reading.report.bad += [why for why in reading.found.contradictions() if why not in known]
    if strict and reading.report.bad:
        named = "\n".join(f"  {shown(bad)}" for bad in reading.report.bad)
        raise SetupError(
            f"--strict: {count(len(reading.report.bad), 'input')} cannot be used, nothing was begun:\n{named}"
        )
    return reading.gathered()


def _words(error: BaseException) -> str:
    """What a store's client tells: the status of an answer, or that nobody knows the host, rather than its own words."""
    from longtake.curation.reading.faults import words

    return words(error)


def place_of(uri: str) -> str:
    """The list or folder that an input with an error came from."""
    return uri.rpartition(_ROW)[0] or uri


class _Reading:
    """The state of one reading of inputs."""

    def __init__(self, rules: ListRules, access: Access, workspace: str | None) -> None:
        self.rules, self.access = rules, access
        self.report = InputReport()
        self.found = Found()
        self.places: set[str] = set()
        self.containers: set[str] = set()  # Archives and tables that were looked into.
        self.empty: SetupError | None = None  # Why an item gave no video, though the item exists.
        here = local_path(workspace) if workspace is not None else None
        self.walker = Walker(Workspaces(str(here) if here is not None else None))
        self.report.left_out, self.report.endings = self.walker.left_out, self.walker.endings
        self.remote = _RemoteWorkspaces(workspace if here is None else None)

    def gathered(self) -> Gathered:
        """What was read. Raises SetupError if that is nothing at all."""
        if self.empty is not None and not self.found:
            raise self.empty
        self.report.videos = self.found.videos()
        self.report.folders = len(self.walker.folders)
        return Gathered(self.found, self.report, self.places | self.walker.folders)

    def read(self, item: str) -> None:
        """Read one item. Raises SetupError."""
        if item.startswith("file:"):
            item = str(local_path(local_file(item)))
        left_out = sum(what.count for what in self.report.left_out.values())
        matched = self._remote(item) if is_uri(item) or is_chain(item) else self._local(item)
        if matched:
            return
        more = sum(what.count for what in self.report.left_out.values()) > left_out
        why = f": {'; '.join(self.report.lines()[1:])}" if more or self.report.endings else ""
        empty = SetupError(
            f"{redact(item)}: there is no video in it{why}; if a mount, bucket or drive is away, bring it back; "
            "nothing was changed"
        )
        if not more:
            raise empty
        # A shell that expands a glob also names files that a workspace made. They stop nothing if there are other
        # inputs.
        self.empty = self.empty or empty

    # ── what is on this machine ──────────────────────────────────────────────────────────────────────────────────────

    def _local(self, item: str) -> bool:
        if os.path.isdir(item):
            return self._folder(item)
        if is_list(item):
            if os.path.lexists(item):
                return self._list(os.path.abspath(item), item)
            if not glob.has_magic(item):
                raise SetupError(f"{item}: there is no such list")
            lists = [self._list(os.path.abspath(path), path) for path in sorted(glob.glob(item, recursive=True))]
            return any(lists)
        refuse_packed(item)
        if os.path.lexists(item):
            return self._file(item)
        if container_of(item) is not None:
            return self._member(absolute(item))
        if glob.has_magic(item):
            below = _fixed(item)
            matched = False
            for path in _globbed(item):
                matched |= self._file(path, below)
                self.found.relieve()
            return matched
        if not item.strip():
            return False
        if item.endswith("/") or not Path(item).suffix:
            raise SetupError(
                f"{item}: there is no such folder or file; if a mount or drive is away, bring it back; nothing was changed"
            )
        if is_archive_name(item):
            raise SetupError(f"{item}: there is no such archive")
        return self._add(os.path.abspath(item))  # The file does not exist: an error row will report that.

    def _folder(self, item: str) -> bool:
        matched = self.walker.knows(item)  # The folder has given its videos already.
        for found in self.walker.walk(item):
            if isinstance(found, Unlisted):
                self._bad(found.folder, f"{found.folder}: this folder cannot be listed: {found.why}")
                matched = True
            else:
                matched |= self._found(found)
            self.found.relieve()
        return matched

    def _found(self, path: str) -> bool:
        """A file of this machine that has not come before. path: absolute."""
        if may_hold_videos(path):
            return self._container(stored_path(path), path, None)
        return self._add(path)

    def _file(self, path: str, below: str | None = None) -> bool:
        path = os.path.abspath(path)
        if (workspace := self.walker.workspaces.above(path, below)) is not None:
            self.walker.leave_out(MADE, workspace)
            return False
        return not self.walker.is_new(path) or self._found(path)

    def _member(self, path: str) -> bool:
        """A video in an archive or a table that is named itself."""
        if (workspace := self.walker.workspaces.above(file_of(path))) is not None:
            self.walker.leave_out(MADE, workspace)
            return False
        return self._add(path)

    def _add(self, path: str) -> bool:
        self.report.files += 1
        self._row(stored(path), None)
        return True

    # ── what is elsewhere ────────────────────────────────────────────────────────────────────────────────────────────

    def _remote(self, item: str) -> bool:
        identity, access = split_uri(item, self.access.reach.secret_keys)
        if is_chain(item):
            raise SetupError(f"{redact(item)}: a chain of addresses (::) is not read")
        if why := why_no_address(identity):
            raise SetupError(f"{redact(item)}: {why}")
        self.access.add(identity, access)
        # A web address is never a pattern: its ? begins a query.
        web = scheme_of(identity) in ("http", "https")
        one = web or not glob.has_magic(identity)
        if one and is_list(identity):
            if why := self.access.reach.refusal(identity, [scheme_of(identity) or ""]):
                raise SetupError(f"{identity}: {why}")
            return self._list(identity, identity)
        refuse_packed(identity)
        if web or (one and (is_video_name(identity) or container_of(identity) or may_hold_videos(identity))):
            return self._remote_found(identity, access)
        return self._remote_folder(item, identity, access)

    def _remote_folder(self, item: str, identity: str, access: UriAccess | None) -> bool:
        import fsspec

        try:
            filesystem, path = fsspec.core.url_to_fs(join_uri(identity, self.access.of(identity)))
            # A name may hold the signs of a pattern.
            pattern = glob.has_magic(identity) and not filesystem.exists(path)
            one = not (pattern or identity.endswith("/") or filesystem.isdir(path))
        except Exception as error:
            raise self._not_listed(identity, access, error) from None
        if one:
            return self._remote_found(identity, access)
        passing = WorkspacesPassing(self.remote.target())

        def listing() -> Iterator[tuple[str, Mapping[str, Any]]]:
            try:
                below = sorted(filesystem.glob(path, detail=True).items()) if pattern else files_below(filesystem, path)
                for name, info in below:
                    uri = split_uri(str(filesystem.unstrip_protocol(name)), self.access.reach.secret_keys)[0]
                    yield uri, listed_facts(info.get("size"), seconds_of(info))
            except Exception as error:
                raise self._not_listed(identity, access, error) from None

        entries = listing() if pattern else looked_through(listing, passing.look)
        workspaces = passing.found()
        for workspace in workspaces:
            self.walker.leave_out(WORKSPACE, workspace)
        made = tuple(f"{workspace}/" for workspace in workspaces)
        self.places.add(identity)
        shared = UriAccess(access.userinfo) if access and access.userinfo else None
        matched = False
        for name, facts in entries:
            if made and name.startswith(made):
                continue
            if is_list(identity) and is_list(name):  # The pattern is one for lists.
                self.access.add(name, shared)
                matched |= self._list(name, name)
            # A pattern for all files matches the tables of workspaces, too.
            elif is_video_name(name) or is_archive_name(name) or (not pattern and may_hold_videos(name)):
                matched |= self._remote_found(name, shared, facts)
                self.found.relieve()
            else:
                self.walker.no_video(name)
        return matched

    def _not_listed(self, identity: str, access: UriAccess | None, error: Exception) -> SetupError:
        told = redact(_words(error), [access], self.access.reach.secret_keys)
        return SetupError(f"{identity}: cannot be listed: {told}")

    def _remote_found(self, identity: str, access: UriAccess | None, facts: Mapping[str, Any] = NO_FILE) -> bool:
        """A file of a store. facts: of its listing."""
        if container_of(identity) is not None or not may_hold_videos(_plain(identity)):
            return self._remote_file(identity, access, facts)
        if (workspace := self.remote.above(identity, self.access)) is not None:
            self.walker.leave_out(MADE, workspace)
            return False
        self.access.add(identity, access)
        return self._container(identity, identity, access)

    def _remote_file(self, identity: str, access: UriAccess | None, facts: Mapping[str, Any] = NO_FILE) -> bool:
        if (workspace := self.remote.above(file_of(identity), self.access)) is not None:
            self.walker.leave_out(MADE, workspace)
            return False
        self.report.files += 1
        self._row(identity, access, facts=facts)
        return True

    # ── what holds several videos ────────────────────────────────────────────────────────────────────────────────────

    def _container(self, place: str, shown: str, access: UriAccess | None) -> bool:
        """An archive or a table that was found. place: as it is stored. Raises SetupError if the world does not let it be
        read; what is wrong with itself is an error row."""
        if is_compressed_name(shown):
            self.walker.leave_out(NOT_BY_RANGE, shown)
            return False
        if place in self.containers:
            return True
        self.containers.add(place)
        try:
            return self._archive(place, access) if is_archive_name(shown) else self._table(place, shown)
        except (MemberError, pa.ArrowException, SetupError) as error:
            self._bad(place, f"{shown}: {_after(str(error), shown)}")
        except Exception as error:  # Each client raises errors of its own.
            told = redact(_words(error), [access, self.access.of(place)], self.access.reach.secret_keys)
            if local_path(place) is None:
                raise SetupError(f"{shown}: cannot be read: {told}") from None
            self._bad(place, f"{shown}: cannot be read: {error.strerror if isinstance(error, OSError) else told}")
        return True

    def _archive(self, place: str, access: UriAccess | None) -> bool:
        archive = read_archive(self.access.source(place), place)
        self.report.archives += 1
        self.report.members += len(archive.films)
        if archive.whole:
            self.places.add(place)
        self.walker.endings += archive.endings
        for reason, names in ((HIDDEN, archive.hidden), (LINKED, archive.others)):
            for name in names:
                self.walker.leave_out(reason, f"{place}: {name}")
        for name, why in archive.bad:
            self._bad(f"{place}{_ROW}{name}" if name else place, f"{place}{f', {name}' if name else ''}: {why}")
        for number, film in enumerate(archive.films, 1):
            row = Row(number, film.uri, access or self.access.of(place), film.licence, film.spans, not film.spans)
            uri = f"{place}{_ROW}{film.uri.rpartition('=')[2]}"
            # Row numbers of lists are positive, so that a negative one meets no list's.
            if not self._listed(row, -self.report.archives, uri, film.uri):
                self._bad(uri, f"{film.uri}: {row.why}")
            self.found.relieve()
        return bool(archive.films or archive.bad)

    def _table(self, place: str, shown: str) -> bool:
        """A table in a folder: the videos it holds, or names. Others are files like those that are no videos."""
        source = self.access.source(place)
        named = os.path.basename(_plain(shown)).lower() in METADATA
        rules = replace(self.rules, uri_column="file_name") if named else self.rules
        known = names_videos(source, rules.uri_column)
        if known is None:
            self.walker.leave_out(OURS, shown)
        elif not known:
            self.walker.no_video(shown)
        return bool(known) and self._list(place, shown, rules)

    # ── lists ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _list(self, place: str, shown: str, rules: ListRules | None = None) -> bool:
        self.report.lists += 1
        number, notes = self.report.lists, ListNotes()
        place = stored_path(place)
        # Messages name the list as the user did, and rows are relative to the list's own folder.
        source = replace(self.access.source(place), uri=place if is_uri(shown) else shown)
        seen = 0
        for row in read_list(source, rules or self.rules, self.access, notes):
            seen += 1
            if row.why is None and (made := self._maker(row.uri)):
                self.walker.leave_out(MADE, made)
            elif row.why is None and row.whole and is_archive_name(row.uri):
                self._named_archive(row)
            elif row.why is not None or not self._listed(row, number, *self._called(place, shown, row)):
                uri, name = self._called(place, shown, row)
                self._bad(uri, redact(f"{name}: {row.why}", (), self.access.reach.secret_keys))
            self.found.relieve()
        self.places.add(place)
        self.report.rows += seen
        self.report.comments += notes.comments
        if notes.unread:
            self.report.unread[shown] = notes.unread
        return bool(seen)

    def _called(self, place: str, shown: str, row: Row) -> tuple[str, str]:
        """The URI of a row of a list, and its name in messages."""
        return f"{place}{_ROW}{row.number}", redact(f"{shown}, row {row.number}", (), self.access.reach.secret_keys)

    def _named_archive(self, row: Row) -> None:
        """An archive that a list names: it gives its members, and what is wrong with it stops nothing."""
        self.access.add(row.uri, row.access)
        try:
            self._container(row.uri, row.uri, row.access)
        except SetupError as error:
            self._bad(row.uri, str(error))

    def _maker(self, uri: str) -> str | None:
        """The workspace that made what lies at a URI."""
        uri = file_of(uri)
        path = local_path(uri)
        if path is None:
            return self.remote.above(uri, self.access)
        return None if MADE_HERE.isdisjoint(path.parts) else self.walker.workspaces.above(str(path))

    def _listed(self, row: Row, number: int, place: str, name: str) -> bool:
        """Note a row of a list. False, and `row.why`, if it contradicts an earlier one. place, name: of the row itself."""
        spans = self.found.spans.setdefault(row.uri, {})
        for span in row.spans:
            if (why := contradicts(spans, span)) is not None:
                row.why = why
                return False
        self._row(row.uri, row.access, row.licence)
        self._licensed(row, name)
        if row.whole:
            spans.setdefault((0, None), {"start": 0.0, "end": None, "captions": [], "sub_captions": None, "bare": True})
            spans[0, None].setdefault("lists", set()).add(number)
        for span in row.spans:
            add_span(spans, span, number, (place, name))
        return True

    def _licensed(self, row: Row, name: str) -> None:
        """Note the row that gives a film its licence, or that gives it another one: then nobody can say which counts, and the
        film is an error."""
        known = self.found.rows[row.uri]
        if row.licence:
            known.setdefault("licensed_by", name)
            if "two_licences" not in known and (why := two_licences(known, row.licence, name)) is not None:
                known["two_licences"] = why
                self.report.bad.append(why)

    # ── rows ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _row(
        self, identity: str, access: UriAccess | None, licence: str | None = None, facts: Mapping[str, Any] = NO_FILE
    ) -> None:
        """facts: of a remote file, what its listing tells of it."""
        self.access.add(identity, access)
        row = self.found.rows.get(identity)
        if row is None:
            row = self.found.rows[identity] = {
                "video_id": ids.video_id(identity), "uri": identity, "licence": None, "needs_access": False, "error": None,
                **_facts(identity),
            }  # fmt: skip
        row |= {name: value for name, value in facts.items() if value is not None}
        row["licence"] = row["licence"] or licence
        row["needs_access"] = row["needs_access"] or access is not None

    def _bad(self, uri: str, why: str) -> None:
        uri = stored_path(uri)
        why = why.encode("utf-8", "backslashreplace").decode()
        self.report.bad.append(why)
        self._row(uri, None)
        self.found.rows[uri]["error"] = why


def _facts(identity: str) -> Mapping[str, Any]:
    """What is known of a file of this machine before it is opened."""
    path = local_path(file_of(identity))
    return NO_FILE if path is None else file_facts(path, inside=container_of(identity) is not None)


class _RemoteWorkspaces:
    """Knows which folders of a store are workspaces. target: the URI of the one that this run writes to, if it is remote."""

    def __init__(self, target: str | None) -> None:
        self._target = split_uri(target)[0].rstrip("/") if target is not None else None
        self._known: dict[str, bool] = {}
        if self._target is not None:
            self._known[self._target] = True

    def above(self, uri: str, access: Access) -> str | None:
        """The workspace that made what lies at a URI."""
        if MADE_HERE.isdisjoint(uri.split("/")) or scheme_of(uri) in ("http", "https"):
            return None
        parts = uri.split("/")
        for at in range(3, len(parts)):
            if parts[at] in MADE_HERE and self._is_one("/".join(parts[:at]), access):
                return "/".join(parts[:at])
        return None

    def target(self) -> str | None:
        """The target as listings write it."""
        if self._target is None:
            return None
        from longtake.manifests.folder import Folder

        try:
            return Folder(self._target).uri
        except FolderError:
            return self._target

    def _is_one(self, folder: str, access: Access) -> bool:
        if folder == self.target():
            return True
        if folder not in self._known:
            from longtake.manifests.folder import Folder

            try:
                place = Folder(join_uri(folder, access.of(folder)))
                names = [(place / name).names() for name in MANIFESTS] if RECIPE_FILE in place.names() else []
                self._known[folder] = any(name.endswith(".parquet") for inner in names for name in inner)
            except Exception:  # Each client raises errors of its own. The scan finds out whether the film can be read.
                self._known[folder] = False
        return self._known[folder]


def _plain(name: str) -> str:
    """A URI without its query."""
    return name.partition("?")[0] if is_uri(name) else name


def _after(text: str, start: str) -> str:
    return text.removeprefix(f"{start}: ")


def _fixed(pattern: str) -> str:
    """The folder of a glob that has no magic in it."""
    parts = Path(pattern).parts
    plain = next((i for i, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    return os.path.join(*parts[:plain]) if plain else "."


def _globbed(pattern: str) -> Iterator[str]:
    yield from (path for path in in_order(glob.iglob(pattern, recursive=True)) if os.path.isfile(path))
