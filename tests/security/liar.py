"""A server that answers what a test wants, and documents of the contract for it to answer with."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from trtfarm import __version__
from trtfarm.contract.builder_config import BuilderConfig
from trtfarm.contract.digest import Digest
from trtfarm.contract.jobs import Disposition, JobKind, JobState
from trtfarm.contract.spec import BuildSpec
from trtfarm.contract.target import Target
from trtfarm.contract.v1 import VERSION_HEADER, CancelledJobView, JobView, PlanView, SubmissionView
from trtfarm.contract.value import Value

NOW = datetime(2026, 1, 2, tzinfo=UTC)
RUNTIME = "tensorrt-rtx-1.7.1.116"
ADA = Target(gpu="cc-8.9", compute_capability="8.9", runtime=RUNTIME)
TURING = Target(gpu="cc-7.5", compute_capability="7.5", runtime=RUNTIME)
WANTED, OTHER = b"the plan that was wanted", b"a plan with a back door"
MODEL, OTHER_MODEL = Digest.of_bytes(b"a model"), Digest.of_bytes(b"another model")


def digest(data: bytes) -> Digest:
    return Digest.of_bytes(data)


def plan(data: bytes, model: Digest = MODEL, target: Target = ADA, **more: Any) -> PlanView:
    fields = {
        "digest": digest(data),
        "size_bytes": len(data),
        "model": model,
        "target": target,
        "build_key": BuildSpec(model=model, target=target).build_key,
        "build_seconds": 1.0,
        "job_id": "job-1",
        "config": BuilderConfig(),
        "profiles": (),
        "io": None,
        "log": None,
        "created_at": NOW,
    }
    return PlanView.model_validate(fields | more)


def job(
    made: PlanView | None,
    *,
    job_id: str = "job-1",
    model: Digest = MODEL,
    target: Target = ADA,
    state: JobState = JobState.SUCCEEDED,
    **more: Any,
) -> JobView:
    fields = {
        "job_id": job_id,
        "kind": JobKind.BUILD,
        "state": state,
        "model": model,
        "target": target,
        "queue": target.queue,
        "config": BuilderConfig(),
        "profiles": (),
        "build_key": BuildSpec(model=model, target=target).build_key,
        "priority": 0,
        "timeout_seconds": 60.0,
        "attempt": 1,
        "worker_id": None,
        "progress": None,
        "cancel_requested": False,
        "created_at": NOW,
        "started_at": NOW,
        "finished_at": NOW,
        "build_seconds": 1.0,
        "plan": made,
        "error": None,
    }
    return JobView.model_validate(fields | more)


def withdrawn(of: JobView) -> CancelledJobView:
    return CancelledJobView(**of.model_dump(), others=0)


def submission(of: JobView) -> SubmissionView:
    return SubmissionView(disposition=Disposition.REUSED, job=of)


@dataclass
class Reply:
    """``parts``: sent one by one after ``body``, without end if it has none."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    parts: Iterator[bytes] | None = None


def said(document: Value | dict[str, Any], status: int = 200) -> Reply:
    text = document.model_dump_json() if isinstance(document, Value) else json.dumps(document)
    return Reply(text.encode(), status, {"Content-Type": "application/json"})


def refused(status: int, code: str, detail: str = "No.", **more: Any) -> Reply:
    return said({"code": code, "detail": detail, **more}, status)


NOT_FOUND = refused(404, "NOT_FOUND", "There is no such thing.")


@dataclass
class Liar:
    """Routes: ``GET /v1/…`` → what is answered there, or what makes it."""

    url: str = ""
    routes: dict[str, Reply | Callable[[], Reply]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    seen_headers: list[dict[str, str]] = field(default_factory=list)

    def reply(self, method: str, path: str) -> Reply:
        name = f"{method} {path.partition('?')[0]}"
        self.asked.append(name)
        found = self.routes.get(name, NOT_FOUND)
        return found if isinstance(found, Reply) else found()

    def holds(self, made: PlanView, content: bytes) -> None:
        """Answers for that plan, with these bytes."""
        self.routes[f"GET /v1/plans/{made.digest}"] = said(made)
        self.routes[f"GET /v1/plans/{made.digest}/content"] = Reply(content)


@contextlib.contextmanager
def lying() -> Iterator[Liar]:
    liar = Liar()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None: ...

        def _any(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            liar.seen_headers.append(dict(self.headers))
            reply = liar.reply(self.command, self.path)
            self.send_response(reply.status)
            headers = {"Content-Length": str(len(reply.body)), VERSION_HEADER: __version__, **reply.headers}
            if reply.parts is not None:
                headers["Connection"] = "close"
            for name, value in headers.items():
                if value:
                    self.send_header(name, value)
            self.end_headers()
            with contextlib.suppress(OSError):  # the client has heard enough
                self.wfile.write(reply.body)
                for part in reply.parts or ():
                    self.wfile.write(part)
            self.close_connection = reply.parts is not None

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = _any  # noqa: N815

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    liar.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield liar
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
