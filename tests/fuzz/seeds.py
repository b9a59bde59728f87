"""Models to start from: ONNX's own backend tests, its light models, and the corpus."""

from __future__ import annotations

import random
import warnings
from functools import cache
from pathlib import Path

import onnx
from onnx import ModelProto

CORPUS = Path(__file__).with_name("corpus")
_DATA = Path(onnx.__file__).parent / "backend/test/data"
_FOLDERS = ("simple", "pytorch-operator", "pytorch-converted")
_MAX_BYTES = 64 << 10  # of the others; light models are what they are


@cache
def light() -> dict[str, bytes]:
    """Real networks; reading and building them takes seconds."""
    return {path.stem: path.read_bytes() for path in sorted((_DATA / "light").glob("*.onnx"))}


@cache
def corpus() -> dict[str, bytes]:
    """What has crashed TensorRT or been slow to read."""
    return {path.stem: path.read_bytes() for path in sorted(CORPUS.glob("*.onnx"))}


@cache
def shipped() -> dict[str, bytes]:
    """Those of the backend tests that come as files."""
    paths = [path for folder in _FOLDERS for path in sorted((_DATA / folder).rglob("*.onnx"))]
    found = {f"{path.parent.parent.name}/{path.parent.name}": path.read_bytes() for path in paths}
    return {name: data for name, data in found.items() if len(data) <= _MAX_BYTES}


@cache
def nodes() -> dict[str, bytes]:
    """One for nearly every way to use every operator; they are made, which takes seconds."""
    from onnx.backend.test.case.node import collect_testcases

    state = random.getstate()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = collect_testcases(None)
    random.setstate(state)
    models = {f"node/{case.name}": case.model for case in cases if isinstance(case.model, ModelProto)}
    found = {name: model.SerializeToString() for name, model in models.items()}
    return {name: data for name, data in found.items() if len(data) <= _MAX_BYTES}
