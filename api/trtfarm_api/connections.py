"""HTTP/1.1 as uvicorn speaks it, with limits on what a stranger may cost before a request has begun."""

from __future__ import annotations

import asyncio
import resource
from typing import Any, ClassVar

import httptools
from starlette.responses import JSONResponse
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from trtfarm_api.errors import problem

HEAD_BYTES = 32 << 10  # of a request line and its headers
HEADERS = 100
HEAD_SECONDS = 10.0
_UNREAD_SECONDS = 10.0
_STALL_SECONDS = 60.0
_DESCRIPTORS_KEPT = 0.25  # for the database, files and logs


class GuardedProtocol(HttpToolsProtocol):
    """Ends connections whose request's head is too large, too slow, or of a form that hides something.

    And those whose other side does not read its answer.

    httptools keeps a header of any length and waits for its end for ever.
    """

    head_seconds: ClassVar[float] = HEAD_SECONDS
    unread_seconds: ClassVar[float] = _UNREAD_SECONDS
    stall_seconds: ClassVar[float] = _STALL_SECONDS

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._between = True  # no byte of the next head has come
        self._in_head = False
        self._head_bytes = 0
        self._refusal: JSONResponse | None = None
        self._late: asyncio.TimerHandle | None = None  # until a head is whole
        self._unread: asyncio.TimerHandle | None = None  # until a body that nobody reads has ended
        self._stalled: asyncio.TimerHandle | None = None  # until the other side reads on

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > most_connections():
            transport.abort()
            return
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        for timer in (self._late, self._unread, self._stalled):
            if timer is not None:
                timer.cancel()
        self._late = self._unread = self._stalled = None

    def data_received(self, data: bytes) -> None:
        waited_for_head = self._between or self._in_head
        if waited_for_head and len(data) > HEAD_BYTES and data.find(b"\r\n\r\n", 0, HEAD_BYTES) < 0:
            self._refusal = _too_large()
            self.send_400_response("")
            return
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES:
                self._refusal = _too_large()
                self.send_400_response("")
                return
        if self._late is None and (self._in_head or (self._between and self._idle)):
            self._expect_head()

    @property
    def _idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    # --- what the parser tells ---

    def on_message_begin(self) -> None:
        self._between, self._in_head, self._head_bytes = False, True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = False
        if self._late is not None:
            self._late.cancel()
            self._late = None
        size_bytes = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size_bytes > HEAD_BYTES or len(self.headers) > HEADERS:
            self._refuse(_too_large())
        if not self.url.startswith(b"/"):  # else its host would go unseen
            self._refuse(problem(400, "INVALID_REQUEST", "The address of a request is a path."))
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._between = True
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self._between and not self._in_head and not self.transport.is_closing():
            self._unread = self.loop.call_later(self.unread_seconds, self.transport.close)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stalled = self.loop.call_later(self.stall_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
        super().resume_writing()

    def _unsupported_upgrade_warning(self) -> None:
        """A stranger's wish is not worth a line in the log."""

    # --- refusing ---

    def _expect_head(self) -> None:
        self._late = self.loop.call_later(self.head_seconds, self._give_up)

    def _give_up(self) -> None:
        self._late = None
        if not self._idle:  # half a request that waits behind another
            self._expect_head()
        elif not self.transport.is_closing():
            self.transport.close()

    def _refuse(self, answer: JSONResponse) -> None:
        """Ends the parser; ``data_received`` then sends the answer."""
        self._refusal = answer
        raise httptools.HttpParserError

    def send_400_response(self, msg: str) -> None:
        if not self._idle:  # in the middle of another answer there is no place for this one
            self.transport.abort()
            return
        answer = self._refusal or problem(400, "INVALID_REQUEST", msg)
        headers = [*self.server_state.default_headers, *answer.raw_headers, (b"connection", b"close")]
        lines = [b"%b: %b\r\n" % (name, value) for name, value in headers]
        self.transport.write(b"".join([STATUS_LINE[answer.status_code], *lines, b"\r\n", bytes(answer.body)]))
        self.transport.close()


def _too_large() -> JSONResponse:
    return problem(431, "HEADERS_TOO_LARGE", f"At most {HEAD_BYTES} bytes and {HEADERS} headers.")


def most_connections() -> int:
    """More than this at a time are closed as they come: who opens files must find a descriptor."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 65536 if soft == resource.RLIM_INFINITY else int(soft * (1 - _DESCRIPTORS_KEPT))
