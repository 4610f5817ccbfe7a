"""A set of prompts: readable template files, named and versioned by their content."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from string import Template

from longtake.manifests.folder import in_words

# Each prompt's template → the names that can be filled into it.
FIELDS: dict[str, frozenset[str]] = {
    "system": frozenset({"language"}),
    "describe": frozenset({"number", "seconds", "camera", "low", "high"}),
    "overall": frozenset({"seconds", "camera", "keyframes", "low", "high"}),
    "refine": frozenset({"number", "seconds", "camera", "overall", "earlier", "keyframe", "low", "high"}),
    "differ": frozenset({"rejected"}),  # Added to refine.
    "mend": frozenset({"faults"}),  # Added to any prompt after an answer that could not be used.
    "writer": frozenset({"language"}),
    "watch": frozenset({"note_low", "note_high", "low", "high", "more", "seconds", "camera"}),
    "look": frozenset({"keys", "note_low", "note_high", "faults"}),  # Replaces watch where only notes are wanted again.
    "short": frozenset({"low", "high"}),  # Part of watch where the recipe asks for it, as are the next two.
    "long": frozenset({"low", "high"}),
    "facts": frozenset({"cameras", "sizes"}),
    "tell": frozenset({"low", "high", "seconds", "overall", "notes"}),
    "judge": frozenset({"questions"}),
    "questions": frozenset({"seconds", "keys"}),
    "again": frozenset(
        {"kept", "keys", "faults"}
    ),  # Added to `watch`, `tell` and `questions` after an answer of which a part could not be used.
}
# The prompts of each method: the system text first.
ROLES: dict[str, tuple[str, ...]] = {
    "joint": ("writer", "watch", "look", "short", "long", "facts", "tell", "again"),
    "ask": ("judge", "questions", "again"),  # Questions that are filters: they are no method of writing captions.
    "stepwise": ("system", "describe", "overall", "refine", "differ", "mend"),
}
DEFAULT = "longtake"
MAX_TEMPLATE = 20_000  # Characters of a template.


@dataclass(frozen=True)
class Prompts:
    """The templates of one set that a method uses. name: of the set; templates: by their role, see FIELDS; method: one of
    ROLES."""

    name: str
    templates: Mapping[str, str]
    method: str

    def __post_init__(self) -> None:
        for role, text in self.templates.items():
            if role not in FIELDS:
                raise ValueError(f"prompts: there is no prompt {role!r}; there are: {', '.join(FIELDS)}")
            if not isinstance(text, str) or not text.strip() or len(text) > MAX_TEMPLATE:
                raise ValueError(f"prompts: {role} must be a text of 1 to {MAX_TEMPLATE} characters")
            template = Template(text)
            if not template.is_valid():
                raise ValueError(f"prompts: {role}: a $ that begins no name; write $$ for the sign itself")
            if unknown := sorted(set(template.get_identifiers()) - FIELDS[role]):
                known = ", ".join(f"${name}" for name in sorted(FIELDS[role]))
                raise ValueError(f"prompts: {role} asks for ${unknown[0]}; it can have: {known}")
        if missing := sorted(set(ROLES[self.method]) - set(self.templates)):
            raise ValueError(f"prompts: {self.name} lacks {missing[0]}.txt")

    @property
    def system(self) -> str:
        """The role of the text that every question begins with."""
        return ROLES[self.method][0]

    @cached_property
    def version(self) -> str:
        """`name@digest`: the first 8 digits of the SHA-256 over all templates."""
        digest = hashlib.sha256()
        for role in sorted(self.templates):
            digest.update(f"{role}\0{self.templates[role].strip()}\0".encode())
        return f"{self.name}@{digest.hexdigest()[:8]}"

    def fill(self, role: str, **values: object) -> str:
        """A prompt, filled in. Values are not looked into: a `$` in one stays a `$`."""
        return Template(self.templates[role].strip()).substitute({name: str(value) for name, value in values.items()})


def load_prompts(chosen: str | Mapping[str, str], method: str) -> Prompts:
    """A set that ships, by its name; a folder of `ROLE.txt` files, where a missing one is that of `longtake`; or single
    templates by role, in place of those, and a `name` for them. Raises ValueError, also where nothing of what was chosen is a
    prompt of the method."""
    folder = Path(str(files("longtake.captioning") / "prompts"))
    default = _of_method(_read(folder / DEFAULT), method)
    if not isinstance(chosen, str):
        own = dict(chosen)
        name = own.pop("name", "recipe" if own else DEFAULT)
        if unused := [role for role in own if role in FIELDS and role not in ROLES[method]]:
            raise ValueError(
                f"prompts: the method {method} has no prompt {unused[0]!r}; it has: {', '.join(ROLES[method])}"
            )
        return Prompts(name, {**default, **own}, method)
    if chosen.isidentifier() and (folder / chosen).is_dir() and not chosen.startswith("_"):
        return Prompts(chosen, _of_method(_read(folder / chosen), method), method)
    path = Path(chosen)
    templates = _read(path) if path.is_dir() else {}
    if not templates:
        shipped = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("_"))
        raise ValueError(
            f"prompts: {chosen!r} is neither a set that ships ({', '.join(shipped)}) nor a folder with files such as "
            f"{ROLES[method][-2]}.txt"
        )
    if not set(templates) & set(ROLES[method]) and set(templates) <= set(FIELDS):
        raise ValueError(
            f"prompts: {chosen!r} holds no prompt of the method {method} ({', '.join(ROLES[method])}); set method to the "
            "one that they were written for"
        )
    return Prompts(path.resolve().name, {**default, **_of_method(templates, method)}, method)


def _of_method(templates: Mapping[str, str], method: str) -> dict[str, str]:
    """Without the prompts of other methods, which a folder may hold as well."""
    return {role: text for role, text in templates.items() if role not in FIELDS or role in ROLES[method]}


def _read(folder: Path) -> dict[str, str]:
    try:
        return {path.stem: _text_of(path) for path in sorted(folder.glob("*.txt"))}
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"prompts: {folder} cannot be read: {in_words(error)}") from error


def _text_of(path: Path) -> str:
    """A template. What it says is sent to a model, and a recipe may come from a stranger: so no other file under a
    template's name."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ValueError(f"prompts: {path} is a link; a prompt is read from a file of its own") from None
        raise
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"prompts: {path} is no plain file")
        # A character takes up to four bytes. A file that is too long for a template is refused by its size.
        return file.read(4 * MAX_TEMPLATE + 4).decode("utf-8")
