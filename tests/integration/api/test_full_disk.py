"""Disks that are full, for real where one may mount one; else the kernel's limit on the size of files."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

from tests.integration.api.server_process import ServerProcess, server_process
from tests.integration.api.test_upload_faults import announce, resume, wait_for
from tests.integration.api.world import World, client, onnx_model, open_farm, problem, serving
from trtfarm.contract.digest import Digest
from trtfarm.inspection.pool import InspectionPool
from trtfarm_api import space

KIB, MIB = 1 << 10, 1 << 20
DISK_BYTES = 12 << 20
DATA_BYTES = 2 << 20


@dataclass
class SmallDisk:
    """A farm in a process of its own; ``left(bytes)`` leaves its files only so much room."""

    server: ServerProcess
    http: httpx.Client
    folder: Path
    left: Callable[[int], AbstractContextManager[None]]

    def litter(self) -> list[Path]:
        return list(self.folder.glob("artifacts/incoming/*"))


@pytest.fixture(scope="module")
def disk(farm_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallDisk]:
    folder = tmp_path_factory.mktemp("disk")
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    mounted = os.geteuid() == 0 and subprocess.run(mount, capture_output=True, check=False).returncode == 0
    try:
        with server_process(farm_url, folder) as server, client(server.url) as http:

            @contextlib.contextmanager
            def filled(left_bytes: int) -> Iterator[None]:
                filler = folder / "filler"
                filler.write_bytes(bytes(max(0, shutil.disk_usage(folder).free - left_bytes)))
                yield
                filler.unlink()

            @contextlib.contextmanager
            def limited(left_bytes: int) -> Iterator[None]:
                process = psutil.Process(server.pid)
                before = process.rlimit(resource.RLIMIT_FSIZE)
                process.rlimit(resource.RLIMIT_FSIZE, (left_bytes, before[1]))
                yield
                process.rlimit(resource.RLIMIT_FSIZE, before)

            yield SmallDisk(server, http, folder, filled if mounted else limited)
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)


def sent_into(disk: SmallDisk, upload_id: str, data: bytes, left_bytes: int) -> httpx.Response:
    """The disk fills up while a request is under way: once its first bytes are written."""
    first = MIB  # as much as is written at once

    def arrived() -> bool:
        return bool(disk.http.get(f"/v1/uploads/{upload_id}").json()["offset"] >= first)

    with contextlib.ExitStack() as stack:

        def body() -> Iterator[bytes]:
            yield data[:first]
            wait_for(arrived)
            stack.enter_context(disk.left(left_bytes))
            for start in range(first, len(data), 64 * KIB):
                yield data[start : start + 64 * KIB]

        return disk.http.patch(f"/v1/uploads/{upload_id}", content=body(), headers={"Upload-Offset": "0"})


def test_staging_fills_up_while_bytes_come(disk: SmallDisk) -> None:
    data = os.urandom(DATA_BYTES)
    upload_id = announce(disk.http, data)
    problem(sent_into(disk, upload_id, data, 600 * KIB), 507, "INSUFFICIENT_STORAGE")
    offset = disk.http.get(f"/v1/uploads/{upload_id}").json()["offset"]
    assert MIB <= offset < DATA_BYTES
    assert resume(disk.http, upload_id, data).json()["complete"]
    assert disk.http.get(f"/v1/artifacts/{Digest.of_bytes(data)}").content == data


def test_the_store_fills_up_as_a_file_is_published(disk: SmallDisk) -> None:
    """Nothing of it is left there, the bytes in staging wait, and everything else goes on."""
    data = os.urandom(DATA_BYTES)
    upload_id = announce(disk.http, data)
    head = disk.http.patch(f"/v1/uploads/{upload_id}", content=data[:-1])
    assert head.json()["offset"] == DATA_BYTES - 1
    with disk.left(300 * KIB):
        problem(resume(disk.http, upload_id, data), 507, "INSUFFICIENT_STORAGE")
        assert disk.litter() == []
        problem(disk.http.get(f"/v1/artifacts/{Digest.of_bytes(data)}"), 404, "BLOB_MISSING")
        assert disk.http.get("/v1/jobs").status_code == 200
        assert disk.http.get("/metrics").status_code == 200
        assert disk.http.get("/readyz").status_code == 200
    assert resume(disk.http, upload_id, data).json()["complete"]
    assert disk.http.get(f"/v1/artifacts/{Digest.of_bytes(data)}").content == data


def test_a_small_model_while_the_disk_is_full(disk: SmallDisk) -> None:
    data = onnx_model()
    with disk.left(0):
        body = {"digest": Digest.of_bytes(data), "size_bytes": len(data)}
        answer = disk.http.post("/v1/uploads", json=body)
        if answer.status_code == 201:  # a limit on files does not show before they are written
            answer = disk.http.patch(f"/v1/uploads/{answer.json()['upload_id']}", content=data)
        problem(answer, 507, "INSUFFICIENT_STORAGE")
        assert disk.litter() == []
    assert resume(disk.http, announce(disk.http, data, "model"), data).json()["complete"]


def test_the_reserve_is_left_free(farm_url: str, tmp_path: Path, inspection: InspectionPool) -> None:
    """At the announcement, and again before the bytes come."""
    data = onnx_model()
    for reserve, status in ((0, 201), (1 << 62, 507)):
        farm = open_farm(farm_url, tmp_path, inspection, disk_reserve_bytes=reserve)
        with serving(farm) as url, client(url) as http:
            world = World(farm, url, http)
            answer = world.announce(data)
            assert answer.status_code == status
            if status == 201:
                upload_id = answer.json()["upload_id"]
            else:
                assert problem(answer, 507, "INSUFFICIENT_STORAGE")["hint"]
                problem(world.send(upload_id, data), 507, "INSUFFICIENT_STORAGE")
                assert world.staged() in ({}, {upload_id: 0})
            text = http.get("/metrics").text
            assert 'trtfarm_disk_free_bytes{place="staging"}' in text
        farm.database.close()


def test_folders_on_one_disk_need_their_room_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trtfarm.errors import StorageFullError

    monkeypatch.setattr(space, "free_bytes", lambda _: 100.0)
    one, two = tmp_path / "one", tmp_path / "two"
    space.require({one: 40, two: 40}, 20)
    with pytest.raises(StorageFullError, match="81 bytes"):
        space.require({one: 40, two: 41}, 20)
