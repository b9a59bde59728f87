"""Whatever is sent, the answer is no 5xx, and every refusal is a problem document."""

from __future__ import annotations

import copy
import json
from typing import Any

import httpx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.integration.api.world import World, onnx_model

fuzzed = settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck), database=None)

TEXT = st.text(max_size=20)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
JOB: dict[str, Any] = {
    "kind": "build",
    "target": {"gpu": "cc-8.9", "runtime": "tensorrt-rtx", "platform": "linux-x86_64"},
    "config": {
        "tf32": False,
        "sparsity": "enable",
        "memory_pool_limits": {"workspace": 4096},
        "input_io_formats": ["chw"],
        "preview_features": {"ALIASED_PLUGIN_IO_10_03": True},
        "layer_precisions": {"conv*": "fp16"},
    },
    "profiles": [{"x": {"min": [1, 4], "opt": [2, 4], "max": [4, 4]}}],
    "priority": 3,
    "timeout_seconds": 100.0,
    "wait_for_worker": True,
}
UPLOAD: dict[str, Any] = {
    "digest": "sha256:" + "0" * 64,
    "size_bytes": 100,
    "kind": "model",
    "external_data": [{"location": "w.bin", "digest": "sha256:" + "1" * 64, "size_bytes": 4}],
}


def places(document: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    items = (
        document.items()
        if isinstance(document, dict)
        else enumerate(document)
        if isinstance(document, list)
        else ()
    )
    for name, value in items:
        found += places(value, (*path, name))
    return found


@st.composite
def spoilt(draw: st.DrawFn, document: dict[str, Any]) -> Any:
    """A valid document with a few places changed, dropped, or added to."""
    document = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 3))):
        *way, last = draw(st.sampled_from(places(document)))
        holder = document
        for name in way:
            holder = holder[name]
        what = draw(st.sampled_from(["change", "drop", "add", "repeat"]))
        if what == "drop":
            del holder[last]
        elif what == "add" and isinstance(holder, dict):
            holder[draw(TEXT)] = draw(VALUES)
        elif what == "repeat":
            holder[last] = [holder[last]] * draw(st.integers(0, 3))
        else:
            holder[last] = draw(VALUES)
        if not places(document):
            break
    return document


def check(answer: httpx.Response) -> None:
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400:
        assert answer.headers["content-type"] == "application/problem+json"
        document = answer.json()
        assert document["code"] == document["code"].upper()
        assert len(answer.content) < 20_000


def post(world: World, path: str, document: Any) -> None:
    """With escapes too, which carry what UTF-8 cannot."""
    body = json.dumps(document).encode()
    check(world.http.post(path, content=body, headers={"Content-Type": "application/json"}))


@fuzzed
@given(data=st.data())
def test_submissions(world: World, data: st.DataObject) -> None:
    if not hasattr(test_submissions, "model"):
        test_submissions.model = world.model(onnx_model(shape=("n", 4)))
    post(world, "/v1/jobs", data.draw(spoilt(JOB | {"model": test_submissions.model})))


@fuzzed
@given(document=spoilt(UPLOAD))
def test_announcements(world: World, document: Any) -> None:
    post(world, "/v1/uploads", document)


@fuzzed
@given(document=VALUES, path=st.sampled_from(["/v1/jobs", "/v1/uploads"]))
def test_any_document(world: World, document: Any, path: str) -> None:
    post(world, path, document)


@fuzzed
@given(body=st.binary(max_size=200), path=st.sampled_from(["/v1/jobs", "/v1/uploads"]))
def test_any_bytes(world: World, body: bytes, path: str) -> None:
    check(world.http.post(path, content=body, headers={"Content-Type": "application/json"}))


@fuzzed
@given(
    path=st.sampled_from(["/v1/jobs", "/v1/plans"]),
    params=st.dictionaries(
        st.sampled_from(["state", "model", "gpu", "runtime", "cursor", "limit"]), TEXT | st.integers()
    ),
)
def test_any_query(world: World, path: str, params: dict[str, Any]) -> None:
    check(world.http.get(path, params=params))


@fuzzed
@given(
    name=st.text(min_size=1, max_size=30),
    method=st.sampled_from(["GET", "HEAD", "POST", "PATCH"]),
    route=st.sampled_from(
        [
            "/v1/jobs/{}",
            "/v1/jobs/{}/log",
            "/v1/jobs/{}/events",
            "/v1/jobs/{}/cancel",
            "/v1/uploads/{}",
            "/v1/plans/{}/content",
            "/v1/{}",
        ]
    ),
)
def test_any_name(world: World, name: str, method: str, route: str) -> None:
    from urllib.parse import quote

    answer = world.http.request(method, route.format(quote(name.encode("utf-8", "surrogatepass"), safe="")))
    assert answer.status_code < 500
    if method != "HEAD":
        check(answer)


@fuzzed
@given(
    header=st.sampled_from(["Range", "If-Range", "If-None-Match", "Idempotency-Key", "Upload-Offset"]),
    value=st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=40)
    | st.from_regex(r"bytes=[0-9]{0,25}-[0-9]{0,25}(,[0-9]*-[0-9]*)?", fullmatch=True),
)
def test_any_header(world: World, header: str, value: str) -> None:
    if not hasattr(test_any_header, "plan"):
        test_any_header.plan = world.built(b"0123456789")
    headers = {header: value.strip().encode("latin-1")}
    answer = world.http.get(test_any_header.plan.content, headers=headers)
    check(answer)
    if answer.status_code < 400 and answer.status_code != 304:
        start = 0
        if answer.status_code == 206:
            start = int(answer.headers["content-range"].removeprefix("bytes ").partition("-")[0])
        assert answer.content == b"0123456789"[start : start + len(answer.content)]
        assert answer.content
    check(world.http.post("/v1/jobs", json={}, headers=headers))
    check(world.http.patch("/v1/uploads/x", content=b"x", headers=headers))
