"""YAML that remembers its lines: a document as plain data, and in which line each key stands.

`yaml.safe_load` takes the last of two equal keys in silence, and 010 for 8; here they are noted. Otherwise the data is what it
would give: no tags but YAML's own, anchors and merge keys (`<<`) as usual.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import yaml

from longtake.settings import Fault

_OCTAL = re.compile(r"[-+]?0[0-7_]+")


class Lines:
    """Where the keys of a document stand. faults: keys that one mapping has more than once, and numbers that begin with 0."""

    def __init__(self, root: yaml.Node | None) -> None:
        self._root = root
        self.faults: list[Fault] = []

    def line(self, where: Sequence[str | int]) -> int | None:
        """The line, from 1, of the key that `where` leads to; of the last key on the way, if it is not there itself; None
        before the first."""
        node, line = self._root, None
        for part in where:
            step = _step(node, part)
            if step is None:
                break
            line, node = step
        return line


def read_yaml(content: bytes) -> tuple[object, Lines]:
    """The data of a document and its lines. Raises yaml.YAMLError, ValueError (also for what is not UTF-8), RecursionError."""
    loader = yaml.SafeLoader(content.decode("utf-8"))
    try:
        root = loader.get_single_node()
        lines = Lines(root)
        if root is None:
            return None, lines
        lines.faults = list(_faults(root))
        # After this call, a mapping holds the keys that it merges from others before its own keys.
        return loader.construct_document(root), lines
    finally:
        loader.dispose()


def _step(node: yaml.Node | None, part: str | int) -> tuple[int, yaml.Node] | None:
    """One part further: the line of the key or the item, and what is there."""
    if isinstance(node, yaml.MappingNode):
        for key, value in reversed(node.value):  # A mapping's own keys come last, and win.
            if isinstance(key, yaml.ScalarNode) and key.value == str(part):
                return key.start_mark.line + 1, value
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part].start_mark.line + 1, node.value[part]
    return None


def _faults(root: yaml.Node) -> Iterator[Fault]:
    """The keys that a mapping has more than once, and octal numbers. Each mapping is looked at once, however many anchors lead to
    it."""
    left: list[tuple[tuple[str | int, ...], yaml.Node]] = [((), root)]
    seen: set[int] = set()
    while left:
        where, node = left.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        below: list[tuple[tuple[str | int, ...], yaml.Node]] = []
        if node.tag == "tag:yaml.org,2002:int" and _OCTAL.fullmatch(node.value):
            yield Fault(
                where, f"YAML reads {node.value} as {int(node.value.replace('_', ''), 8)}: leave out the first 0"
            )
        if isinstance(node, yaml.SequenceNode):
            below = [((*where, index), item) for index, item in enumerate(node.value)]
        lines: dict[tuple[str, str], list[int]] = {}
        for key, value in node.value if isinstance(node, yaml.MappingNode) else []:
            if isinstance(key, yaml.ScalarNode):
                lines.setdefault((key.tag, key.value), []).append(key.start_mark.line + 1)
                below.append(((*where, key.value), value))
        left += reversed(below)  # An anchor is looked at before what repeats it.
        for (_, name), at in lines.items():
            if len(at) > 1:
                numbers = f"{', '.join(map(str, at[:-1]))} and {at[-1]}"
                yield Fault((*where, name), f"this key is given more than once, in the lines {numbers}: leave one")
