"""TensorRT raises almost nothing: its logger is where failures are told.

There is no IErrorRecorder here: with one written in Python, TensorRT-RTX 1.7.1 crashes when the objects of a
build are destroyed, and without one the same messages reach the logger.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from trtfarm.contract.v1 import ErrorView
from trtfarm_worker.tensorrt.onnx_nodes import node_at

_LEVELS = {"INTERNAL_ERROR": "F", "ERROR": "E", "WARNING": "W", "INFO": "I", "VERBOSE": "V"}
_LOG_LIMIT_BYTES = 64 * 2**20
_NODES_TOLD = 100  # the log has them all
# "IBuilder::buildSerializedNetwork: Error Code 1: Myelin ([pass.cpp:337: check] TEXT In f at /src/x.cpp:12)"
# "2: [optimizer.cpp::computeCosts::37] Error Code 2: Internal Error (TEXT)" is the older form.
_CALL = re.compile(r"^(?:\d+: )?(?:\[\w+\.\w+::\w+::\d+\] )?(?:\w+(?:::\w+)+: )?(?:Error Code \d+: )?")
_KIND = re.compile(r"^[\w ]+ \((.*)\)$", re.DOTALL)
_PLACE = re.compile(r"\[\w+\.(?:cpp|h):\d+: [^\]]*\]\s*|\s*In [\w:()~]+ at \S+:\d+")


class Log:
    """Where the one logger of the process writes, and the errors since ``start``."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self._file: TextIO | None = None
        self._written = 0
        self._second, self._time = 0, ""

    def start(self, file: TextIO | None) -> None:
        self.errors, self._file, self._written = [], file, 0

    def write(self, level: str, text: str) -> None:
        """``level``: one letter. A small build writes thousands of lines, so this must be quick."""
        if level in "FE":
            self.errors.append(text)
        if self._file is None or self._written > _LOG_LIMIT_BYTES:
            return
        now = int(time.time())
        if now != self._second:
            self._second, self._time = now, time.strftime("%H:%M:%S", time.localtime(now))
        self._written += self._file.write(f"{self._time} {level} {text}\n")
        if level != "V":
            self._file.flush()


def make_logger(trt: Any, log: Log) -> Any:
    """A process has one logger: TensorRT ignores a second one while the first lives."""
    severities = trt.ILogger.Severity.__members__.items()
    levels = {int(member): _LEVELS.get(name, "?") for name, member in severities}  # a member's name is slow

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            log.write(levels[int(severity)], msg)

    return Logger()


def _read(text: Callable[[], str]) -> str:
    """What the bindings give as text may quote bytes of the model that are none."""
    try:
        return text()
    except UnicodeDecodeError as wrong:
        return wrong.object.decode("utf-8", "replace")


def parser_error(parser: Any, model: Path) -> ErrorView:
    """The nodes that the ONNX parser refuses, the first one in the message."""
    nodes: list[dict[str, Any]] = []
    first = ""
    unsupported = False
    deserialize = False
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        text = _read(error.desc)
        first = first or text
        code = str(error.code()).rpartition(".")[2]  # 8.6's members have no usable name
        deserialize |= code == "MODEL_DESERIALIZE_FAILED"
        # The importer asks for a plugin of the operator's name before it gives up.
        unsupported |= code.startswith("UNSUPPORTED") or "lugin not found" in text or "No importer" in text
        if hasattr(error, "node_operator"):
            operator, name = _read(error.node_operator), _read(error.node_name)
        else:
            operator, name = node_at(model, error.node())
        if (operator or name) and len(nodes) < _NODES_TOLD:
            nodes.append({"operator": operator, "node": name, "index": error.node(), "message": text})
    if nodes and unsupported:
        node = nodes[0]
        return ErrorView(
            code="ONNX_UNSUPPORTED_OP",
            message=f"TensorRT has no operator {node['operator']} (node {node['node'] or node['index']!r}).",
            hint="Replace the operator, export with an older opset, or build with a plugin that provides it.",
            details={"nodes": nodes, "tensorrt": first},
        )
    if deserialize:
        return ErrorView(code="ONNX_PARSE_ERROR", message=f"TensorRT cannot read the model: {_clean(first)}")
    where = f" (node {nodes[0]['node']!r}, {nodes[0]['operator']})" if nodes else ""
    return ErrorView(
        code="ONNX_IMPORT_FAILED",
        message=f"TensorRT cannot import the model{where}: {_clean(first)}",
        details={"nodes": nodes},
    )


# A timing cache that is not taken costs time; 8.6 logs it as an error before it goes on.
_NOISE = re.compile(r"myelinCache|timing cache", re.IGNORECASE)
_KNOWN = (
    (
        # CUDA's words for a GPU or driver that does not work, whatever the model.
        re.compile(
            r"uncorrectable ECC|no CUDA-capable device|device\(s\) is/are busy or unavailable"
            r"|system not yet initialized|GPU is lost|CUDA initialization failure"
        ),
        "GPU_FAILED",
        "nvidia-smi and the kernel's log (Xid) of the worker's host tell more.",
    ),
    (
        re.compile(r"Turing|sm_?75|not supported (?:on|for|by)\b.*(?:SM ?\d|compute capab)", re.IGNORECASE),
        "UNSUPPORTED_ON_TARGET",
        "Build for a newer compute capability, or change the model's data types (float16 may work).",
    ),
    (
        re.compile(r"out of memory|OutOfMemory|allocat\w+ fail", re.IGNORECASE),
        "OUT_OF_MEMORY",
        "Reduce --maxShapes or --memPoolSize=workspace:…, or use a machine with more memory.",
    ),
    (
        re.compile(r"optimization profile|in profile \d|profile.*dimension|kMIN|kOPT|kMAX", re.IGNORECASE),
        "PROFILE_INVALID",
        "Check --minShapes, --optShapes and --maxShapes against the model's inputs.",
    ),
    (
        re.compile(r"TensorFormats|allowedFormatSet"),
        "FORMAT_UNSUPPORTED",
        "Not every type has every format: check --inputIOFormats and --outputIOFormats.",
    ),
    (
        re.compile(
            r"workspace|scratch memory|not find any (?:valid )?(?:implementation|tactic)", re.IGNORECASE
        ),
        "NO_TACTIC",
        "A larger --memPoolSize=workspace:… lets TensorRT consider more tactics.",
    ),
)


def build_error(logged: list[str]) -> ErrorView:
    """The first error TensorRT told, with a hint where the cause is a known one."""
    logged = [text for text in logged if not _NOISE.search(text)] or logged
    first = _clean(logged[0]) if logged else "TensorRT gave no engine and no reason."
    everything = "\n".join(logged)
    for pattern, code, hint in _KNOWN:
        if pattern.search(everything):
            return ErrorView(code=code, message=first, hint=hint)
    return ErrorView(code="BUILD_FAILED", message=first, hint="The job's log has TensorRT's full account.")


def _clean(text: str) -> str:
    """TensorRT's words without its source locations, on one line."""
    text = _CALL.sub("", text)
    text = _PLACE.sub("", _KIND.sub(r"\1", text))
    return " ".join(text.split())[:2000]
