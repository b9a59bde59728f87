"""An S3 store behind a line that fails: it tells so in time, shows no part of an artifact, and goes on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from tests.chaos.proxy import HOST, Mode, Proxy
from tests.integration.api.test_upload_faults import announce, resume
from tests.integration.api.world import World, client, onnx_model, open_farm, problem, serving
from trtfarm.contract.digest import Digest
from trtfarm.errors import BlobCorruptError, UnavailableError
from trtfarm.inspection.pool import InspectionPool
from trtfarm.store import ArtifactStore, StoreSettings

BUCKET = "farm"
KEYS = {"access_key_id": "someone", "secret_access_key": "wonderland", "region": "us-east-1"}
FAULTS = [Mode.DOWN, Mode.RESET, Mode.BLACK_HOLE]
BOUND_SECONDS = 60  # obstore's retries, at the limits below, on a busy machine
LARGE = os.urandom(40 << 20)  # several parts


@dataclass(frozen=True)
class Line:
    """``far`` reaches the bucket through the proxy, ``near`` without it."""

    proxy: Proxy
    far: ArtifactStore
    near: ArtifactStore


@pytest.fixture(scope="module")
def line() -> Iterator[Line]:
    server = ThreadedMotoServer(HOST, 0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    proxy = Proxy(port)
    proxy.start()

    def store(port: int) -> ArtifactStore:
        options = KEYS | {"endpoint": f"http://{HOST}:{port}", "allow_http": "true"}
        limits = {"timeout": "2s", "connect_timeout": "1s"}
        return ArtifactStore.open(StoreSettings(url=f"s3://{BUCKET}/blobs", options=options | limits))

    s3 = boto3.client(
        "s3",
        endpoint_url=f"http://{HOST}:{port}",
        region_name=KEYS["region"],
        aws_access_key_id="a",
        aws_secret_access_key="b",
    )
    s3.create_bucket(Bucket=BUCKET)
    yield Line(proxy, store(proxy.port), store(port))
    proxy.stop()
    server.stop()


@pytest.fixture(scope="module")
def world(
    line: Line, farm_url: str, tmp_path_factory: pytest.TempPathFactory, inspection: InspectionPool
) -> Iterator[World]:
    farm = replace(open_farm(farm_url, tmp_path_factory.mktemp("farm"), inspection), store=line.far)
    with serving(farm) as url, client(url) as http:
        yield World(farm, url, http)
    farm.database.close()


@pytest.mark.parametrize("fault", FAULTS)
def test_a_store_that_does_not_answer(line: Line, tmp_path: Path, fault: Mode) -> None:
    digest, _ = line.far.put_bytes(b"there before")
    absent = os.urandom(16)
    with line.proxy.being(fault), ThreadPoolExecutor() as pool:
        refused = [
            pool.submit(line.far.put_bytes, absent),
            pool.submit(line.far.fetch, digest, tmp_path / "file"),
        ]
        for future in refused:
            error = future.exception(timeout=BOUND_SECONDS)
            assert isinstance(error, UnavailableError)
            assert "wonderland" not in str(error)
    assert list(tmp_path.iterdir()) == []
    lost = Digest.of_bytes(absent)
    assert line.near.stat(lost) is None or (fault is Mode.BLACK_HOLE and line.near.verify(lost))
    assert line.far.read(digest) == b"there before"


@pytest.mark.parametrize("cut_bytes", [0, 1, 1000, 5 << 20, 39 << 20])
def test_a_download_that_breaks_off(line: Line, tmp_path: Path, cut_bytes: int) -> None:
    """The whole file after all, or none."""
    digest, _ = line.near.put_bytes(LARGE)
    with line.proxy.being(Mode.DOWN):
        pass  # so that connections are new, and one is cut
    line.proxy.cut_after(cut_bytes)
    try:
        line.far.fetch(digest, tmp_path / "file")
    except (UnavailableError, BlobCorruptError):
        assert list(tmp_path.iterdir()) == []
    else:
        assert (tmp_path / "file").read_bytes() == LARGE
    line.far.fetch(digest, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == LARGE


@pytest.mark.parametrize("fault", FAULTS)
def test_the_line_fails_while_much_is_sent(line: Line, tmp_path: Path, fault: Mode) -> None:
    """Nothing becomes visible, or the whole."""
    data = os.urandom(len(LARGE))
    (tmp_path / "file").write_bytes(data)
    digest = Digest.of_bytes(data)

    def put() -> None:
        line.far.put_file(tmp_path / "file", digest, len(data))

    line.proxy.latency_seconds = 0.05
    try:
        with line.proxy.being(fault):
            with pytest.raises(UnavailableError):
                put()
            assert line.near.stat(digest) is None
        put()
    finally:
        line.proxy.latency_seconds = 0.0
    assert line.near.verify(digest)


@pytest.mark.parametrize("fault", FAULTS)
def test_clients_are_told_to_come_again(world: World, line: Line, fault: Mode) -> None:
    """And go on where they were."""
    blob, data = os.urandom(1000), onnx_model()
    assert resume(world.http, announce(world.http, blob), blob).json()["complete"]
    here = Digest.of_bytes(blob)
    upload_id = world.announce(data).json()["upload_id"]
    asked: list[tuple[str, str, dict[str, Any]]] = [
        ("GET", f"/v1/artifacts/{here}", {}),
        ("PATCH", f"/v1/uploads/{upload_id}", {"content": data, "headers": {"Upload-Offset": "0"}}),
        ("GET", "/readyz", {}),
    ]
    with line.proxy.being(fault), ThreadPoolExecutor() as pool:
        refused = [pool.submit(world.http.request, *to, **what, timeout=BOUND_SECONDS) for *to, what in asked]
        for future in refused:
            answer = future.result()
            problem(answer, 503, "UNAVAILABLE")
            assert int(answer.headers["Retry-After"]) > 0
        assert world.http.get("/v1/jobs").status_code == 200
    assert world.http.get(f"/v1/artifacts/{here}").status_code == 200
    assert resume(world.http, upload_id, data).json()["complete"]
