"""Text that strangers write: names of tensors and files, messages of servers, lines of logs.

A terminal obeys control characters, and characters for bidirectional text make a line read as something else.
"""

from __future__ import annotations

import unicodedata

_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Categories of Unicode: controls, formats (bidirectional, zero-width), surrogates, separators of lines."""
_BLANK = frozenset("\u115f\u1160\u2800\u3164\uffa0")
"""Letters and symbols that look like nothing."""


def hidden(character: str) -> bool:
    """Whether a reader does not see it, or a terminal obeys it."""
    return unicodedata.category(character) in _HIDDEN or character in _BLANK


def plain(text: str) -> bool:
    """Whether it shows all that it is."""
    return (text.isascii() and text.isprintable()) or not any(map(hidden, text))


def visible(text: str, keep: str = "") -> str:
    r"""With ``\x1b`` and ``\u202e`` in place of what is hidden, but for the characters to ``keep``."""
    if plain(text):
        return text
    return "".join(_escaped(each) if hidden(each) and each not in keep else each for each in text)


def plain_name(text: str) -> str:
    """A name that a person chooses. Raises ValueError."""
    if not plain(text):
        raise ValueError(f"a name must not have characters that cannot be seen: {visible(text)[:80]!r}")
    return text


def _escaped(character: str) -> str:
    number = ord(character)
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
