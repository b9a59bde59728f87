"""What is accepted as a model, with its external data, and what is not."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

import onnx
import pytest
from sqlalchemy import text

from tests.integration.api.world import World, onnx_model, problem
from trtfarm.contract.digest import Digest
from trtfarm.contract.models import ModelManifest

LIGHT = Path(onnx.__file__).parent / "backend/test/data/light/light_squeezenet.onnx"
LFS = (
    b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1"
    b"258daaa5e2ca24d17e2393\nsize 12345\n"
)


def zipped(name: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, b"x" * 100)
    return file.getvalue()


def renamed(**names: str) -> bytes:
    model = onnx.load_from_string(onnx_model())
    for field in (model.graph.input, model.graph.node[0].input):
        for index, each in enumerate(field):
            if isinstance(each, str):
                field[index] = names.get(each, each)
            else:
                each.name = names.get(each.name, each.name)
    return model.SerializeToString()


REFUSED = {
    "pickle": (pickle.dumps({"state_dict": [1, 2, 3]}), "NOT_ONNX"),
    "html": (b"<!DOCTYPE html><html><body>Sign in</body></html>", "NOT_ONNX"),
    "lfs": (LFS, "NOT_ONNX"),
    "zip": (zipped("model.onnx"), "NOT_ONNX"),
    "torch": (zipped("archive/data.pkl"), "NOT_ONNX"),
    "zeros": (bytes(5000), "NOT_ONNX"),
    "one byte": (b"\x08", "NOT_ONNX"),
    "truncated": (LIGHT.read_bytes()[:-1], "ONNX_TRUNCATED"),
    "truncated at half": (LIGHT.read_bytes()[: LIGHT.stat().st_size // 2], "ONNX_TRUNCATED"),
    "NUL in a name": (renamed(x="x\0"), "ONNX_INVALID_GRAPH"),
    "external data not announced": (onnx_model(weights="w.bin"), "EXTERNAL_DATA_MISSING"),
    "external data outside": (onnx_model(weights="../w.bin"), "EXTERNAL_DATA_FORBIDDEN_PATH"),
}


@pytest.mark.parametrize(("data", "code"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(world: World, data: bytes, code: str) -> None:
    """With a stable code, and nothing of it stays: not in staging, the store or the database."""
    announced = world.announce(data)
    document = problem(world.send(announced.json()["upload_id"], data), 422, code)
    assert "Traceback" not in str(document)
    digest = Digest.of_bytes(data)
    assert announced.json()["upload_id"] not in world.staged()
    assert world.farm.store.stat(digest) is None
    problem(world.http.get(f"/v1/models/{digest}"), 404, "MODEL_NOT_FOUND")
    with world.farm.database.transaction() as connection:
        for table in ("models", "artifacts"):
            query = text(f"SELECT count(*) FROM {table} WHERE digest = :digest")
            assert connection.execute(query, {"digest": digest}).scalar_one() == 0
    assert world.announce(data).json()["offset"] == 0


def test_a_real_model(world: World) -> None:
    data = LIGHT.read_bytes()
    view = world.get(f"/v1/models/{world.model(data)}")
    assert view["size_bytes"] == len(data)
    assert view["inputs"]
    assert view["node_count"] > 50


# --- external data ---


def files(location: str, data: bytes, **change: object) -> list[dict[str, object]]:
    return [{"location": location, "digest": Digest.of_bytes(data), "size_bytes": len(data)} | change]


def test_external_data_first(world: World) -> None:
    weights, data = b"first" + bytes(16), onnx_model(weights="w.bin", offset=5, length=16)
    listed = files("w.bin", weights)
    problem(world.announce(data, external_data=listed), 422, "EXTERNAL_DATA_MISSING")
    assert world.upload(weights, kind="external_data").json()["model"] is None
    digest = world.model(data, external_data=listed)
    manifest = {"onnx": Digest.of_bytes(data), "onnx_size_bytes": len(data), "external_data": listed}
    assert digest == ModelManifest.model_validate(manifest).digest
    view = world.get(f"/v1/models/{digest}")
    assert (view["external_data"], view["size_bytes"]) == (listed, len(data) + len(weights))
    assert world.announce(data, external_data=listed).json()["complete"]


def test_external_data_after_the_model(world: World) -> None:
    """The model without its data is refused, and taken when it comes again with it."""
    weights, data = b"after" + bytes(16), onnx_model(weights="w.bin")
    problem(world.upload(data), 422, "EXTERNAL_DATA_MISSING")
    world.upload(weights, kind="external_data")
    assert world.model(data, external_data=files("w.bin", weights))


def test_the_same_onnx_file_with_other_weights(world: World) -> None:
    data = onnx_model(weights="w.bin")
    digests = set()
    for weights in (b"one" + bytes(16), b"two" + bytes(16)):
        world.upload(weights, kind="external_data")
        digests.add(world.model(data, external_data=files("w.bin", weights)))
    assert len(digests) == 2


def test_external_data_that_the_model_does_not_use(world: World) -> None:
    weights, data = b"unused" + bytes(16), onnx_model()
    world.upload(weights, kind="external_data")
    problem(world.upload(data, external_data=files("w.bin", weights)), 409, "CONFLICT")
    assert world.farm.store.stat(Digest.of_bytes(data)) is None
    assert world.model(data)


@pytest.mark.parametrize("external", [{"offset": 1, "length": 20}, {"offset": 30}, {"length": 2**62}])
def test_external_data_that_is_too_short(world: World, external: dict[str, int]) -> None:
    weights, data = f"{external}".encode()[:20].ljust(20), onnx_model(weights="w.bin", **external)
    world.upload(weights, kind="external_data")
    problem(world.upload(data, external_data=files("w.bin", weights)), 422, "EXTERNAL_DATA_RANGE")


def test_external_data_of_another_size_than_said(world: World) -> None:
    """Or a model could claim ranges that are not there."""
    weights, data = b"size" + bytes(16), onnx_model(weights="w.bin", offset=100, length=16)
    world.upload(weights, kind="external_data")
    listed = files("w.bin", weights, size_bytes=1000)
    problem(world.announce(data, external_data=listed), 422, "DIGEST_MISMATCH")


@pytest.mark.parametrize("location", ["../w.bin", "/etc/passwd", "C:\\w", "", ".", "a//b", "w\n", "a/../b"])
def test_external_data_elsewhere(world: World, location: str) -> None:
    listed = files(location, b"x")
    problem(world.announce(onnx_model(), external_data=listed), 422, "EXTERNAL_DATA_FORBIDDEN_PATH")


@pytest.mark.parametrize("locations", [("w.bin", "w.bin"), ("w", "w/bin")])
def test_external_data_that_no_disk_could_hold(world: World, locations: tuple[str, str]) -> None:
    weights = f"twice {locations}".encode()
    upload_id = world.announce(weights, kind="external_data").json()["upload_id"]
    world.send(upload_id, weights)
    listed = [file for location in locations for file in files(location, weights)]
    problem(world.announce(onnx_model(), external_data=listed), 422, "EXTERNAL_DATA_FORBIDDEN_PATH")


# --- models that are lost ---


def test_a_model_whose_blob_is_gone_can_be_uploaded_again(world: World) -> None:
    data = onnx_model()
    digest = world.model(data)
    world.blob(digest).unlink()
    problem(world.http.get(f"/v1/models/{digest}"), 404, "MODEL_NOT_FOUND")
    assert world.model(data) == digest
    assert world.http.get(f"/v1/models/{digest}").status_code == 200


def test_a_model_whose_blob_is_damaged_can_be_uploaded_again(world: World) -> None:
    data = onnx_model()
    digest = world.model(data)
    world.blob(digest).write_bytes(data[:-1] + b"?")
    view = world.announce(data).json()
    assert (view["complete"], view["offset"]) == (False, 0)
    world.send(view["upload_id"], data)
    assert world.farm.store.read(Digest(digest)) == data
