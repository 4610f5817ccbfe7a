"""Settings that are models: what a model allows, and what is wrong with given settings, in words.

Filters, captioners and recipes all have pydantic models; this module is what their messages, the JSON Schema and the page
of the filters have in common. pydantic says what is wrong of a value; here it is said what would be right.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.errors import PydanticInvalidForJsonSchema

_LONGEST = 60  # Characters of a wrong value that a message repeats: enough to find it again.
_NO_TEXT = "; put a text in quotes that YAML takes for something else, such as 'no' or '2024'"
_SCALARS = (bool, int, float, date)
_PLAIN_TYPES = {"dict_type": "a mapping", "list_type": "a list", "string_type": "a text"}
_OWN_WORDS = ("value_error", "assertion_error")  # A validator of the model says itself what is wrong.

Model = TypeVar("Model", bound=BaseModel)
Schema = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong. where: the keys and list positions that lead to it; empty for the whole."""

    where: tuple[str | int, ...]
    what: str

    @property
    def path(self) -> str:
        """The keys, with dots between them."""
        return ".".join(map(str, self.where))

    def __str__(self) -> str:
        return f"{self.path}: {self.what}" if self.where else self.what


class SettingsError(ValueError):
    """Settings that a model refuses; the message tells every fault."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("; ".join(map(str, faults)))
        self.faults = tuple(faults)


def checked(model: type[Model], given: Mapping[str, Any], *, quote: bool = True) -> Model:
    """The settings as the model. quote: see `faults_of`. Raises SettingsError with every fault."""
    try:
        return model.model_validate(dict(given))
    except ValidationError as error:
        raise SettingsError(faults_of(error, model, quote=quote)) from None


def faults_of(
    error: ValidationError, model: type[BaseModel], *, noun: str = "setting", quote: bool = True
) -> list[Fault]:
    """What pydantic found, in words. noun: what a key of the model is called. quote: repeat wrong values; not where one of
    them may be a secret in the wrong place."""
    root = schema_of(model)
    faults: dict[tuple[tuple[str | int, ...], str], Fault] = {}
    for fault in error.errors(include_url=False, include_context=False):
        where, schema = _follow(root, fault["loc"])
        if fault["type"] == "extra_forbidden":
            *above, key = fault["loc"]
            where = (*_follow(root, above)[0], key)
            what = f"unknown {noun}{near(str(key), _keys(root, above))}"
        elif fault["loc"] and fault["loc"][-1] == "[key]":
            where = (*where[:-1], quoted(fault["input"]))  # In its place, pydantic makes a number of the key false.
            what = f"a key must be a text{_NO_TEXT}"
        elif fault["type"] == "missing":
            what = f"must be given ({_allowed(schema, root)})"
        elif fault["type"] in _OWN_WORDS or not (right := _allowed(schema, root) or _PLAIN_TYPES.get(fault["type"])):
            what = fault["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
        else:
            what = f"must be {right}"
            if quote:
                what += f", not {quoted(fault['input'])}{_near_choice(fault['input'], schema, root)}"
                # Where a value may have another type as well, quotes are not what it lacks.
                lacks_quotes = right.startswith("a text") and not right.startswith("a text or ")
                what += _NO_TEXT if lacks_quotes and isinstance(fault["input"], _SCALARS) else ""
        faults.setdefault((where, what), Fault(where, what))
    # For a value that may have several types, pydantic reports the fault of each type. The fault that lies deepest is
    # shown.
    deeper = {fault.where[:length] for fault in faults.values() for length in range(1, len(fault.where))}
    return [fault for fault in faults.values() if fault.where not in deeper or not fault.where]


def one_of(names: Iterable[str]) -> str:
    """Choices as a sentence lists them: 'a', 'a or b', 'one of a, b or c'."""
    names = list(names)
    return f"one of {_listed(names)}" if len(names) > 2 else _listed(names)


def near(word: object, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: the known one that it resembles, else all there are."""
    known = list(known)
    close = _closest(word, known)
    return f"; did you mean {close!r}?" if close else f"; there are: {', '.join(known) or 'none'}"


def closest(word: object, known: Iterable[str]) -> str | None:
    """The known name that a word resembles, if any does."""
    return _closest(word, list(known))


def _closest(word: object, known: Sequence[str]) -> str | None:
    # Long texts are no misspelt names, and to compare them takes long.
    if not isinstance(word, str) or len(word) > _LONGEST:
        return None
    return next(iter(difflib.get_close_matches(word, known, 1)), None)


def quoted(value: object) -> str:
    """A wrong value as a message repeats it: as YAML has it, and short."""
    if isinstance(value, dict | list | tuple | set):
        return "a mapping" if isinstance(value, dict) else "a list"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    try:
        text = repr(value)
    except ValueError:  # Python refuses to write out a number of more than 4300 digits.
        return "a number with thousands of digits"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


# ── what a model allows ──────────────────────────────────────────────────────────────────────────────────────────────


@cache
def schema_of(model: type[BaseModel]) -> Schema:
    """The JSON Schema of a model; empty for one that cannot be described."""
    try:
        return model.model_json_schema()
    except PydanticInvalidForJsonSchema:
        return {}


@dataclass(frozen=True, slots=True)
class Described:
    """A setting, for a page. allowed: its type, its range or its choices, in words. default: as JSON, or `required`."""

    name: str
    allowed: str
    default: str
    meaning: str


def described(model: type[BaseModel]) -> list[Described]:
    """The settings of a model, in its order."""
    root = schema_of(model)
    required = root.get("required", [])
    return [
        Described(
            name,
            _allowed(schema, root),
            "required" if name in required else json.dumps(schema.get("default"), ensure_ascii=False).strip('"'),
            schema.get("description", ""),
        )
        for name, schema in root.get("properties", {}).items()
    ]


def _alternatives(schema: Schema, root: Schema) -> list[Schema]:
    """A schema without references, one for each thing that it may be."""
    if (reference := schema.get("$ref")) is not None:
        return _alternatives(root.get("$defs", {}).get(reference.rpartition("/")[2], {}), root)
    several = schema.get("anyOf") or schema.get("oneOf")
    return [each for one in several for each in _alternatives(one, root)] if several else [schema]


def _follow(root: Schema, loc: Sequence[str | int]) -> tuple[tuple[str | int, ...], Schema]:
    """A place without the parts that are no keys, and the schema there; {} where the schema does not go so far."""
    where: list[str | int] = []
    schema = root
    parts = iter(loc)
    for part in parts:
        if _several_types(schema, root):  # Then pydantic names which of them it tried, and goes on below that.
            part = next(parts, "[key]")
        if part == "[key]":  # So it ends where a key is wrong.
            break
        where.append(part)
        schema = _below(schema, part, root) or {}
    return tuple(where), schema


def _several_types(schema: Schema, root: Schema) -> bool:
    """Whether a value may be of several types, null aside."""
    return "anyOf" in schema and sum(one.get("type") != "null" for one in _alternatives(schema, root)) > 1


def _below(schema: Schema, part: str | int, root: Schema) -> Schema | None:
    for one in _alternatives(schema, root):
        if part in one.get("properties", {}):
            below: Schema = one["properties"][part]
            return below
        places = one.get("prefixItems", [])
        if isinstance(part, int) and 0 <= part < len(places):
            return places[part]  # type: ignore[no-any-return]
        rest = one.get("items" if isinstance(part, int) and one.get("type") == "array" else "additionalProperties")
        if isinstance(rest, dict):
            return rest
    return None


def _keys(root: Schema, where: Sequence[str | int]) -> list[str]:
    """The keys that there are at a place."""
    _, schema = _follow(root, where)
    return [key for one in _alternatives(schema, root) for key in one.get("properties", {})]


def _choices(schema: Schema, root: Schema) -> list[str]:
    """The texts that a value may be one of."""
    values = [value for one in _alternatives(schema, root) for value in one.get("enum", [one.get("const")])]
    return [value for value in values if isinstance(value, str)]


def _near_choice(value: object, schema: Schema, root: Schema) -> str:
    close = _closest(value, _choices(schema, root))
    return f"; did you mean {close!r}?" if close else ""


def _allowed(schema: Schema, root: Schema) -> str:
    """What a schema allows, as in 'a whole number from 1, or null'; '' where that is not known."""
    words = [_in_words(one) for one in _alternatives(schema, root)]
    nothing = "null" in words
    words = list(dict.fromkeys(word for word in words if word != "null"))
    if "" in words:
        return ""
    text = _listed(words)
    return f"{text}, or null" if nothing else text


def _in_words(schema: Schema) -> str:
    if "const" in schema or "enum" in schema:
        values = schema.get("enum", [schema.get("const")])
        texts = [value if isinstance(value, str) else json.dumps(value) for value in values]
        return one_of(texts)
    match schema.get("type"):
        case "integer":
            return f"a whole number{_range(schema)}"
        case "number":
            return f"a number{_range(schema)}"
        case "string":
            such = f" such as {schema['examples'][0]!r}" if schema.get("examples") else ""
            if "pattern" not in schema:
                return f"a text{such}"
            return f"a text{such or ' like ' + schema['pattern']} ({schema.get('description', schema['pattern'])})"
        case "boolean":
            return "true or false"
        case "null":
            return "null"
        case "array":
            places = len(schema.get("prefixItems", []))
            return f"a list of {places} values" if places else "a list"
        case "object":
            return "a mapping"
    return ""


def _range(schema: Schema) -> str:
    """The bounds of a number, as in ' above 0 and up to 1'."""
    low, high = "", ""
    if "minimum" in schema:
        low = f" from {schema['minimum']:g}"
    elif "exclusiveMinimum" in schema:
        low = f" above {schema['exclusiveMinimum']:g}"
    if "maximum" in schema:
        high = f" to {schema['maximum']:g}" if "minimum" in schema else f" up to {schema['maximum']:g}"
    elif "exclusiveMaximum" in schema:
        high = f" below {schema['exclusiveMaximum']:g}"
    joint = " and" if low and high and "minimum" not in schema else ""
    return f"{low}{joint}{high}"


def _listed(words: Sequence[str]) -> str:
    """Words as a sentence lists them: 'a, b or c'."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}" if words else ""
