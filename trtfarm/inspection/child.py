"""The processes that read models.

An inspector is started once, imports what is needed and reads nothing itself: for each submitter it forks
a process that is confined before it sees the first byte. So nobody's model meets what another's has left
behind, and the inspector, which the farm listens to, has looked at none.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import math
import os
import resource
import select
import signal
import socket
import time
from collections.abc import Callable, Mapping
from typing import BinaryIO, Literal

from trtfarm.contract.models import ModelInfo
from trtfarm.errors import ModelError, ResourceLimitError
from trtfarm.inspection.inspect import inspect_model
from trtfarm.inspection.wire import (
    MAX_ANSWER_BYTES,
    MAX_REQUEST_BYTES,
    Answer,
    Refusal,
    Request,
    Verdict,
    receive,
    receive_with_file,
    refusal_of,
    send,
    write,
)
from trtfarm.sandbox import Box, Mode, confine

Reader = Callable[[BinaryIO, Mapping[str, int] | None], ModelInfo]

_NICE = 10  # requests that wait for nothing else are more urgent
_PR_SET_PDEATHSIG = 1
_MAX_MODELS = 200
_MAX_RESIDENT_BYTES = 200 << 20
_libc = ctypes.CDLL(None)


def main(descriptor: int, sandbox: str, read: Reader = inspect_model) -> None:
    """``descriptor``: of the socket to the farm; ``sandbox``: a ``Mode``."""
    import onnx  # noqa: F401 - before the fork, and before the limits

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to the children too
    os.nice(_NICE)
    gc.collect()
    gc.freeze()  # what is here already is shared with every process to come
    mode, process = Mode(sandbox), None
    with socket.socket(fileno=descriptor) as line, contextlib.suppress(EOFError, OSError, _FarmGoneError):
        try:
            send(line, Verdict(fate="ready").model_dump_json().encode())
            while True:
                data, model = receive_with_file(line, MAX_REQUEST_BYTES)
                request = Request.model_validate_json(data)
                if process is None or not process.suits(request):
                    if process is not None:
                        process.end()
                    process = _Process(line, request, mode, read)
                verdict, answer = process.ask(data, model, request.timeout_seconds)
                documents = (verdict.model_dump_json().encode(), answer)
                send(line, *documents[: 2 if verdict.fate == "answered" else 1])
        finally:
            if process is not None:
                process.end()


class _Process:
    """One that reads models of one submitter."""

    def __init__(self, farm: socket.socket, request: Request, sandbox: Mode, read: Reader) -> None:
        self._farm = farm
        self._for = (request.submitter, request.memory_bytes)
        self._models = 0
        self._line, theirs = socket.socketpair()
        inspector = os.getpid()
        self._pid = os.fork()
        if self._pid == 0:
            # Whatever happens here, the inspector's own code must not go on in this process.
            with contextlib.suppress(BaseException):
                self._line.close()
                farm.close()
                _die_with(inspector)
                _read_models(theirs, request.memory_bytes, sandbox, read)
            os._exit(0)
        theirs.close()
        self._status: int | None = None

    def suits(self, request: Request) -> bool:
        """Not if it has ended, or has said what nobody has asked for."""
        return (
            self._status is None
            and self._for == (request.submitter, request.memory_bytes)
            and self._models < _MAX_MODELS
            and _resident_bytes(self._pid) < _MAX_RESIDENT_BYTES
            and not select.select([self._line], [], [], 0)[0]
        )

    def ask(self, request: bytes, model: int, seconds: float) -> tuple[Verdict, bytes]:
        """Raises _FarmGoneError."""
        self._models += 1
        deadline = time.monotonic() + seconds
        try:
            self._line.settimeout(seconds)
            send(self._line, request, descriptor=model)
            if not self._said_something(deadline):
                return self._ended("timeout")
            self._line.settimeout(max(0.001, deadline - time.monotonic()))
            return Verdict(fate="answered"), receive(self._line, MAX_ANSWER_BYTES)
        except TimeoutError:
            return self._ended("timeout")
        except (EOFError, OSError, ValueError):
            return self._ended("died")
        finally:
            os.close(model)

    def _said_something(self, deadline: float) -> bool:
        watched = select.poll()
        watched.register(self._line, select.POLLIN)
        watched.register(self._farm, select.POLLRDHUP)
        ready = watched.poll(max(0, math.ceil((deadline - time.monotonic()) * 1000)))
        if any(descriptor == self._farm.fileno() for descriptor, _ in ready):
            raise _FarmGoneError
        return bool(ready)

    def _ended(self, fate: Literal["died", "timeout"]) -> tuple[Verdict, bytes]:
        return Verdict(fate=fate, status=self.end()), b""

    def end(self) -> int:
        """Its exit status."""
        if self._status is None:
            os.kill(self._pid, signal.SIGKILL)  # a child that nobody has waited for: it is no other's number
            self._status = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
            self._line.close()
        return self._status


class _FarmGoneError(BaseException):
    """And with it who wanted to know. No ``Exception``: it is none of the process that reads."""


def _read_models(line: socket.socket, memory_bytes: int, sandbox: Mode, read: Reader) -> None:
    with open(os.devnull, "r+b", buffering=0) as nothing:  # noqa: PTH123
        for stream in range(3):
            os.dup2(nothing.fileno(), stream)
    if sandbox is Mode.OFF:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    confine(Box(memory_bytes=memory_bytes), sandbox)
    while True:
        data, model = receive_with_file(line, MAX_REQUEST_BYTES)
        answer = _outcome(Request.model_validate_json(data), model, read)
        write(line, answer.model_dump_json().encode())


def _outcome(request: Request, model: int, read: Reader) -> Answer:
    try:
        with os.fdopen(model, "rb") as file:
            return Answer(info=read(file, request.sizes))
    except ModelError as error:
        return Answer(refusal=refusal_of(error))
    except MemoryError:
        return Answer(refusal=refusal_of(ResourceLimitError()))
    except Exception as error:  # noqa: BLE001 - a fault of ours, which the farm's log is told
        return Answer(refusal=Refusal(code="INTERNAL", message=f"{type(error).__name__}: {error}"[:500]))


def _die_with(parent: int) -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it went before the call above
        os._exit(1)


def _resident_bytes(pid: int) -> int:
    with open(f"/proc/{pid}/statm", encoding="ascii") as numbers:  # noqa: PTH123
        return int(numbers.read().split()[1]) * resource.getpagesize()
