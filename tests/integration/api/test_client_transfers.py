"""The SDK's large transfers: resumed after whatever happens between, and never wrong at the end."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto
from port_for import select_random

from tests.integration.api.wires import line_to
from tests.integration.api.world import Built, World, onnx_model, open_farm, serving
from trtfarm.contract.digest import Digest
from trtfarm.contract.models import ModelManifest
from trtfarm.errors import BlobCorruptError, DigestMismatchError, FarmUnreachableError, NotOnnxError
from trtfarm.inspection.manifest import manifest_of
from trtfarm.inspection.pool import InspectionPool
from trtfarm.sdk import transfer
from trtfarm.sdk.client import FarmClient

MIB = 1 << 20


class Counted:
    """Bytes of progress; never beyond the whole."""

    def __init__(self) -> None:
        self.total = self.most = 0

    def __call__(self, count: int) -> None:
        self.total += count
        self.most = max(self.most, self.total)


def large_model(folder: Path, weights_bytes: int) -> tuple[Path, ModelManifest]:
    path = folder / "model.onnx"
    path.write_bytes(onnx_model(weights="weights.bin", offset=0, length=16))
    (folder / "weights.bin").write_bytes(os.urandom(weights_bytes))
    return path, manifest_of(path)


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a small file takes many requests."""
    monkeypatch.setattr(transfer, "_PIECE_BYTES", 300_000)


@pytest.fixture(scope="module")
def sdk(world: World) -> Iterator[FarmClient]:
    with FarmClient(world.url) as client:
        yield client


@pytest.fixture(scope="module")
def plan(world: World) -> Built:
    return world.built(os.urandom(8 * MIB + 5))


# --- up ---


@pytest.mark.usefixtures("small_pieces")
def test_external_data_goes_along(sdk: FarmClient, tmp_path: Path) -> None:
    path, manifest = large_model(tmp_path, 2 * MIB)
    counted = Counted()
    assert sdk.upload_model(path, manifest, counted) == manifest.digest
    assert counted.total == counted.most == manifest.size_bytes
    assert [file.location for file in sdk.model(manifest.digest).external_data] == ["weights.bin"]
    again = Counted()
    assert sdk.upload_model(path, manifest, again) == manifest.digest
    assert again.total == 0


def test_what_is_known_is_not_sent_again(sdk: FarmClient, tmp_path: Path) -> None:
    """Weights that another model brought."""
    path, manifest = large_model(tmp_path, MIB)
    sdk.upload_model(path, manifest)
    path.write_bytes(onnx_model(weights="weights.bin"))
    second = manifest_of(path)
    with line_to(sdk.url) as line, FarmClient(line.url) as client:
        counted = Counted()
        client.upload_model(path, second, counted)
        assert counted.total == second.size_bytes


@pytest.mark.parametrize("cut_after", [40, 300, 700])
def test_an_upload_whose_answers_are_lost(world: World, tmp_path: Path, cut_after: int) -> None:
    path, manifest = large_model(tmp_path, 3 * MIB)
    counted = Counted()
    with line_to(world.url, cut_after, 3) as line, FarmClient(line.url) as client:
        assert client.upload_model(path, manifest, counted) == manifest.digest
        assert line.connections > 3
    assert counted.total == counted.most == manifest.size_bytes
    assert world.http.get(f"/v1/models/{manifest.digest}").status_code == 200


class Stopping:
    """Tells when some bytes were sent; the server is stopped while the client goes on."""

    def __init__(self, at: int) -> None:
        self._at, self._seen, self.reached = at, 0, threading.Event()

    def __call__(self, count: int) -> None:
        self._seen += count
        if self._seen >= self._at:
            self.reached.set()


@pytest.mark.parametrize("pieces", [300_000, 64 * MIB])
def test_a_server_that_restarts_in_the_middle(
    farm_url: str,
    tmp_path: Path,
    inspection: InspectionPool,
    monkeypatch: pytest.MonkeyPatch,
    pieces: int,
) -> None:
    monkeypatch.setattr(transfer, "_PIECE_BYTES", pieces)
    path, manifest = large_model(tmp_path, 40 * MIB)
    port, stopping, done = select_random(), Stopping(4 * MIB), []
    farm = open_farm(farm_url, tmp_path / "farm", inspection)
    with FarmClient(f"http://127.0.0.1:{port}") as client:

        def upload() -> None:
            done.append(client.upload_model(path, manifest, stopping))

        with serving(farm, port):
            uploading = threading.Thread(target=upload)
            uploading.start()
            assert stopping.reached.wait(20)
        assert not done
        with serving(farm, port):
            uploading.join(60)
            assert done == [manifest.digest]
            assert client.model(manifest.digest)
    farm.database.close()


def test_a_server_that_does_not_come_back(
    farm_url: str, tmp_path: Path, inspection: InspectionPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Said after a while; what was sent is not lost, and the next run goes on from there."""
    monkeypatch.setattr(transfer, "_BACKOFF_SECONDS", 0.002)
    monkeypatch.setattr(transfer, "_PIECE_BYTES", 300_000)
    path, manifest = large_model(tmp_path, 20 * MIB)
    port, stopping, errors = select_random(), Stopping(4 * MIB), []
    farm = open_farm(farm_url, tmp_path / "farm", inspection)
    with FarmClient(f"http://127.0.0.1:{port}") as client:

        def upload() -> None:
            try:
                client.upload_model(path, manifest, stopping)
            except FarmUnreachableError as error:
                errors.append(error)

        with serving(farm, port):
            uploading = threading.Thread(target=upload)
            uploading.start()
            assert stopping.reached.wait(20)
        uploading.join(60)
        assert errors[0].hint == "Run it again to resume."
        with serving(farm, port):
            first: list[int] = []
            assert client.upload_model(path, manifest, first.append) == manifest.digest
            assert first[0] >= 300_000  # the first word is where it goes on
    farm.database.close()


def test_a_model_that_changes_while_it_is_sent(sdk: FarmClient, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(onnx_model())
    manifest = manifest_of(path)
    path.write_bytes(onnx_model())
    with pytest.raises(DigestMismatchError):
        sdk.upload_model(path, manifest)
    assert not sdk.has_model(manifest.digest)


def test_what_is_no_model(sdk: FarmClient, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"<html>" * 100)
    manifest = ModelManifest(onnx=Digest.of_bytes(path.read_bytes()), onnx_size_bytes=600)
    with pytest.raises(NotOnnxError):
        sdk.upload_model(path, manifest)


# --- down ---


def test_a_download(sdk: FarmClient, plan: Built, tmp_path: Path) -> None:
    destination, counted = tmp_path / "some" / "folder" / "model.plan", Counted()
    sdk.pull(plan.digest, destination, counted)
    assert destination.read_bytes() == plan.data
    assert counted.total == len(plan.data)
    assert list(destination.parent.iterdir()) == [destination]


@pytest.mark.parametrize("cut_after", [100, 3_000_000, 8 * MIB])
def test_a_line_that_is_cut(world: World, plan: Built, tmp_path: Path, cut_after: int) -> None:
    """Again and again: each time it goes on from what has come."""
    destination, counted = tmp_path / "model.plan", Counted()
    with line_to(world.url, cut_after, 2) as line, FarmClient(line.url) as client:
        client.pull(plan.digest, destination, counted)
        assert line.connections > 1
    assert destination.read_bytes() == plan.data
    assert counted.total == counted.most == len(plan.data)
    assert list(tmp_path.iterdir()) == [destination]


def test_a_line_that_lets_little_through(world: World, plan: Built, tmp_path: Path) -> None:
    """More cuts than it is patient: but every time something comes."""
    destination = tmp_path / "model.plan"
    with line_to(world.url, 700_000, 99) as line, FarmClient(line.url) as client:
        client.pull(plan.digest, destination)
        assert line.connections > transfer._TRIES
    assert destination.read_bytes() == plan.data


def test_the_next_run_goes_on(
    world: World, sdk: FarmClient, plan: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "_TRIES", 1)
    destination = tmp_path / "model.plan"
    destination.write_bytes(b"older plan")
    with line_to(world.url, 3_000_000, 1) as line, FarmClient(line.url) as client:
        with pytest.raises(FarmUnreachableError) as caught:
            client.pull(plan.digest, destination)
        assert caught.value.hint == "Run it again to resume."
    assert destination.read_bytes() == b"older plan"
    first: list[int] = []
    sdk.pull(plan.digest, destination, first.append)
    assert first[0] > 2_000_000
    assert destination.read_bytes() == plan.data


def test_a_partial_file_that_is_whole_already(sdk: FarmClient, plan: Built, tmp_path: Path) -> None:
    """The client was stopped just before it gave the file its name."""
    destination = tmp_path / "model.plan"
    (tmp_path / f".model.plan.{plan.digest.short}.part").write_bytes(plan.data)
    sdk.pull(plan.digest, destination)
    assert destination.read_bytes() == plan.data


@pytest.mark.parametrize("junk", [b"junk", bytes(9 * MIB)])
def test_a_partial_file_that_is_wrong(sdk: FarmClient, plan: Built, tmp_path: Path, junk: bytes) -> None:
    """It is found out and dropped; the next run begins anew."""
    destination = tmp_path / "model.plan"
    destination.write_bytes(b"older plan")
    (tmp_path / f".model.plan.{plan.digest.short}.part").write_bytes(junk)
    with pytest.raises(BlobCorruptError):
        sdk.pull(plan.digest, destination)
    assert destination.read_bytes() == b"older plan"
    assert list(tmp_path.iterdir()) == [destination]
    sdk.pull(plan.digest, destination)
    assert destination.read_bytes() == plan.data


def test_other_bytes_than_promised(plan: Built, tmp_path: Path) -> None:
    """A proxy that spoils what passes, and does not know that it does."""
    data = bytes([plan.data[0] ^ 1]) + plan.data[1:]

    class Spoiling(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    destination = tmp_path / "model.plan"
    destination.write_bytes(b"older plan")
    with ThreadingHTTPServer(("127.0.0.1", 0), Spoiling) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        with FarmClient(f"http://127.0.0.1:{server.server_port}") as client:
            with pytest.raises(BlobCorruptError):
                client.pull(plan.digest, destination)
            with pytest.raises(BlobCorruptError):
                client.artifact(plan.digest)
        server.shutdown()
        thread.join()
    assert destination.read_bytes() == b"older plan"
    assert list(tmp_path.iterdir()) == [destination]


def test_a_blob_that_was_damaged_in_the_store(world: World, sdk: FarmClient, tmp_path: Path) -> None:
    plan = world.built(b"soon damaged")
    world.blob(plan.digest).write_bytes(b"soon demaged")
    destination = tmp_path / "model.plan"
    with pytest.raises(BlobCorruptError):
        sdk.pull(plan.digest, destination)
    assert list(tmp_path.iterdir()) == []


def test_external_data_of_onnx_itself(sdk: FarmClient, tmp_path: Path) -> None:
    """Saved as people save it."""
    model = onnx.load_from_string(onnx_model())
    weight = model.graph.initializer[0]
    weight.CopyFrom(TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], raw_data=os.urandom(16)))
    path = tmp_path / "model.onnx"
    onnx.save_model(
        model, path, save_as_external_data=True, location="w.bin", size_threshold=0, convert_attribute=False
    )
    assert sdk.upload_model(path, manifest_of(path))
