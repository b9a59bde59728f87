"""Values of inputs that a benchmark is given in files: raw, in C order, as trtexec reads them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from trtfarm.contract.benchmark import BenchmarkOptions
from trtfarm.errors import InvalidRequestError

# As a plan's I/O description names the types.
_BITS = {
    **dict.fromkeys(("float32", "int32"), 32),
    **dict.fromkeys(("float16", "bfloat16"), 16),
    **dict.fromkeys(("int8", "uint8", "bool", "fp8"), 8),
    "int64": 64,
    "int4": 4,
}


def check_inputs(sizes: Mapping[str, int], options: BenchmarkOptions, io: Mapping[str, Any]) -> None:
    """Files of these sizes, in bytes, against a plan's I/O description, as far as that tells.

    Raises:
        InvalidRequestError: the plan has no such input, or it takes another number of bytes.
    """
    inputs = {each["name"]: each for each in io.get("inputs", ())}
    check_names(sizes, inputs)
    for name, size_bytes in sizes.items():
        shape, dtype = _shape(name, inputs[name]["shape"], options, io), inputs[name]["dtype"]
        if shape is not None and dtype in _BITS:
            check_size(name, dtype, shape, math.ceil(math.prod(shape) * _BITS[dtype] / 8), size_bytes)


def check_names(given: Mapping[str, Any], inputs: Mapping[str, Any]) -> None:
    """Raises InvalidRequestError."""
    unknown = sorted(given.keys() - inputs.keys())
    if unknown:
        raise InvalidRequestError(
            f"--loadInputs: the plan has no input {unknown[0]!r}.", hint=f"Its inputs: {', '.join(inputs)}."
        )


def check_size(name: str, dtype: str, shape: Sequence[int], takes_bytes: int, size_bytes: int) -> None:
    """Raises InvalidRequestError."""
    if size_bytes != takes_bytes:
        dimensions = "x".join(map(str, shape)) or "a scalar"
        raise InvalidRequestError(
            f"--loadInputs: the file for {name} has {size_bytes} bytes; {dtype} of {dimensions} takes "
            f"{takes_bytes}.",
            hint="Write the raw values in C order, as numpy's tofile does, of the shape that is measured.",
        )


def _shape(
    name: str, declared: Sequence[int], options: BenchmarkOptions, io: Mapping[str, Any]
) -> Sequence[int] | None:
    """That is measured; None if the description does not tell."""
    if name in options.shapes:
        return options.shapes[name]
    if -1 not in declared:
        return declared
    profiles = io.get("profiles", ())
    if options.use_profile < len(profiles) and name in profiles[options.use_profile]:
        optimum: Sequence[int] = profiles[options.use_profile][name]["opt"]
        return optimum
    return None
