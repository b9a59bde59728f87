"""Passwords do not belong into what people read: errors, logs, terminals."""

from __future__ import annotations

import re

_IN_URL = re.compile(r"(?<=://)[^\s'\"<>]*@")  # to the last @: a password may have any character
_NAMED = re.compile(
    r"(?i)\b(password|passwd|pwd|secret\w*|access_key\w*|session_token|token|signature|x-amz-\w+)=[^\s&'\",;]+"
)


def discreet(text: str) -> str:
    """The text with ``***`` for whatever stands where a URL has user and password, or after ``password=``."""
    if "://" in text:
        text = _IN_URL.sub("***@", text)
    return _NAMED.sub(r"\1=***", text) if "=" in text else text


def discreet_url(text: str) -> str:
    """What somebody has given for a URL, which may lack its beginning."""
    scheme, there, rest = text.rpartition("://")
    return f"{scheme}{there}***@{rest.rpartition('@')[2]}" if "@" in rest else text
