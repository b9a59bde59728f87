"""A real TensorRT child and the worker's handle on it, without the worker around them."""

from __future__ import annotations

import json
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
from trtfarm_worker import failures
from trtfarm_worker.child.process import TensorRTChild
from trtfarm_worker.child.protocol import BuildRequest, Built, Failed
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
    """The child of one slot, for many builds."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "attempt"
        self._folder.mkdir()
        settings = {"runtime": RTX, "scratch": folder / "scratch"}
        self._settings = WorkerSettings.model_validate(settings)
        self._child = TensorRTChild(self._settings)
        self.runtime = Runtime.parse(self._child.start().runtime)
        self.stages: list[str] = []  # of the last build
        self._first = self._child._child

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._child.kill()

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
        log.touch()
        self.stages = []
        typed = TypedModels(self._settings, self._folder, log)
        alone = CachedModel(model, Path(tempfile.mkdtemp(dir=self._folder)), model.stat().st_size)
        try:
            with typed.path(spec, cached or alone, self) as path:
                request = BuildRequest(
                    spec=spec, model_path=str(path), plan_path=str(plan), io_path=str(io), log_path=str(log)
                )
                answer = self._child.run(request, lambda: None, lambda told: self.stage(told.stage))
        except TrtFarmError as error:
            return Outcome(b"", {}, failures.of_farm(error).error, log.read_text())
        if isinstance(answer, Failed):
            assert not plan.read_bytes()
            return Outcome(b"", {}, answer.error, log.read_text())
        assert isinstance(answer, Built)
        return Outcome(plan.read_bytes(), json.loads(io.read_text()), None, log.read_text())

    @property
    def is_the_first(self) -> bool:
        """Whether no other process had to take its place."""
        return self._child._child is self._first is not None and self._first.is_running

    # --- of a ``work.Watch`` ---

    def stage(self, name: str) -> None:
        self.stages.append(name)

    def check(self) -> None:
        """Nothing stops it."""
