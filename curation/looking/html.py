"""HTML from Jinja templates. Each lies beside the module that fills it, and escapes whatever it is given.

A template prints somebody else's text with `shown`, which cuts it, inside of <bdi> or dir="auto", so that it cannot turn
the text around it. Characters that a page must not hold are replaced in everything that a template prints.
"""

from __future__ import annotations

import base64
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment

# Characters. A text that has no limit of its own is cut to so many, lest it push the rest of its page away.
LONGEST = 600
# Control characters other than the tab and the line break, and halves of surrogate pairs, which UTF-8 cannot hold.
_UNPRINTABLE = dict.fromkeys((*range(9), *range(11, 32), *range(127, 160), *range(55296, 57344)), "�")


def render(template: str, **values: object) -> str:
    """The page or part of a page that a template makes of these values. template: its path below this folder."""
    return _environment().get_template(template).render(values)


@cache
def _environment() -> Environment:
    # Jinja is imported with the first page: the studio looks clips up by the report's modules and makes no page.
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("longtake.curation.looking", "."),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=printable,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(shown=shown, number=number, jpeg_uri=jpeg_uri)
    return environment


def printable(value: object) -> object:
    """A value without characters that a page must not hold; HTML that a macro made stays as it is."""
    return value if hasattr(value, "__html__") else str(value).translate(_UNPRINTABLE)


def shown(text: object, most: int = LONGEST) -> str:
    """A text, cut where it has more than `most` characters."""
    whole = str(text)
    return whole if len(whole) <= most else f"{whole[:most]}… ({len(whole):,} characters)"


def number(value: float, spec: str) -> str:
    """A number in the notation that Python's `format` calls `spec`."""
    return format(value, spec)


def jpeg_uri(jpeg: bytes) -> str:
    """A picture as an address that needs no file."""
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode('ascii')}"
