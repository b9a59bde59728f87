"""Documents that take long to read or to refuse hold up nobody, and refusals are short."""

from __future__ import annotations

import json
import threading

import pytest

from tests.integration.api.world import World, client
from trtfarm_api import documents

DIGEST = "sha256:" + "0" * 64
JSON = {"Content-Type": "application/json"}
MOST_BYTES = 16_000  # of a refusal
SLOW = {
    "unknown fields": json.dumps({f"f{number}": 1 for number in range(80_000)}),
    "as many as are read": json.dumps({f"field{number}": 1 for number in range(49_000)}),
    "a list of wrong ones": json.dumps({"digest": DIGEST, "size_bytes": 1, "external_data": [0] * 49_000}),
    "wrong ones with a few fields": json.dumps({"external_data": [{"a": 1, "b": 2, "c": 3}] * 12_000}),
    "a long name": json.dumps({"x" * 900_000: 1}),
    "many long names": json.dumps({f"{number}" * 10_000: 1 for number in range(90)}),
    "a long value": json.dumps({"digest": "x" * 900_000, "size_bytes": "x" * 100_000}),
    "deep lists": "[" * 500_000,
    "deep objects": '{"a":' * 100_000 + "1" + "}" * 100_000,
    "deep, but not too deep": '{"external_data":' + "[" * 900 + "]" * 900 + "}",
    "a long number": '{"size_bytes": ' + "9" * 900_000 + "}",
    "a number with a long exponent": '{"size_bytes": 1e' + "9" * 900_000 + "}",
    "a name again and again": "{" + ",".join(['"a": 1'] * 49_000) + "}",
    "escapes": json.dumps({"digest": "\u0000" * 150_000}),
}


@pytest.mark.parametrize(
    "route", ["/v1/uploads", "/v1/jobs", "/v1/campaigns", "/v1/orders", "/v1/plans/resolve"]
)
@pytest.mark.parametrize("body", SLOW.values(), ids=SLOW)
def test_refusals_are_short(locked: World, body: str, route: str) -> None:
    answer = locked.http.post(route, content=body.encode(), headers=JSON)
    assert answer.status_code in {400, 413, 422}, answer.text[:500]
    assert len(answer.content) < MOST_BYTES
    for each in answer.json().get("details", {}).get("errors", []):
        assert len(each["field"]) <= 200
        assert len(each["message"]) <= 300


def test_large_documents_are_read_in_another_thread(locked: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one is read, however long that takes, others are answered."""
    begun, go_on = threading.Event(), threading.Event()
    parse = documents.parse

    def slow(body: bytes) -> object:
        begun.set()
        assert go_on.wait(60)
        return parse(body)

    monkeypatch.setattr(documents, "parse", slow)
    key = locked.http.headers["authorization"].removeprefix("Bearer ")

    def submit() -> None:
        with client(locked.url, key) as http:
            http.post("/v1/jobs", content=SLOW["as many as are read"].encode(), headers=JSON)

    thread = threading.Thread(target=submit)
    thread.start()
    try:
        assert begun.wait(60)
        with client(locked.url) as http:
            assert http.get("/healthz").status_code == 200
    finally:
        go_on.set()
        thread.join()


def test_eighty_thousand_unknown_fields_are_not_even_read(
    locked: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To list what is wrong with each of them took 3.7 s."""
    monkeypatch.setattr(documents, "parse", None)
    answer = locked.http.post("/v1/jobs", content=SLOW["unknown fields"].encode(), headers=JSON)
    assert (answer.status_code, answer.json()["code"]) == (422, "VALIDATION_ERROR")
    assert "values" in answer.json()["detail"]


def test_no_more_errors_than_a_person_reads(locked: World) -> None:
    body = json.dumps({f"field{number}": 1 for number in range(500)})
    document = locked.http.post("/v1/jobs", content=body.encode(), headers=JSON).json()
    assert len(document["details"]["errors"]) == 20
    many = json.dumps({f"field{number}": 1 for number in range(2000)})
    document = locked.http.post("/v1/jobs", content=many.encode(), headers=JSON).json()
    assert "errors" in document["detail"]
    assert "errors" not in document["details"]


def test_a_large_document_that_is_right(locked: World) -> None:
    files = [{"location": f"w{number}", "digest": DIGEST, "size_bytes": 1} for number in range(7000)]
    body = {"digest": "sha256:" + "1" * 64, "size_bytes": 1, "external_data": files}
    answer = locked.http.post("/v1/uploads", json=body)
    assert answer.json()["code"] == "EXTERNAL_DATA_MISSING", answer.text[:500]
    assert len(answer.content) < MOST_BYTES
