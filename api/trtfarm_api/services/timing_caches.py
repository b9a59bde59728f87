"""Timing caches that an operator brings along."""

from __future__ import annotations

from trtfarm.contract.builder_config import BuilderConfig
from trtfarm.contract.device import Device
from trtfarm.contract.target import Runtime
from trtfarm.contract.timing_cache import TimingCacheView, timing_cache_key
from trtfarm.contract.v1 import TimingCacheImport
from trtfarm.errors import ConflictError, TargetUnavailableError
from trtfarm_api.farm import Farm
from trtfarm_db.repositories.timing_caches import TimingCacheRepository
from trtfarm_db.repositories.workers import WorkerRepository


def import_timing_cache(farm: Farm, request: TimingCacheImport) -> TimingCacheView:
    """Publishes an uploaded file as the newest revision for builds with TensorRT's default flags.

    Older revisions stay, and a build that is under way adds what it learns to this one.

    Raises:
        BlobMissingError: the file was not uploaded.
        TargetUnavailableError: no worker of this farm has had such a GPU.
        ConflictError: a build published at the same moment; try again.
    """
    blob = farm.blobs.require(request.digest)
    with farm.database.transaction() as connection:
        device, runtime = _device(WorkerRepository(connection), request)
        caches = TimingCacheRepository(connection)
        key = timing_cache_key(device, runtime, BuilderConfig())
        head = caches.head(key)
        published = caches.publish(
            key=key,
            after=head.revision if head else 0,
            blob=blob,
            device=device,
            runtime=runtime,
            entries=None,
            job_id=None,
            worker_id=None,
        )
        if published is None:
            raise ConflictError("A build published this timing cache at the same moment; try again.")
        return caches.history(key)[0]


def _device(workers: WorkerRepository, request: TimingCacheImport) -> tuple[Device, str]:
    wanted = Runtime.parse(request.runtime) if request.runtime else None
    for worker in workers.views(gone=True):
        have = Runtime.parse(worker.runtime)
        if worker.device is None or worker.device.gpu != request.gpu:
            continue
        if wanted is None or (wanted.flavour == have.flavour and wanted.version in {"", have.version}):
            return worker.device, worker.runtime
    raise TargetUnavailableError(
        f"No worker of this farm has had a {request.gpu}{f' with {wanted}' if wanted else ''}.",
        hint="Start one there first: what a timing cache is good for is read from the GPU.",
    )
