"""Uploads through broken connections, killed servers and full disks."""

from __future__ import annotations

import logging
import os
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.integration.api.server_process import ServerProcess, server_process
from tests.integration.api.wires import connect, half_sent
from tests.integration.api.world import World, client, onnx_model, open_farm, problem, serving
from trtfarm.contract.digest import Digest
from trtfarm.inspection.pool import InspectionPool
from trtfarm_api.farm import Farm
from trtfarm_api.services import uploads

MIB = 1 << 20


@pytest.fixture(scope="module")
def server(farm_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with server_process(farm_url, tmp_path_factory.mktemp("process")) as server:
        yield server


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def announce(http: httpx.Client, data: bytes, kind: str = "external_data") -> str:
    body = {"digest": Digest.of_bytes(data), "size_bytes": len(data), "kind": kind}
    return str(http.post("/v1/uploads", json=body).json()["upload_id"])


def resume(http: httpx.Client, upload_id: str, data: bytes) -> httpx.Response:
    offset = int(http.head(f"/v1/uploads/{upload_id}").headers["upload-offset"])
    return http.patch(
        f"/v1/uploads/{upload_id}", content=data[offset:], headers={"Upload-Offset": str(offset)}
    )


@pytest.mark.parametrize("sent", [1, 1000, 3 * MIB + 17])
def test_a_connection_that_breaks(world: World, caplog: pytest.LogCaptureFixture, sent: int) -> None:
    """Every byte that came is kept, and nobody's log has a traceback."""
    data = os.urandom(4 * MIB)
    upload_id = announce(world.http, data)
    with caplog.at_level(logging.INFO):
        with half_sent(world.url, upload_id, data, sent):
            # Reset before they were read, bytes are lost in the network.
            time.sleep(0.3)
        wait_for(lambda: world.staged()[upload_id] > 0)
    wait_for(lambda: resume(world.http, upload_id, data[:sent]).status_code != 423)
    assert world.get(f"/v1/uploads/{upload_id}")["offset"] == sent
    assert resume(world.http, upload_id, data).json()["complete"]
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_a_client_that_goes_silent(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its machine lost power: the connection stays open for ever, the upload does not stay locked."""
    monkeypatch.setattr(uploads, "_STALL_SECONDS", 0.3)
    data = onnx_model()
    upload_id = announce(world.http, data, "model")
    with half_sent(world.url, upload_id, data, sent=60):
        problem(resume(world.http, upload_id, data), 423, "UPLOAD_LOCKED")
        wait_for(lambda: world.get(f"/v1/uploads/{upload_id}")["offset"] == 60)
        wait_for(lambda: resume(world.http, upload_id, data).status_code == 200)


def test_a_slow_client_is_not_a_silent_one(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "_STALL_SECONDS", 0.3)
    data = onnx_model()
    upload_id = announce(world.http, data, "model")

    def slowly() -> Iterator[bytes]:
        for start in range(0, len(data), 40):
            time.sleep(0.1)
            yield data[start : start + 40]

    assert world.http.patch(f"/v1/uploads/{upload_id}", content=slowly()).json()["complete"]


def test_a_server_that_is_restarted(another_farm: Farm, farm_url: str, inspection: InspectionPool) -> None:
    data = onnx_model()
    with serving(another_farm) as url, client(url) as http:
        upload_id = announce(http, data, "model")
        http.patch(f"/v1/uploads/{upload_id}", content=data[:33])
    farm = open_farm(farm_url, another_farm.settings.staging.parent, inspection)
    with serving(farm) as url, client(url) as http:
        assert http.get(f"/v1/uploads/{upload_id}").json()["offset"] == 33
        assert resume(http, upload_id, data).json()["complete"]
    farm.database.close()


def test_a_server_that_is_killed(server: ServerProcess) -> None:
    data = os.urandom(5 * MIB)
    with client(server.url) as http:
        upload_id = announce(http, data)
        http.patch(f"/v1/uploads/{upload_id}", content=data[: 2 * MIB])
        with half_sent(server.url, upload_id, data[2 * MIB :], sent=2 * MIB + 9, offset=2 * MIB):
            time.sleep(0.2)
            server.restart()
        offset = int(http.head(f"/v1/uploads/{upload_id}").headers["upload-offset"])
        assert 2 * MIB <= offset <= 4 * MIB + 9
        assert resume(http, upload_id, data).json()["complete"]
        assert http.get(f"/v1/artifacts/{Digest.of_bytes(data)}").content == data


def test_a_disk_that_is_full(server: ServerProcess) -> None:
    """The limit on the size of files stands for it: writes fail half-way in just the same manner."""
    data = os.urandom(4 * MIB)
    limited = psutil.Process(server.pid)
    unlimited = limited.rlimit(resource.RLIMIT_FSIZE)
    with client(server.url) as http:
        upload_id = announce(http, data)
        limited.rlimit(resource.RLIMIT_FSIZE, (2 * MIB + 100, unlimited[1]))
        try:
            answer = http.patch(f"/v1/uploads/{upload_id}", content=data)
            problem(answer, 507, "INSUFFICIENT_STORAGE")
            assert http.get(f"/v1/uploads/{upload_id}").json()["offset"] == 2 * MIB + 100
            problem(resume(http, upload_id, data), 507, "INSUFFICIENT_STORAGE")
        finally:
            limited.rlimit(resource.RLIMIT_FSIZE, unlimited)
        assert resume(http, upload_id, data).json()["complete"]
        assert http.get(f"/v1/artifacts/{Digest.of_bytes(data)}").content == data


def test_memory_stays_flat(server: ServerProcess) -> None:
    """300 MB in one request, and back."""
    piece = os.urandom(MIB)
    digest = Digest.of_chunks(piece for _ in range(300))
    with client(server.url) as http:
        http.get("/readyz")
        body = {"digest": digest, "size_bytes": 300 * MIB, "kind": "external_data"}
        upload_id = http.post("/v1/uploads", json=body).json()["upload_id"]
        before = psutil.Process(server.pid).memory_info().rss
        server.forget_peak()
        chunks = (piece for _ in range(300))
        assert http.patch(f"/v1/uploads/{upload_id}", content=chunks).json()["complete"]
        with http.stream("GET", f"/v1/artifacts/{digest}") as response:
            assert Digest.of_chunks(response.iter_raw(MIB)) == digest
        assert server.peak_bytes() - before < 100 * MIB


def test_more_than_the_staging_disk_holds(farm_url: str, tmp_path: Path, inspection: InspectionPool) -> None:
    farm = open_farm(farm_url, tmp_path, inspection, max_upload_bytes=2**60)
    with serving(farm) as url, client(url) as http:
        body = {"digest": Digest.of_bytes(b""), "size_bytes": 2**60}
        assert problem(http.post("/v1/uploads", json=body), 507, "INSUFFICIENT_STORAGE")["hint"]
        body["size_bytes"] += 1
        problem(http.post("/v1/uploads", json=body), 413, "UPLOAD_TOO_LARGE")
    farm.database.close()


def test_a_body_in_chunks(world: World) -> None:
    """Without a Content-Length, in pieces that have nothing to do with the farm's own."""
    data = onnx_model()
    upload_id = announce(world.http, data, "model")
    with connect(world.url) as connection:
        connection.sendall(
            f"PATCH /v1/uploads/{upload_id} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
            "Connection: close\r\n\r\n".encode()
        )
        for byte in data:
            connection.sendall(b"1\r\n" + bytes([byte]) + b"\r\n")
        connection.sendall(b"0\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b'"complete":true' in answer
