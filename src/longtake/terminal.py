"""What reaches a terminal is made printable: file names, captions, servers' messages and errors come from strangers, and a
terminal obeys what it is sent (a name can change its title, its colours, the lines above, the order of letters).

`printable` is the one function that does it. Callers cannot forget it: the standard streams of both programs are wrapped in
`PrintableStream`, and longtake's console makes the text of everything that it draws printable.
"""

from __future__ import annotations

import errno
import os
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

ENVIRONMENT = 3  # The exit code of both programs where this machine cannot do it.
# Numbers of errors that a write to a stream that is a file fails with.
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS})
# Joiners that scripts and emoji need; they show nothing by themselves and move nothing.
_JOINERS = {0x200C, 0x200D}


class _Shown(dict[int, int]):
    """Code point → what is shown for it, worked out when it is first seen."""

    def __missing__(self, code: int) -> int:
        character = chr(code)
        if character.isprintable() or code in _JOINERS or unicodedata.category(character) == "Zs":
            shown = code
        elif code < 0x20:
            shown = 0x2400 + code  # Unicode has a picture for each control character, such as ␛.
        else:
            shown = (
                0x2421 if code == 0x7F else 0xFFFD
                # ␡ stands for delete; � for C1, bidi controls, half surrogate pairs and characters that are not assigned.
            )
        self[code] = shown
        return shown


_WORD = _Shown()
_LINES = _Shown({0x0A: 0x0A, 0x09: 0x09})


def printable(text: str, *, lines: bool = False) -> str:
    """`text` with a visible character, one column wide, in place of each that is none: control characters (and with them
    every escape sequence), bidi controls, half surrogate pairs. lines: line ends and tabs stay, in a text of our own."""
    return text if text.isprintable() else text.translate(_LINES if lines else _WORD)


class PrintableStream:
    """A text stream on which everything that is written is made printable. What draws with escape sequences of its own, and
    makes text printable itself, takes `rich_proxied_file` (so rich calls it), the stream below."""

    def __init__(self, stream: TextIO) -> None:
        self.rich_proxied_file = stream

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError("a text stream takes texts")
        self.rich_proxied_file.write(printable(text, lines=True))
        return len(text)

    def writelines(self, texts: Any) -> None:
        for text in texts:
            self.write(text)

    def __getattr__(self, name: str) -> Any:
        if name == "buffer":  # The `buffer` would let bytes past.
            raise AttributeError(name)
        return getattr(self.rich_proxied_file, name)


def make_ready() -> None:
    """Make the standard streams of this process fit to be written to, whatever the caller made of them.

    A stream that is closed (`>&-`) becomes the null device: the next file that is opened would get its number, and text for
    people would be written into it. A character that the encoding of a stream lacks is written as its escape.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # It gets the lowest number that is free.
    if sys.stdin is None:  # A question then finds no answer, as with an empty input.
        sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, os.fdopen(number, "w", encoding="utf-8", errors="backslashreplace", closefd=False))
        elif stream.encoding.lower().replace("-", "") != "utf8":
            stream.reconfigure(errors="backslashreplace")


def unwritable(error: OSError) -> str | None:
    """What to say of a standard stream that took no more text; None: the error is of something else. Errors of our own files
    name the file."""
    if error.filename is None and error.errno in _NO_ROOM:
        return f"the output of this command cannot be written: {os.strerror(error.errno)}"
    return None


def check_names() -> None:
    """End this process with a message where names of files are not read as UTF-8, as everything here stores them: most would
    be taken for other names."""
    if (encoding := sys.getfilesystemencoding()) != "utf-8":
        sys.stderr.write(
            f"error: names of files are read as {encoding} here, and longtake stores them as UTF-8. Set LANG=C.UTF-8 or "
            "PYTHONUTF8=1, and run the same command again\n"
        )
        raise SystemExit(ENVIRONMENT)


def wrap_streams() -> None:
    """Wrap the standard streams of this process, for good: tracebacks and warnings at its end are printed so, too."""
    if not isinstance(sys.stdout, PrintableStream):
        sys.stdout = PrintableStream(sys.stdout)
    if not isinstance(sys.stderr, PrintableStream):
        sys.stderr = PrintableStream(sys.stderr)


@contextmanager
def wrapped_streams() -> Iterator[None]:
    """The same within a block."""
    before = sys.stdout, sys.stderr
    wrap_streams()
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def below(stream: Any) -> Any:
    """The stream under all wrappers, rich's own included."""
    while (inner := getattr(stream, "rich_proxied_file", None)) is not None:
        stream = inner
    return stream


def write_data(text: str) -> None:
    """Write data to standard output: as it is into a file or a pipe, printable on a terminal."""
    stream = below(sys.stdout)
    stream.write(printable(text, lines=True) if stream.isatty() else text)
