"""Values of the contract for tests to which it does not matter which."""

from __future__ import annotations

from trtfarm.contract.builder_config import BuilderConfig
from trtfarm.contract.digest import Digest
from trtfarm.contract.jobs import Outcome
from trtfarm.contract.leases import AttemptFailure, BuildResult, PublishedBlob
from trtfarm.contract.models import ModelInfo, ModelManifest
from trtfarm.contract.profiles import TensorInfo
from trtfarm.contract.spec import BuildSpec
from trtfarm.contract.target import Target
from trtfarm.contract.v1 import ErrorView

MODEL_BYTES = b"model"
MODEL = Digest.of_bytes(MODEL_BYTES)
MANIFEST = ModelManifest(onnx=MODEL, onnx_size_bytes=len(MODEL_BYTES))
INFO = ModelInfo(
    inputs=(TensorInfo(name="x", dtype="float", shape=(-1, 3)),),
    outputs=(TensorInfo(name="y", dtype="float", shape=None),),
    ir_version=10,
    opsets={"ai.onnx": 21},
    node_count=7,
)
TARGET = Target(gpu="cc-8.9", compute_capability="8.9", runtime="tensorrt-rtx-1.7.1.116")
QUEUE = TARGET.queue


def spec(number: int = 0, *, target: Target = TARGET, model: Digest = MODEL) -> BuildSpec:
    """Different numbers, different build keys."""
    return BuildSpec(model=model, target=target, config=BuilderConfig(avg_timing_iterations=number + 1))


def blob(text: str) -> PublishedBlob:
    data = text.encode()
    return PublishedBlob(digest=Digest.of_bytes(data), size_bytes=len(data), etag=f"etag of {text}")


def result(text: str = "plan", *, log: PublishedBlob | None = None) -> BuildResult:
    return BuildResult(plan=blob(text), io=blob(f"io of {text}"), log=log, build_seconds=1.5)


def failure(
    outcome: Outcome = Outcome.FAILED,
    *,
    retryable: bool = False,
    message: str = "It did not work.",
    log: PublishedBlob | None = None,
) -> AttemptFailure:
    error = ErrorView(code="BUILD_FAILED", message=message)
    return AttemptFailure(outcome=outcome, error=error, retryable=retryable, log=log)
