"""A real TensorRT child and the worker's handle on it, without the worker around them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from trtfarm.contract.digest import Digest
from trtfarm.contract.spec import BuildSpec
from trtfarm.contract.target import RTX, Runtime, Target
from trtfarm.contract.trtexec import parse_build_options
from trtfarm.contract.v1 import ErrorView
from trtfarm_worker.child.process import TensorRTChild
from trtfarm_worker.child.protocol import BuildRequest, Built, Failed
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
    """The child of one slot, for many builds."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "attempt"
        self._folder.mkdir()
        settings = {"runtime": RTX, "scratch": folder / "scratch"}
        self._child = TensorRTChild(WorkerSettings.model_validate(settings))
        self.runtime = Runtime.parse(self._child.start().runtime)
        self.stages: list[str] = []  # of the last build

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._child.kill()

    def build(self, model: Path, options: Sequence[str] = (), typed_folder: Path | None = None) -> Outcome:
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
        request = BuildRequest(
            spec=spec,
            model_path=str(model),
            typed_folder=typed_folder and str(typed_folder),
            plan_path=str(plan),
            io_path=str(io),
            log_path=str(log),
        )
        self.stages = []
        answer = self._child.run(request, lambda: None, lambda told: self.stages.append(told.stage))
        if isinstance(answer, Failed):
            assert not plan.read_bytes()
            return Outcome(b"", {}, answer.error, log.read_text())
        assert isinstance(answer, Built)
        return Outcome(plan.read_bytes(), json.loads(io.read_text()), None, log.read_text())
