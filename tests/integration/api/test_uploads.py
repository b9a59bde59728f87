"""Files on their way in: in pieces, resumed, verified."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.integration.api.wires import half_sent
from tests.integration.api.world import World, onnx_model, problem
from trtfarm.contract.digest import Digest


def payload(size: int) -> bytes:
    return os.urandom(size)


def test_a_model_in_odd_pieces(world: World) -> None:
    data = onnx_model()
    answer = world.announce(data)
    assert answer.status_code == 201
    view = answer.json()
    assert answer.headers["location"] == f"/v1/uploads/{view['upload_id']}"
    assert (view["offset"], view["complete"], view["model"]) == (0, False, None)
    offset = 0
    for size in (1, 0, 7, 64, len(data)):
        piece = data[offset : offset + size]
        sent = world.send(view["upload_id"], piece, offset)
        assert sent.status_code == 200, sent.text
        offset += len(piece)
        head = world.http.head(f"/v1/uploads/{view['upload_id']}")
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["upload-offset"] == sent.headers["upload-offset"] == str(offset)
        assert world.get(f"/v1/uploads/{view['upload_id']}") == sent.json()
    assert sent.json()["complete"]
    assert sent.json()["model"] == Digest.of_bytes(data)
    assert world.farm.store.read(Digest.of_bytes(data)) == data
    assert view["upload_id"] not in world.staged()
    model = world.get(f"/v1/models/{Digest.of_bytes(data)}")
    assert [(each["name"], each["shape"]) for each in model["inputs"]] == [("x", [1, 4])]
    assert world.http.head(f"/v1/models/{Digest.of_bytes(data)}").status_code == 200


def test_announcing_again_resumes(world: World) -> None:
    data = onnx_model()
    first = world.announce(data).json()
    world.send(first["upload_id"], data[:50])
    again = world.announce(data)
    assert again.status_code == 200
    assert (again.json()["upload_id"], again.json()["offset"]) == (first["upload_id"], 50)
    assert world.send(first["upload_id"], data[50:], 50).json()["complete"]


def test_a_known_file_is_complete_at_once(world: World) -> None:
    data = onnx_model()
    digest = world.model(data)
    again = world.announce(data)
    assert again.status_code == 200
    assert again.json() | {"upload_id": None} == {
        "upload_id": None,
        "digest": digest,
        "size_bytes": len(data),
        "offset": len(data),
        "complete": True,
        "model": digest,
    }
    assert world.get(f"/v1/uploads/{again.json()['upload_id']}") == again.json()
    assert world.send(again.json()["upload_id"], b"", len(data)).json() == again.json()
    problem(world.send(again.json()["upload_id"], data, 0), 409, "OFFSET_MISMATCH")


@pytest.mark.parametrize("offset", [0, 9, 11, 2**70])
def test_wrong_offset(world: World, offset: int) -> None:
    data = onnx_model()
    upload_id = world.announce(data).json()["upload_id"]
    world.send(upload_id, data[:10])
    document = problem(world.send(upload_id, data[offset : offset + 5], offset), 409, "OFFSET_MISMATCH")
    assert document["details"]["offset"] == 10
    assert world.get(f"/v1/uploads/{upload_id}")["offset"] == 10


@pytest.mark.parametrize("offset", ["-1", "abc", "", "1.5"])
def test_an_offset_that_is_no_offset(world: World, offset: str) -> None:
    upload_id = world.announce(onnx_model()).json()["upload_id"]
    answer = world.http.patch(f"/v1/uploads/{upload_id}", content=b"x", headers={"Upload-Offset": offset})
    problem(answer, 422, "VALIDATION_ERROR")


def test_more_bytes_than_declared(world: World) -> None:
    data = onnx_model()
    upload_id = world.announce(data).json()["upload_id"]
    world.send(upload_id, data[:20])
    problem(world.send(upload_id, data[20:] + b"!", 20), 413, "SIZE_EXCEEDED")
    offset = world.get(f"/v1/uploads/{upload_id}")["offset"]
    assert 20 <= offset <= len(data)
    assert world.send(upload_id, data[offset:], offset).json()["complete"]


def test_far_more_bytes_than_declared(world: World) -> None:
    """The answer comes through although the body is not read to its end."""
    upload_id = world.announce(onnx_model()).json()["upload_id"]
    problem(world.send(upload_id, bytes(20 << 20)), 413, "SIZE_EXCEEDED")


def test_wrong_digest_starts_over(world: World) -> None:
    data = onnx_model()
    upload_id = world.announce(data).json()["upload_id"]
    wrong = data[:-1] + bytes([data[-1] ^ 1])
    problem(world.send(upload_id, wrong), 422, "DIGEST_MISMATCH")
    assert upload_id not in world.staged()
    view = world.announce(data).json()
    assert (view["upload_id"], view["offset"]) == (upload_id, 0)
    assert world.send(upload_id, data).json()["complete"]


def test_wrong_digest_of_what_is_no_model_either(world: World) -> None:
    """Bytes that were damaged on the way are no reason to doubt the model."""
    data = onnx_model()
    upload_id = world.announce(data).json()["upload_id"]
    problem(world.send(upload_id, bytes(len(data))), 422, "DIGEST_MISMATCH")


def test_one_writer_at_a_time(world: World) -> None:
    """The bytes of a second one do not mix with those of the first."""
    data = payload(300_000)
    upload_id = world.announce(data, kind="external_data").json()["upload_id"]
    with half_sent(world.url, upload_id, data, sent=100_000):
        answer = world.send(upload_id, data)
        problem(answer, 423, "UPLOAD_LOCKED")
        assert answer.headers["retry-after"]


def test_many_writers_at_once(world: World) -> None:
    data = payload(3_000_000)
    upload_id = world.announce(data, kind="external_data").json()["upload_id"]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: world.send(upload_id, data), range(8)))
    assert {answer.status_code for answer in answers} <= {200, 409, 423}
    assert [answer.status_code for answer in answers].count(200) == 1
    assert world.farm.store.read(Digest.of_bytes(data)) == data
    assert upload_id not in world.staged()


@pytest.mark.parametrize("kind", ["model", "external_data"])
def test_the_same_file_sent_by_many_at_once(world: World, kind: str) -> None:
    data = onnx_model()

    def upload(_: int) -> int:
        upload_id = world.announce(data, kind=kind).json()["upload_id"]
        return world.send(upload_id, data).status_code

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(upload, range(8))) <= {200, 409, 423}
    assert world.announce(data, kind=kind).json()["complete"]


def test_an_unknown_upload(world: World) -> None:
    for path in ("/v1/uploads/0", "/v1/uploads/0192f0c1-0000-7000-8000-000000000000"):
        problem(world.http.get(path), 404, "NOT_FOUND")
        problem(world.http.patch(path, content=b"x"), 404, "NOT_FOUND")


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"size_bytes": 0}, 422, "VALIDATION_ERROR"),
        ({"size_bytes": -1}, 422, "VALIDATION_ERROR"),
        ({"size_bytes": 1.5}, 422, "VALIDATION_ERROR"),
        ({"size_bytes": "many"}, 422, "VALIDATION_ERROR"),
        ({"size_bytes": 2**70}, 413, "UPLOAD_TOO_LARGE"),
        ({"size_bytes": None}, 422, "VALIDATION_ERROR"),
        ({"digest": "sha256:" + "A" * 64}, 422, "INVALID_DIGEST"),
        ({"digest": "md5:" + "a" * 32}, 422, "INVALID_DIGEST"),
        ({"digest": 7}, 422, "VALIDATION_ERROR"),
        ({"kind": "plan"}, 422, "VALIDATION_ERROR"),
        ({"name": "x"}, 422, "UNKNOWN_FIELD"),
    ],
)
def test_announcements_that_are_refused(
    world: World, change: dict[str, object], status: int, code: str
) -> None:
    problem(world.announce(onnx_model(), **change), status, code)


def test_uploaded_bytes_are_counted_once(world: World) -> None:
    def counted() -> float:
        lines = world.http.get("/metrics").text.splitlines()
        return float(
            next(line for line in lines if line.startswith("trtfarm_uploaded_bytes_total")).split()[1]
        )

    data, before = payload(1000), counted()
    upload_id = world.announce(data, kind="external_data").json()["upload_id"]
    for offset in range(0, 1000, 100):
        world.send(upload_id, data[offset : offset + 100], offset)
    assert counted() - before == 1000
