"""The parts of a recipe's JSON Schema that the registries know: filters with the settings of each backend, captioners.

An editor that is given the schema completes them; it is made from what is installed here, other packages' parts included.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, GetJsonSchemaHandler, create_model
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from longtake.captioning.registry import names, settings_model
from longtake.filters.registry import available, entry_models, filter_class


@dataclass(frozen=True, slots=True)
class FiltersSchema:
    """Annotates `filters`: each name has the settings of its backends, told apart by `backend`."""

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        entries = {name: _entry(name, handler) for name in available()}
        return {"type": "object", "properties": entries, "additionalProperties": _own_question(handler)}


def _own_question(handler: GetJsonSchemaHandler) -> JsonSchemaValue:
    """What holds for a filter that is none of those there are: it asks a question of the recipe's own."""
    model = filter_class("own", "ask").settings_model
    backend: Any = Literal["ask"]
    entry = create_model("own.ask", __base__=model, backend=(backend, ...), question=(str, ...))
    return handler(entry.__pydantic_core_schema__)


def _entry(name: str, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
    backends = []
    for number, (backend, model) in enumerate(entry_models(name).items()):
        default: Any = backend if number == 0 else ...  # The first backend need not be named.
        choice: Any = Literal[backend]  # Its value is known at run time only.
        entry = create_model(f"{name}.{backend}", __base__=model, backend=(choice, default))
        backends.append(handler(entry.__pydantic_core_schema__))
    return {"oneOf": backends} if len(backends) > 1 else {**backends[0]} if backends else {"type": "object"}


@dataclass(frozen=True, slots=True)
class TiersSchema:
    """Annotates `tiers`: gates are named after filters. longest: characters of the name of a tier."""

    longest: int

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler(core)
        # The schema knows the names of filters only, so an editor marks a gate on a question of the recipe as it marks
        # a slip.
        schema["additionalProperties"]["propertyNames"] = {"enum": list(available())}
        schema["minProperties"] = 1
        schema["propertyNames"] = {"maxLength": self.longest}
        return schema


class CaptioningSchema(BaseModel):
    """A base of the section on captions: which settings there are follows from the captioner."""

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler.resolve_ref_schema(handler(core))
        schema["properties"]["captioner"]["enum"] = names()
        default = cls.model_fields["captioner"].default
        schema["allOf"] = [_told(name, default, handler) for name in names()]
        return schema


def _told(name: str, default: str, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
    """What holds if the captioner is this one."""
    model = settings_model(name)
    settings = handler(model.__pydantic_core_schema__) if model else {"type": "object"}
    condition: dict[str, Any] = {"properties": {"captioner": {"const": name}}}
    if name != default:
        condition["required"] = ["captioner"]
    return {"if": condition, "then": {"properties": {"settings": settings}}}
