"""Finished work: what an attempt hands in once its child is done, as it lies in the spool."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated

from pydantic import Field

from trtfarm.contract.device import Device
from trtfarm.contract.digest import Digest
from trtfarm.contract.leases import AttemptFailure, BenchmarkResult, BuildResult, Claim, PublishedBlob
from trtfarm.contract.timing_cache import TimingCacheUse
from trtfarm.contract.value import Value
from trtfarm_db.repositories.leases import LeaseRepository
from trtfarm_worker.child.protocol import LAYERS, PROFILE, TIMES, Built, Measured

PLAN, IO, LOG = "plan", "io.json", "build.log"

Effect = Callable[[LeaseRepository], object]


class FinishedFile(Value):
    digest: Digest
    size_bytes: int


class Finished(Value):
    """The end of an attempt, with all that is needed to tell it without the process that saw it.

    Attributes:
        done: the child's answer; None where there is a ``failure``.
        device: the GPU that was measured or built on.
        files: the result's files, by name. The log is not among them: it counts as it is found.
        at: when, in seconds of this host's clock; for the age of what waits.
    """

    claim: Claim
    done: Annotated[Built | Measured, Field(discriminator="event")] | None = None
    failure: AttemptFailure | None = None
    device: Device | None = None
    timing_cache: TimingCacheUse | None = None
    files: dict[str, FinishedFile] = Field(default_factory=dict)
    at: float

    @property
    def needed_files(self) -> tuple[str, ...]:
        """Without them there is no result."""
        return (PLAN, IO) if isinstance(self.done, Built) else ()

    @property
    def possible_files(self) -> tuple[str, ...]:
        return (TIMES, PROFILE, LAYERS) if isinstance(self.done, Measured) else ()

    def effect(self, blobs: Mapping[str, PublishedBlob]) -> Effect:
        """What is to be committed, once the files are in the store under ``blobs``."""
        claim, log = self.claim, blobs.get(LOG)
        if isinstance(self.done, Built):
            built = BuildResult(
                plan=blobs[PLAN],
                io=blobs[IO],
                log=log,
                build_seconds=self.done.build_seconds,
                timing_cache=self.timing_cache,
            )
            return lambda leases: leases.finish(claim, built)
        if self.done is not None and self.device is not None:
            measured = BenchmarkResult(
                measurement=self.done.measurement,
                device=self.device,
                log=log,
                times=blobs.get(TIMES),
                layer_profile=blobs.get(PROFILE),
                layer_information=blobs.get(LAYERS),
            )
            return lambda leases: leases.finish_benchmark(claim, measured)
        if self.failure is None:
            raise ValueError("Finished work is a result or a failure.")
        failure = self.failure.model_copy(update={"log": log})
        return lambda leases: leases.fail(claim, failure)
