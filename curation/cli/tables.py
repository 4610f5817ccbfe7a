"""Tables on a terminal of any width, in a log and on a phone: numbers stay on one line, whatever the width."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table

from longtake.curation.cli.app import outside

_NUMBER = re.compile(r"[+−-]?[\d.,]+(?:e[+-]?\d+)?(?: ?[%h])?|–|[+-]?inf|nan")
_LONGEST_WORD = 16  # Columns. A column of text is as wide as its longest word, but for words that are longer than this.
_SHORT = 12  # Columns. Shorter texts among numbers, such as "not known", do not make a column one of text.
_GAP = 2  # Columns between two columns.


def text_of(cell: object) -> str:
    """A cell as it is shown."""
    if cell is None:
        return "–"
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)


def print_table(
    console: Console, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], left: int = 1
) -> None:
    """Print a table with a line below it. left: how many columns are aligned to the left. Where it is wider than the console,
    heads are broken between words, then columns of text are folded; a column of numbers never is, nor the first one. Where
    even that is too wide, each row becomes a few lines."""
    cells = [[outside(text_of(cell)) for cell in row] for row in rows]
    folds = [i > 0 and _is_text([row[i] for row in cells]) for i in range(len(columns))]
    widths = [max((len(row[i]) for row in cells), default=0) for i in range(len(columns))]
    heads = list(columns)
    if _total([max(width, len(head)) for width, head in zip(widths, heads, strict=True)]) > console.width:
        heads = [head.replace(" ", "\n") for head in heads]
    least = [
        max(_longest([head]), min(_longest(row[i] for row in cells), _LONGEST_WORD) if folds[i] else widths[i])
        for i, head in enumerate(heads)
    ]
    if _total(least) > console.width:
        _print_records(console, title, columns, cells)
        return
    table = Table(title=title, title_justify="left", title_style="bold", header_style="bold", box=None, pad_edge=False)
    for i, head in enumerate(heads):
        table.add_column(
            head, justify="left" if i < left else "right", overflow="fold", no_wrap=not folds[i], min_width=least[i]
        )
    for row in cells:
        table.add_row(*row)
    console.print(table, "")


def _is_text(cells: Sequence[str]) -> bool:
    texts = [cell for cell in cells if not _NUMBER.fullmatch(cell)]
    return len(texts) == len(cells) or any(len(text) > _SHORT for text in texts)


def _longest(texts: Iterable[str]) -> int:
    """The length of the longest word."""
    return max((len(word) for text in texts for word in text.split()), default=0)


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + _GAP * (len(widths) - 1)


def _print_records(console: Console, title: str, columns: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    """Each row as its first cell, and below it the others with their heads, as many on a line as there is room for."""
    console.print(f"[bold]{title}[/]")
    for first, *others in cells:
        console.print(first, soft_wrap=True)
        line = ""
        for head, cell in zip(columns[1:], others, strict=True):
            pair = f"{head} {cell}"
            if line and len(line) + len(pair) + 4 > console.width:
                console.print(f"  {line}", soft_wrap=True)
                line = ""
            line += f"{', ' if line else ''}{pair}"
        console.print(f"  {line}", soft_wrap=True)
    console.print()
