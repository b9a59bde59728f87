"""A farm under test: the real API on a port, and what its users and workers would do to it."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import onnx
from onnx import TensorProto, helper
from uuid_utils import uuid7

from trtfarm.catalogue import Catalogue
from trtfarm.contract.digest import Digest
from trtfarm.contract.jobs import Outcome
from trtfarm.contract.leases import AttemptFailure, BuildResult, Claim, PublishedBlob, RetryPolicy, WorkerInfo
from trtfarm.contract.target import queue_name
from trtfarm.contract.v1 import ErrorView, Progress
from trtfarm.inspection.pool import InspectionPool
from trtfarm.ring import LocalBell
from trtfarm.store import ArtifactStore, StoreSettings
from trtfarm_api.farm import Farm
from trtfarm_api.serving import _server
from trtfarm_api.settings import ServerSettings
from trtfarm_db.engine import Database
from trtfarm_db.repositories.artifacts import ArtifactRemovedError, ArtifactRepository
from trtfarm_db.repositories.leases import LeaseRepository
from trtfarm_db.repositories.workers import WorkerRepository
from trtfarm_db.settings import DatabaseSettings

RTX = "tensorrt-rtx-1.7.1.116"
ENTERPRISE = "tensorrt-10.16.1"
WORKERS = {RTX: ("cc-7.5", "cc-8.9"), ENTERPRISE: ("h200", "l4")}
START_SECONDS = 20
_serial = itertools.count()


def onnx_model(
    *, shape: tuple[int | str, ...] = (1, 4), weights: str | None = None, **external: int
) -> bytes:
    """A small valid model, never the same twice; ``weights`` names a file that its weights lie in."""
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4])
    if weights is None:
        weight.raw_data = bytes(16)
    else:
        weight.data_location = TensorProto.EXTERNAL
        for key, value in {"location": weights, **external}.items():
            weight.external_data.add(key=key, value=str(value))
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "xy")
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", [x], [y], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    model.doc_string = f"{next(_serial)} {uuid4().hex}"
    onnx.checker.check_model(model) if weights is None else None
    return model.SerializeToString()


def open_farm(
    database_url: str, folder: Path, inspection: InspectionPool, *, require_keys: bool = False, **server: Any
) -> Farm:
    """Its dispatcher sleeps: whatever happens, a test has done it. Close the database afterwards."""
    settings = ServerSettings(
        **{
            "staging": folder / "staging",
            "dispatch_seconds": 3600,
            "order_seconds": 3600,
            "disk_reserve_bytes": 0,
            **server,
        }
    )
    return Farm(
        settings=settings,
        database=Database.open(DatabaseSettings.model_validate({"url": database_url}), "trtfarm-test"),
        store=ArtifactStore.open(StoreSettings(url=(folder / "artifacts").as_uri())),
        bell=LocalBell(),
        catalogue=Catalogue.load(),
        inspection=inspection,
        require_keys=require_keys,
    )


@contextlib.contextmanager
def serving(farm: Farm, port: int = 0) -> Iterator[str]:
    """Its URL, for as long as the block runs."""
    server = _server(farm, host="127.0.0.1", port=port, log_level="warning")
    server.install_signal_handlers = lambda: None
    thread = threading.Thread(target=server.run, name="api", daemon=True)
    thread.start()
    end = time.monotonic() + START_SECONDS
    while not server.started and thread.is_alive() and time.monotonic() < end:
        time.sleep(0.005)
    assert server.started
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def client(url: str, key: str | None = None) -> httpx.Client:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return httpx.Client(base_url=url, headers=headers, timeout=30, trust_env=False)


def problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The problem document, checked for form."""
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json"), (
        response.status_code,
        response.text,
    )
    document: dict[str, Any] = response.json()
    assert document["code"] == code, document
    assert document["status"] == status
    assert document["detail"]
    assert document["title"]
    return document


@dataclass(frozen=True)
class Built:
    """A job that has succeeded."""

    job: dict[str, Any]
    data: bytes
    request: dict[str, Any]

    @property
    def digest(self) -> Digest:
        return Digest.of_bytes(self.data)

    @property
    def content(self) -> str:
        return f"/v1/plans/{self.digest}/content"


@dataclass(frozen=True)
class World:
    farm: Farm
    url: str
    http: httpx.Client
    worker_id: str = field(default_factory=lambda: str(uuid7()))

    # --- a user ---

    def announce(self, data: bytes, **more: Any) -> httpx.Response:
        return self.http.post(
            "/v1/uploads", json={"digest": Digest.of_bytes(data), "size_bytes": len(data), **more}
        )

    def send(self, upload_id: str, data: bytes, offset: int = 0) -> httpx.Response:
        headers = {"Upload-Offset": str(offset)}
        return self.http.patch(f"/v1/uploads/{upload_id}", content=data, headers=headers)

    def upload(self, data: bytes, **more: Any) -> httpx.Response:
        """The answer to the last byte."""
        announced = self.announce(data, **more)
        assert announced.status_code == 201, announced.text
        return self.send(announced.json()["upload_id"], data)

    def model(self, data: bytes | None = None, **more: Any) -> str:
        """The digest of a model that the farm has now."""
        response = self.upload(onnx_model() if data is None else data, **more)
        assert response.status_code == 200, response.text
        return str(response.json()["model"])

    def request(self, model: str | None = None, gpu: str = "cc-8.9", **more: Any) -> dict[str, Any]:
        return {"model": model or self.model(), "target": {"gpu": gpu}, **more}

    def post_job(self, request: dict[str, Any], key: str | None = None) -> httpx.Response:
        headers = {"Idempotency-Key": key} if key else {}
        return self.http.post("/v1/jobs", json=request, headers=headers)

    def job(self, gpu: str = "cc-8.9", **more: Any) -> dict[str, Any]:
        """A job of its own, queued."""
        response = self.post_job(self.request(gpu=gpu, **more))
        assert response.status_code == 201, response.text
        job: dict[str, Any] = response.json()["job"]
        return job

    def get(self, path: str) -> dict[str, Any]:
        response = self.http.get(path)
        assert response.status_code == 200, response.text
        document: dict[str, Any] = response.json()
        return document

    # --- a worker ---

    def register_workers(self) -> None:
        with self.farm.database.transaction() as connection:
            for number, (runtime, gpus) in enumerate(WORKERS.items()):
                WorkerRepository(connection).register(
                    WorkerInfo(
                        worker_id=str(uuid7()) if number else self.worker_id,
                        hostname="test",
                        runtime=runtime,
                        platform="linux-x86_64",
                        gpus=gpus,
                        slots=1,
                    )
                )

    @contextlib.contextmanager
    def leases(self, **policy: Any) -> Iterator[LeaseRepository]:
        policy = {"backoff_seconds": 0, **policy}
        with self.farm.database.transaction() as connection:
            yield LeaseRepository(connection, lease_seconds=60, policy=RetryPolicy(**policy))

    def claim(self, job_id: str) -> Claim:
        """Claims until it is this one; those before it are given back."""
        target = self.get(f"/v1/jobs/{job_id}")["target"]
        others = []
        with self.leases() as leases:
            while True:
                claim = leases.claim([queue_name(target["runtime"], target["gpu"])], self.worker_id)
                assert claim is not None, f"{job_id} is not in the queue"
                if claim.job_id == job_id:
                    break
                others.append(claim)
            for other in others:
                leases.release(other)
        return claim

    def renew(self, claim: Claim, stage: str, fraction: float | None = None) -> bool:
        """Whether the job is to be cancelled."""
        with self.leases() as leases:
            progress = Progress(stage=stage, fraction=fraction)
            return leases.renew(claim, self.worker_id, progress).cancel_requested

    def publish(self, data: bytes) -> PublishedBlob:
        digest, stored = self.farm.store.put_bytes(data)
        return PublishedBlob(digest=digest, size_bytes=stored.size_bytes, etag=stored.etag)

    def finish(self, claim: Claim, plan: bytes, log: bytes | None = b"built\n", io: bytes = b"{}") -> None:
        def published() -> BuildResult:
            return BuildResult(
                plan=self.publish(plan),
                io=self.publish(io),
                log=self.publish(log) if log is not None else None,
                build_seconds=1.5,
            )

        try:
            with self.leases() as leases:
                leases.finish(claim, published())
        except ArtifactRemovedError as error:
            with self.farm.database.transaction() as connection:
                artifacts = ArtifactRepository(connection)
                artifacts.hold(error.digests)
                result = published()
                for blob in (result.plan, result.io, result.log):
                    if blob is not None and blob.digest in error.digests:
                        artifacts.restored(blob)
            with self.leases() as leases:
                leases.finish(claim, result)

    def fail(
        self,
        claim: Claim,
        *,
        retryable: bool = False,
        log: bytes | None = None,
        code: str = "BUILD_FAILED",
    ) -> None:
        failure = AttemptFailure(
            outcome=Outcome.FAILED,
            error=ErrorView(code=code, message="no kernel for node Add_0"),
            retryable=retryable,
            log=self.publish(log) if log is not None else None,
        )
        with self.leases() as leases:
            leases.fail(claim, failure)

    def built(self, data: bytes, request: dict[str, Any] | None = None) -> Built:
        """A job that ended with this plan."""
        request = request or self.request()
        response = self.post_job(request)
        assert response.status_code == 201, response.text
        job_id = response.json()["job"]["job_id"]
        self.finish(self.claim(job_id), data)
        return Built(self.get(f"/v1/jobs/{job_id}"), data, request)

    # --- the disks ---

    def blob(self, digest: str) -> Path:
        root = self.farm.store.url(Digest(digest)).removeprefix("file://")
        return Path(root)

    def staged(self) -> dict[str, int]:
        """Files in staging, and their sizes."""
        folder = self.farm.settings.staging
        return {path.name: path.stat().st_size for path in folder.iterdir()} if folder.exists() else {}
