"""What a served model would have to compute: prompt tokens, and how many of them a cache of prefixes has already.

Counted as vLLM counts with prefix caching on and room enough: a prompt is cut into blocks of 16 tokens, a block is known if
it and all blocks before it were seen in one prompt. A picture has 650 tokens. A text has one token for every mark and for
every six letters of a word: on this project's prompts that is 6 % more than the tokenizer of MiniLM finds.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

PICTURE = 650
BLOCK = 16
FRAME = 4  # Tokens around each of the two messages.

_TOKEN = re.compile(r"\w{1,6}|[^\w\s]")


def tokens_of(text: str) -> list[str]:
    """The tokens of a text."""
    return _TOKEN.findall(text)


class PrefixCache:
    """Prompts that came in, and what of them was known. Any one thread may use it."""

    def __init__(self) -> None:
        self.requests = self.prompt_tokens = self.cached_tokens = 0
        self._known: set[bytes] = set()

    def take(self, system: str, images: Sequence[bytes], text: str) -> tuple[int, int]:
        """The tokens of a prompt, and how many of them are cached."""
        tokens = ["<system>"] * FRAME + tokens_of(system) + ["<user>"] * FRAME
        for image in images:
            digest = hashlib.sha256(image).hexdigest()
            tokens += [f"{digest}/{i}" for i in range(PICTURE)]
        tokens += tokens_of(text)
        state, cached, whole = b"", 0, True
        for start in range(0, len(tokens) - BLOCK + 1, BLOCK):
            state = hashlib.sha256(state + "\0".join(tokens[start : start + BLOCK]).encode()).digest()
            whole = whole and state in self._known
            cached += BLOCK * whole
            self._known.add(state)
        self.requests += 1
        self.prompt_tokens += len(tokens)
        self.cached_tokens += cached
        return len(tokens), cached
