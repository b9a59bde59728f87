"""What a child answers may come from a model that has taken it over: it is bounded, or the child is ended."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from trtfarm_worker.child.handle import _parsed
from trtfarm_worker.child.protocol import Failed, Progressed, child_message

BUILT = {"event": "built", "build_seconds": 1.0, "rss_bytes": 1}


def read(**message):
    return _parsed(child_message, json.dumps(message).encode())


@pytest.mark.parametrize("seconds", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_json_does_not_have(seconds):
    line = json.dumps(BUILT).replace("1.0", seconds).encode()
    with pytest.raises(ValidationError):
        _parsed(child_message, line)
    assert _parsed(child_message, json.dumps(BUILT).encode()).build_seconds == 1


def test_an_error_is_short_and_can_be_kept():
    error = {"code": "BUILD_FAILED", "message": "a\0b" + "m" * 10**6, "hint": "h" * 10**6}
    told = read(event="failed", error=error | {"details": {"a": "x" * 10**6}})
    assert isinstance(told, Failed)
    assert len(told.error.message) < 5000
    assert len(told.error.hint or "") < 5000
    assert "\0" not in told.error.message
    assert told.error.details == {}


@pytest.mark.parametrize("code", ["", "lower", "A" * 100, "A\nB", "GPU FAILED"])
def test_a_code_looks_like_one(code):
    told = read(event="failed", error={"code": code, "message": "no"})
    assert told.error.code == "BUILD_FAILED"


def test_details_with_a_nul_are_dropped():
    told = read(event="failed", error={"code": "BUILD_FAILED", "message": "no", "details": {"a": "\0"}})
    assert told.error.details == {}
    told = read(event="failed", error={"code": "BUILD_FAILED", "message": "no", "details": {"node": "a"}})
    assert told.error.details == {"node": "a"}


def test_progress_is_bounded():
    told = read(event="progress", stage="s" * 10**6, fraction=7.0)
    assert isinstance(told, Progressed)
    assert len(told.stage) < 5000
    assert told.fraction == 1


def test_a_name_with_a_nul_is_no_answer():
    report = {"attached": True, "entries_before": 0, "entries_after": 0, "bytes_before": 0, "bytes_after": 0}
    read(**BUILT, timing_cache=report)
    with pytest.raises(ValueError, match="NUL"):
        _parsed(child_message, b'{"event": "ready", "runtime": "a\\u0000", "gpus": []}')
