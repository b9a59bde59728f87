"""TensorRT's Python bindings, by flavour. What they can do is asked of them, never of their version."""

from __future__ import annotations

import importlib
import importlib.util
import re
from pathlib import Path
from typing import Any

from trtfarm.contract.target import RTX, Runtime, capability_target
from trtfarm.errors import ConfigurationError

_MODULES = {RTX: "tensorrt_rtx", "tensorrt": "tensorrt"}
_SM = re.compile(r"SM(\d+)(\d)")


def load(flavour: str) -> Any:
    """Raises ConfigurationError with what to install."""
    try:
        return importlib.import_module(_MODULES[flavour])
    except ImportError as error:
        extra = "rtx" if flavour == RTX else "gpu"
        raise ConfigurationError(
            f"{flavour} cannot be loaded: {error}", hint=f"Install it: pip install 'trtfarm[{extra}]'"
        ) from error


def folders(flavour: str) -> tuple[Path, ...]:
    """Where the bindings and their libraries lie; found without loading them."""
    spec = importlib.util.find_spec(_MODULES[flavour])
    return tuple(map(Path, spec.submodule_search_locations or ())) if spec else ()


def runtime_of(trt: Any, flavour: str) -> Runtime:
    return Runtime(flavour, trt.__version__)


def capabilities(trt: Any) -> dict[str, Any]:
    """``cc-8.9`` → member of ComputeCapability that an ahead-of-time build can be set to; empty without."""
    members = getattr(trt, "ComputeCapability", None)
    if members is None:
        return {}
    return {
        capability_target(f"{int(match[1])}.{match[2]}"): member
        for name, member in sorted(members.__members__.items(), key=lambda item: int(item[1]))
        if (match := _SM.fullmatch(name))
    }


def network_flags(trt: Any, *, strongly_typed: bool) -> int:
    """For a network parsed from ONNX: explicit batch and typing where they still are a choice."""
    flags = trt.NetworkDefinitionCreationFlag
    names = ["EXPLICIT_BATCH", "STRONGLY_TYPED"] if strongly_typed else ["EXPLICIT_BATCH"]
    value = 0
    for name in names:
        if hasattr(flags, name):
            value |= 1 << int(getattr(flags, name))
    return value


def is_strongly_typed(trt: Any, network: Any) -> bool:
    """All networks are where there is no flag to allow a precision."""
    if not hasattr(trt.BuilderFlag, "FP16"):
        return True
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return flag is not None and bool(network.get_flag(flag))
