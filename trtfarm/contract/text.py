"""Text that strangers write: names of tensors and files, messages of servers, lines of logs.

A terminal obeys control characters, and characters for bidirectional text make a line read as something else.
"""

from __future__ import annotations

import re

_HIDDEN = re.compile(
    "["
    "\\x00-\\x1f\\x7f-\\x9f"  # controls: C0, DEL, C1
    "\\u00ad\\u0600-\\u0605\\u061c\\u06dd\\u070f\\u0890\\u0891\\u08e2\\u180e"  # formats, among them:
    "\\u200b-\\u200f\\u202a-\\u202e\\u2060-\\u206f\\ufeff\\ufff9-\\ufffb"  # zero-width, bidirectional
    "\\U000110bd\\U000110cd\\U00013430-\\U0001343f\\U0001bca0-\\U0001bca3\\U0001d173-\\U0001d17a"
    "\\U000e0000-\\U000e007f"  # tags
    "\\u2028\\u2029"  # separators of lines and paragraphs
    "\\ud800-\\udfff"  # surrogates
    "\\u115f\\u1160\\u2800\\u3164\\uffa0"  # letters and symbols that look like nothing
    "]"
)


def plain(text: str) -> bool:
    """Whether it shows all that it is, and has nothing that a terminal obeys."""
    return not _HIDDEN.search(text)


def visible(text: str, keep: str = "") -> str:
    r"""With ``\x1b`` and ``\u202e`` in place of what is hidden, but for the characters to ``keep``."""
    return _HIDDEN.sub(lambda found: found[0] if found[0] in keep else _escaped(found[0]), text)


def visible_in_json(text: str) -> str:
    """The same of a JSON document, in its own escapes: outside of strings, it hides nothing but lines."""
    return _HIDDEN.sub(lambda found: found[0] if found[0] == "\n" else _json_escaped(found[0]), text)


def plain_name(text: str) -> str:
    """A name that a person chooses. Raises ValueError."""
    if not plain(text):
        raise ValueError(f"a name must not have characters that cannot be seen: {visible(text[:80])}")
    return text


def _escaped(character: str) -> str:
    number = ord(character)
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def _json_escaped(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))
