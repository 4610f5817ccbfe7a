"""What a caption must be before it is one: pure checks of texts, whoever wrote them.

Nothing here asks whether a caption is true; only whether it can be stored and trained on.
"""

from __future__ import annotations

import unicodedata
from enum import StrEnum

SUB_CAPTIONS = 5
MAX_SUB_CAPTION = 2000  # Characters. The text encoders of trainers read some 200 to 500 tokens.
MAX_CAPTION = 4000

# A text that was cut off ends like this. A missing full stop does not count: many corpora write none.
CUT_ENDINGS = ("...", "…", "[truncated]", "(truncated)", "\N{REPLACEMENT CHARACTER}")


class Status(StrEnum):
    """How captioning a clip ended. Only `ok` carries captions."""

    OK = "ok"
    TRUNCATED = "truncated"  # The text stops before its end.
    REFUSED = "refused"  # The model refused to write the caption.
    DUPLICATE = "duplicate"  # Sub-captions repeat each other.
    ERROR = "error"  # Any other failure: a text is missing or malformed, or a request failed.


class CaptionError(ValueError):
    """A clip has no usable captions; `status` says in which way, the message why. fault: the kind of the fault of the world
    that is to blame (docs/guide.md, Errors), None if it is the captions."""

    def __init__(self, reason: str, status: Status = Status.ERROR, fault: str | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.fault = fault


def check_captions(caption: object, sub_captions: object) -> tuple[str, tuple[str, ...]]:
    """The overall caption and the five sub-captions, cleaned. Raises CaptionError; the arguments can be anything."""
    overall = check_text(caption, "the overall caption", MAX_CAPTION)
    if not isinstance(sub_captions, list | tuple):
        what = "missing" if sub_captions is None else f"no list but {type(sub_captions).__name__}"
        raise CaptionError(f"{SUB_CAPTIONS} sub-captions are needed: they are {what}")
    if len(sub_captions) != SUB_CAPTIONS:
        raise CaptionError(f"{SUB_CAPTIONS} sub-captions are needed, not {len(sub_captions)}")
    texts = tuple(
        check_text(text, f"sub-caption {number}", MAX_SUB_CAPTION) for number, text in enumerate(sub_captions, 1)
    )
    check_distinct(texts)
    return overall, texts


def check_text(text: object, name: str, max_chars: int) -> str:
    """`text` with every run of white space (line ends and tabs too) as one space and none at its ends.

    name: what the text is, for the error. Raises CaptionError if it is no text, says nothing, is longer than
    `max_chars`, holds characters that are no text (NUL and other controls, lone surrogates), or was cut off.
    """
    if text is None:
        raise CaptionError(f"{name} is missing")
    if not isinstance(text, str):
        raise CaptionError(f"{name} is no text but {type(text).__name__}")
    # The length is checked first, since all further checks take time over a text of any length.
    if len(text) > max_chars:
        raise CaptionError(f"{name} has {len(text)} characters, over the limit of {max_chars}")
    # A surrogate cannot be written as UTF-8, NUL ends a string in C; dropping them would only hide a broken source.
    cleaned = " ".join(text.split())
    # Most texts are plain, and looking at each character takes long.
    plain = cleaned.isascii() and cleaned.isprintable()
    bad = None if plain else next((c for c in cleaned if unicodedata.category(c) in ("Cc", "Cs", "Cn")), None)
    if bad is not None:
        raise CaptionError(f"{name} holds the character U+{ord(bad):04X}, which is no text")
    if not any(c.isalnum() for c in cleaned):
        raise CaptionError(f"{name} is empty" if not cleaned else f"{name} holds no word")
    if cleaned.lower().endswith(CUT_ENDINGS):
        raise CaptionError(f"{name} was cut off: it ends in {cleaned[-12:]!r}", Status.TRUNCATED)
    return cleaned


def check_distinct(texts: tuple[str, ...]) -> None:
    """Raises CaptionError (duplicate) if two texts are the same but for case, punctuation and spacing."""
    seen: dict[str, int] = {}
    for number, text in enumerate(texts, 1):
        first = seen.setdefault(normalised(text), number)
        if first != number:
            raise CaptionError(f"sub-captions {first} and {number} are the same", Status.DUPLICATE)


def normalised(text: str) -> str:
    """`text` without case, punctuation, invisible characters and extra spaces, for comparing."""
    if text.isascii():  # This branch gives the same 20 times as fast; a corpus has millions of texts.
        return " ".join(text.lower().translate(_ASCII).split())
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join("".join(map(_kept, folded)).split())


def _kept(c: str) -> str:
    # By category and not by `isalnum`: the vowel signs of many scripts are marks, and they do make another word.
    kind = unicodedata.category(c)[0]
    return " " if kind in "PZ" or c.isspace() else "" if kind == "C" else c


_ASCII = {code: _kept(chr(code)) for code in range(128)}
