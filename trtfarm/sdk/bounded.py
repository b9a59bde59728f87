"""Answers of a size that this machine can take, whatever the other side sends."""

from __future__ import annotations

from collections.abc import Iterator

import httpx

from trtfarm.errors import AnswerTooLargeError

MOST_LINE_BYTES = 16 * 2**20
_OF_THE_BODY = frozenset({b"content-encoding", b"content-length", b"transfer-encoding"})


class Whole:
    """An answer that is read whole, up to ``most_bytes``, once it is unpacked."""

    def __init__(self, response: httpx.Response, most_bytes: int) -> None:
        """Raises AnswerTooLargeError: by what it announces."""
        self._response = response
        self._most_bytes = most_bytes
        self._data = bytearray()
        announced = response.headers.get("Content-Length", "")
        if announced.isdecimal() and int(announced) > most_bytes:
            raise self._too_large()

    def add(self, data: bytes) -> None:
        """Raises AnswerTooLargeError."""
        self._data += data
        if len(self._data) > self._most_bytes:
            raise self._too_large()

    def response(self) -> httpx.Response:
        given = self._response
        return httpx.Response(
            given.status_code,
            headers=[each for each in given.headers.raw if each[0].lower() not in _OF_THE_BODY],
            content=bytes(self._data),
            request=given.request,
        )

    def _too_large(self) -> AnswerTooLargeError:
        return too_large(f"The answer of {self._response.request.url.path}", self._most_bytes)


class Lines:
    """Bytes, as they arrive, as lines of text, each of ``most_bytes`` at most."""

    def __init__(self, most_bytes: int = MOST_LINE_BYTES) -> None:
        self._most_bytes = most_bytes
        self._rest = bytearray()

    def add(self, data: bytes) -> Iterator[str]:
        """Those that have ended. Raises AnswerTooLargeError."""
        *ended, rest = data.split(b"\n")
        for each in ended:
            self._append(each)
            line = bytes(self._rest).removesuffix(b"\r")
            self._rest.clear()
            yield line.decode("utf-8", "replace")
        self._append(rest)

    def _append(self, data: bytes) -> None:
        self._rest += data
        if len(self._rest) > self._most_bytes:
            raise too_large("A line of the answer", self._most_bytes)


def too_large(what: str, most_bytes: int) -> AnswerTooLargeError:
    return AnswerTooLargeError(
        f"{what} is larger than {most_bytes} bytes.", hint="Check TRTFARM_URL: no farm answers so."
    )
