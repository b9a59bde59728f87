"""Inputs from files: read, sized, copied to where TensorRT looks for them."""

from __future__ import annotations

import ctypes
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest

from trtfarm.contract import trtexec_values
from trtfarm.contract.benchmark import BenchmarkOptions
from trtfarm.contract.benchmark_inputs import check_inputs
from trtfarm.contract.digest import Digest
from trtfarm.errors import InvalidRequestError
from trtfarm_worker.tensorrt.buffers import Buffers, fill

IO = {
    "inputs": [
        {"name": "x", "dtype": "float32", "shape": [-1, 3]},
        {"name": "half", "dtype": "bfloat16", "shape": [2, 2]},
        {"name": "packed", "dtype": "int4", "shape": [3]},
        {"name": "scalar", "dtype": "int64", "shape": []},
        {"name": "odd", "dtype": "float128", "shape": [1]},
    ],
    "profiles": [
        {"x": {"min": [1, 3], "opt": [4, 3], "max": [8, 3]}},
        {"x": {"min": [1, 3], "opt": [5, 3], "max": [8, 3]}},
    ],
}


@pytest.mark.parametrize(
    ("name", "size_bytes", "options"),
    [
        ("x", 4 * 3 * 4, {}),
        ("x", 5 * 3 * 4, {"use_profile": 1}),
        ("x", 2 * 3 * 4, {"shapes": {"x": (2, 3)}}),
        ("half", 8, {}),
        ("packed", 2, {}),
        ("scalar", 8, {}),
        ("odd", 1, {}),  # a type that the farm does not know: the worker will see
        ("x", 1, {"use_profile": 2}),  # a profile that there is not: likewise
    ],
)
def test_sizes_that_fit(name: str, size_bytes: int, options: dict[str, Any]) -> None:
    check_inputs({name: size_bytes}, BenchmarkOptions(**options), IO)


def test_the_words() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        check_inputs({"x": 47}, BenchmarkOptions(), IO)
    assert caught.value.message == "--loadInputs: the file for x has 47 bytes; float32 of 4x3 takes 48."
    assert "tofile" in (caught.value.hint or "")
    with pytest.raises(InvalidRequestError) as caught:
        check_inputs({"y": 47}, BenchmarkOptions(), IO)
    assert caught.value.message == "--loadInputs: the plan has no input 'y'."
    assert caught.value.hint == "Its inputs: x, half, packed, scalar, odd."
    with pytest.raises(InvalidRequestError, match="int64 of a scalar takes 8"):
        check_inputs({"scalar": 4}, BenchmarkOptions(), IO)


def test_the_option() -> None:
    assert trtexec_values.files("x:a.bin,'ids:0':/tmp/b.bin") == {"x": "a.bin", "ids:0": "/tmp/b.bin"}
    for wrong in ("x", "x:", ":a.bin", "x:a,x:b", ""):
        with pytest.raises(ValueError):
            trtexec_values.files(wrong)


def test_inputs_are_part_of_the_options() -> None:
    one, two = (BenchmarkOptions(inputs={"x": Digest.of_bytes(data)}) for data in (b"1", b"2"))
    assert one != two
    assert BenchmarkOptions.model_validate_json(one.model_dump_json()) == one


class FakeCuda:
    """Both memories are this process's; what is copied is remembered."""

    def __init__(self) -> None:
        self.api = SimpleNamespace(cudaMemcpyKind=SimpleNamespace(cudaMemcpyDefault=4))
        self.memory: list[Any] = []

    def __call__(self, name: str, *arguments: Any) -> Any:
        if name in ("Malloc", "MallocHost"):
            self.memory.append(ctypes.create_string_buffer(arguments[0]))
            return ctypes.addressof(self.memory[-1])
        if name == "Memcpy":
            destination, source, size, _ = arguments
            ctypes.memmove(destination, source, size)
        return None


class FakeEngine:
    """Inputs x (float32, 2x3) and ids (int64, 2); an output."""

    tensors: ClassVar = {"x": ("FLOAT", 4, (2, 3)), "ids": ("INT64", 8, (2,)), "y": ("FLOAT", 4, (2,))}
    num_io_tensors = 3

    def get_tensor_name(self, index: int) -> str:
        return list(self.tensors)[index]

    def get_tensor_mode(self, name: str) -> str:
        return "OUT" if name == "y" else "IN"

    def get_tensor_dtype(self, name: str) -> Any:
        return SimpleNamespace(name=self.tensors[name][0], itemsize=self.tensors[name][1])

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.tensors[name][2]

    def set_tensor_address(self, name: str, address: int) -> None:
        pass


TRT = SimpleNamespace(TensorIOMode=SimpleNamespace(INPUT="IN"))


def filled(files: dict[str, Path]) -> tuple[np.ndarray, np.ndarray]:
    """What is on the device."""
    cuda, engine = FakeCuda(), FakeEngine()
    buffers = Buffers(TRT, cuda, engine, engine)
    fill(TRT, cuda, engine, buffers, files, 0)
    (x, _, _), (ids, _, _) = buffers.inputs
    return (
        np.frombuffer(ctypes.string_at(x, 24), np.float32).reshape(2, 3),
        np.frombuffer(ctypes.string_at(ids, 16), np.int64),
    )


def test_a_file_s_values_reach_the_device_and_the_others_are_seeded(tmp_path: Path) -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    values.tofile(tmp_path / "x.bin")
    x, ids = filled({"x": tmp_path / "x.bin"})
    assert np.array_equal(x, values)
    assert set(ids) <= {0, 1}
    random, _ = filled({})
    assert not np.array_equal(random, values)
    assert np.abs(random).max() <= 1


def test_a_worker_believes_no_size(tmp_path: Path) -> None:
    (tmp_path / "ids.bin").write_bytes(bytes(8))
    with pytest.raises(InvalidRequestError, match="has 8 bytes; int64 of 2 takes 16"):
        filled({"ids": tmp_path / "ids.bin"})
    with pytest.raises(InvalidRequestError, match="no input 'y'"):
        filled({"y": tmp_path / "ids.bin"})
