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

# Each prompt's template, and what can be filled into it.
FIELDS: dict[str, frozenset[str]] = {
    "system": frozenset({"language"}),
    "describe": frozenset({"number", "seconds", "camera", "low", "high"}),
    "overall": frozenset({"seconds", "camera", "keyframes", "low", "high"}),
    "refine": frozenset({"number", "seconds", "camera", "overall", "earlier", "keyframe", "low", "high"}),
    "differ": frozenset({"rejected"}),  # added to refine
    "mend": frozenset({"faults"}),  # added to any, after an answer that could not be used
}
DEFAULT = "longtake"
MAX_TEMPLATE = 20_000  # characters


@dataclass(frozen=True)
class Prompts:
    """The templates of one set. name: of the set; templates: by their role, see FIELDS."""

    name: str
    templates: Mapping[str, str]

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
        if missing := sorted(set(FIELDS) - set(self.templates)):
            raise ValueError(f"prompts: {self.name} lacks {missing[0]}.txt")

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


def load_prompts(chosen: str | Mapping[str, str]) -> Prompts:
    """A set that ships, by its name; a folder of `ROLE.txt` files, where a missing one is that of `longtake`; or single
    templates by role, in place of those, and a `name` for them. Raises ValueError."""
    folder = Path(str(files("longtake.captioning") / "prompts"))
    default = _read(folder / DEFAULT)
    if not isinstance(chosen, str):
        own = dict(chosen)
        name = own.pop("name", "recipe" if own else DEFAULT)
        return Prompts(name, {**default, **own})
    if chosen.isidentifier() and (folder / chosen).is_dir() and not chosen.startswith("_"):
        return Prompts(chosen, _read(folder / chosen))
    path = Path(chosen)
    found = _read(path) if path.is_dir() else {}
    if not found:
        shipped = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("_"))
        raise ValueError(
            f"prompts: {chosen!r} is neither a set that ships ({', '.join(shipped)}) nor a folder with files such as "
            "refine.txt"
        )
    return Prompts(path.resolve().name, {**default, **found})


def _read(folder: Path) -> dict[str, str]:
    try:
        return {path.stem: _text_of(path) for path in sorted(folder.glob("*.txt"))}
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"prompts: {folder} cannot be read: {error}") from error


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
        # Up to four bytes a character; one that is too long for a template is refused by its length.
        return file.read(4 * MAX_TEMPLATE + 4).decode("utf-8")
