"""A build of the worker's own: whether TensorRT, and the GPU, work here, whatever the jobs do."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from uuid_utils import uuid7

from trtfarm.contract.digest import Digest
from trtfarm.contract.jobs import Outcome
from trtfarm.contract.leases import WorkerInfo
from trtfarm.contract.spec import BuildSpec
from trtfarm.contract.target import Target, parse_capability
from trtfarm.errors import ConfigurationError
from trtfarm_worker.child.process import TensorRTChild
from trtfarm_worker.child.protocol import BuildRequest, Built
from trtfarm_worker.finished import IO, LOG, PLAN
from trtfarm_worker.heartbeat import deadline
from trtfarm_worker.owned_folders import OwnedFolders

_SECONDS = 300.0  # on a GPU that other processes use; a standstill is no success either
_log = logging.getLogger(__name__)

# An ONNX file of opset 13, y = Relu(x), both of 1 by 64 float32: not every GPU has more, as Turing no MatMul.
MODEL = (
    b'\x08\x08:?\n\x0c\n\x01x\x12\x01y"\x04Relu\x12\x05probeZ\x13\n\x01x\x12\x0e\n\x0c\x08\x01\x12\x08\n\x02\x08\x01\n\x02\x08@'
    b"b\x13\n\x01y\x12\x0e\n\x0c\x08\x01\x12\x08\n\x02\x08\x01\n\x02\x08@B\x04\n\x00\x10\r"
)


class Probe:
    """A worker's own build. ``folder``: where it may make folders; ``stopping``: whether the worker is."""

    def __init__(self, info: WorkerInfo, folder: Path, stopping: Callable[[], bool]) -> None:
        self._spec = BuildSpec(model=Digest.of_bytes(MODEL), target=_target(info))
        self._folder = folder
        self._stopping = stopping

    def passes(self, child: TensorRTChild) -> bool | None:
        """Builds with a fresh child, which stays for the next job. None: the worker stops."""
        child.kill()
        timed_out = deadline(_SECONDS)

        def interruption() -> Outcome | None:
            if self._stopping():
                return Outcome.RELEASED
            return Outcome.TIMEOUT if timed_out() else None

        try:
            with self._request() as request:
                answer = child.run(request, interruption, lambda _: None)
        except (ConfigurationError, OSError) as error:
            _log.warning("the worker's own build did not begin: %s", error)
            return False
        if isinstance(answer, Built):
            return True
        if self._stopping():
            return None
        _log.warning("the worker's own build failed: %s", answer)
        return False

    @contextmanager
    def _request(self) -> Iterator[BuildRequest]:
        """Raises OSError."""
        name = f"probe.{uuid7()}"
        lock = OwnedFolders(self._folder).make(name)
        folder = self._folder / name
        try:
            model = folder / "model" / "model.onnx"
            model.parent.mkdir()
            model.write_bytes(MODEL)
            yield BuildRequest(
                spec=self._spec,
                model_path=str(model),
                plan_path=str(folder / PLAN),
                io_path=str(folder / IO),
                log_path=str(folder / LOG),
            )
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)

    def remove_litter(self) -> None:
        """Removes what killed workers left. Raises OSError."""
        for path, lock in OwnedFolders(self._folder).abandoned():
            shutil.rmtree(path, ignore_errors=True)
            os.close(lock)


def _target(info: WorkerInfo) -> Target:
    """The worker's GPU, or the first target that it builds for without one."""
    gpu, device = info.gpus[0], info.device
    capability = device.compute_capability if device else parse_capability(gpu)
    return Target(gpu=gpu, compute_capability=capability or "", runtime=info.runtime)
