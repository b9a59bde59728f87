"""What people call a target → an exact target that this farm builds for."""

from __future__ import annotations

import difflib
import threading
import time
from typing import NamedTuple

from trtfarm.catalogue import Capability, Catalogue
from trtfarm.contract.target import DEFAULT_PLATFORM, RTX, Runtime, Target, capability_target, gpu_slug
from trtfarm.contract.v1 import TargetRequest
from trtfarm.errors import TargetUnavailableError, UnknownGpuError, UnknownRuntimeError
from trtfarm_db.engine import Database
from trtfarm_db.repositories.workers import WorkerRepository

_CACHE_SECONDS = 1.0
_NEAREST = 4


class Served(NamedTuple):
    """``alive``: a worker for it is there now."""

    gpu: str
    runtime: Runtime
    platform: str
    alive: bool


class TargetResolver:
    """Knows the catalogue and what the farm's workers serve, as long as it remembers them."""

    def __init__(self, database: Database, catalogue: Catalogue) -> None:
        self._database = database
        self._catalogue = catalogue
        self._lock = threading.Lock()
        self._served: list[Served] = []
        self._read_at = float("-inf")

    def resolve(self, wanted: TargetRequest, *, wait_for_worker: bool = False) -> Target:
        """The newest runtime that fits, of those whose workers are there if any is.

        Raises:
            UnknownGpuError, UnknownRuntimeError: nobody knows of such a thing.
            TargetUnavailableError: known, but no worker that this farm remembers builds for it, and
                ``wait_for_worker`` is not given with an exact runtime.
        """
        runtime = Runtime.parse(wanted.runtime) if wanted.runtime else None
        served = self._targets()
        gpu, capability = self._gpu(wanted.gpu, runtime, served)
        fits = [
            each
            for each in served
            if each.gpu in {gpu, capability_target(capability) if each.runtime.flavour == RTX else gpu}
            and runtime_fits(runtime, each.runtime)
            and wanted.platform in {None, each.platform}
        ]
        if fits:
            best = max(fits, key=lambda each: (each.alive, each.gpu == gpu, each.runtime.version_numbers))
            return Target(
                gpu=best.gpu,
                compute_capability=capability,
                runtime=str(best.runtime),
                platform=best.platform,
            )
        if wait_for_worker and runtime is not None and runtime.version:
            exact = capability_target(capability) if runtime.flavour == RTX else gpu
            platform = wanted.platform or DEFAULT_PLATFORM
            return Target(gpu=exact, compute_capability=capability, runtime=str(runtime), platform=platform)
        raise self._unavailable(gpu, capability, runtime, served)

    def _targets(self) -> list[Served]:
        with self._lock:
            if time.monotonic() - self._read_at > _CACHE_SECONDS:
                with self._database.transaction() as connection:
                    rows = WorkerRepository(connection).targets()
                self._served = [
                    Served(gpu, Runtime.parse(runtime), where, alive)
                    for (gpu, runtime, where), alive in rows.items()
                ]
                self._read_at = time.monotonic()
            return self._served

    def _gpu(self, text: str, runtime: Runtime | None, served: list[Served]) -> tuple[str, str]:
        """(slug or ``cc-…``, compute capability)."""
        try:
            found = self._catalogue.resolve(text)
        except UnknownGpuError:
            shared = self._shared_capability(text, runtime, served)
            if shared is not None:
                return capability_target(shared), shared
            slug = gpu_slug(text)
            if slug not in {each.gpu for each in served}:
                raise
            raise TargetUnavailableError(f"{slug} is not in the catalogue; add it to targets.toml.") from None
        if isinstance(found, Capability):
            return found.slug, found.compute_capability
        return found.slug, found.compute_capability

    def _shared_capability(self, text: str, runtime: Runtime | None, served: list[Served]) -> str | None:
        """That of a short name as ``A100 80GB``: a plan of TensorRT-RTX fits all that it could mean."""
        family = self._catalogue.family(text)
        capabilities = {entry.compute_capability for entry in family}
        products = {entry.slug for entry in family} & {each.gpu for each in served}
        rtx = runtime.flavour == RTX if runtime else not products
        return capabilities.pop() if rtx and len(capabilities) == 1 else None

    def _unavailable(
        self, gpu: str, capability: str, runtime: Runtime | None, served: list[Served]
    ) -> Exception:
        if not served:
            return TargetUnavailableError(
                "No worker has joined this farm yet.", hint="Start one: trtfarm worker"
            )
        runtimes = sorted({str(each.runtime) for each in served})
        if runtime is not None and not any(runtime_fits(runtime, each.runtime) for each in served):
            return UnknownRuntimeError(
                f"No worker of this farm has {runtime}.", hint=f"It has: {', '.join(runtimes)}."
            )
        gpus = sorted({each.gpu for each in served if runtime_fits(runtime, each.runtime)})
        near = sorted(gpus, key=lambda other: self._distance(gpu, capability, other))[:_NEAREST]
        return TargetUnavailableError(
            f"No worker of this farm builds for {gpu}{f' with {runtime}' if runtime else ''}.",
            hint=f"Nearest: {', '.join(near)}. To queue the job until such a worker joins, give the exact "
            "runtime and --wait-for-worker.",
            gpu=gpu,
            served=gpus,
        )

    def _distance(self, gpu: str, capability: str, other: str) -> tuple[float, float]:
        """By compute capability, then by name; what the catalogue does not know comes last."""
        try:
            theirs = float(self._catalogue.resolve(other).compute_capability)
        except UnknownGpuError:
            return float("inf"), 0.0
        return abs(theirs - float(capability)), -difflib.SequenceMatcher(a=gpu, b=other).ratio()


def runtime_fits(wanted: Runtime | None, have: Runtime) -> bool:
    """``8.6`` fits 8.6.0 and 8.6.1, not 8.61."""
    if wanted is None:
        return True
    numbers = wanted.version_numbers
    return wanted.flavour == have.flavour and have.version_numbers[: len(numbers)] == numbers
