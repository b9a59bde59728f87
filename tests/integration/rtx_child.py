"""A real TensorRT child, without the worker around it: requests in, answers out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from trtfarm.contract.digest import Digest
from trtfarm.contract.spec import BuildSpec
from trtfarm.contract.target import RTX, Runtime, Target
from trtfarm.contract.trtexec import parse_build_options
from trtfarm.contract.v1 import ErrorView
from trtfarm.errors import TrtFarmError
from trtfarm_worker.child.protocol import (
    BuildRequest,
    Built,
    ChildMessage,
    Failed,
    Progressed,
    Ready,
    child_message,
)
from trtfarm_worker.conversion.typed_model import TypedModels
from trtfarm_worker.model_cache import CachedModel
from trtfarm_worker.settings import WorkerSettings


class Outcome(NamedTuple):
    """``plan`` and ``io``, or ``error``."""

    plan: bytes
    io: dict[str, Any]
    error: ErrorView | None
    log: str

    @property
    def code(self) -> str | None:
        return self.error and self.error.code


class Child:
    """One process for many builds, as a worker keeps it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.stages: list[str] = []  # of the last build
        requests, self._requests = os.pipe()
        self._events, events = os.pipe()
        command = [sys.executable, "-m", "trtfarm_worker.tensorrt.child", RTX, str(requests), str(events)]
        self.process = subprocess.Popen([*command, str(os.getpid())], pass_fds=(requests, events))
        os.close(requests)
        os.close(events)
        self._writer = os.fdopen(self._requests, "w")
        self._reader = os.fdopen(self._events)
        ready = self._next()
        assert isinstance(ready, Ready)
        self.runtime = Runtime.parse(ready.runtime)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()
        self.process.wait(30)
        self._reader.close()

    def build(self, model: Path, options: Sequence[str] = (), cached: CachedModel | None = None) -> Outcome:
        """``cached``: keeps what is converted; else it is converted each time, as by the worker."""
        read = parse_build_options(options)
        target = Target(gpu="cc-8.9", compute_capability="8.9", runtime=str(self.runtime))
        spec = BuildSpec(
            model=Digest.of_bytes(model.read_bytes()),
            target=target,
            config=read.config,
            profiles=read.profiles,
        )
        plan, io, log = (self._folder / name for name in ("plan", "io.json", "log"))
        for path in (plan, io, log):
            path.unlink(missing_ok=True)
        self.stages = []
        typed = TypedModels(WorkerSettings(), self._folder, log)
        try:
            alone = CachedModel(model, Path(tempfile.mkdtemp(dir=self._folder)), model.stat().st_size)
            with typed.path(spec, cached or alone, self) as path:
                request = BuildRequest(
                    spec=spec, model_path=str(path), plan_path=str(plan), io_path=str(io), log_path=str(log)
                )
                self._writer.write(request.model_dump_json() + "\n")
                self._writer.flush()
                while isinstance(answer := self._next(), Progressed):
                    self.stages.append(answer.stage)
        except TrtFarmError as error:
            view = ErrorView(code=error.code, message=error.message, hint=error.hint)
            return Outcome(b"", {}, view, log.read_text())
        if isinstance(answer, Failed):
            assert not plan.exists()
            return Outcome(b"", {}, answer.error, log.read_text())
        assert isinstance(answer, Built)
        return Outcome(plan.read_bytes(), json.loads(io.read_text()), None, log.read_text())

    def stage(self, name: str) -> None:
        self.stages.append(name)

    def check(self) -> None:
        """Nothing stops it."""

    def _next(self) -> ChildMessage:
        return child_message.validate_json(self._reader.readline())
