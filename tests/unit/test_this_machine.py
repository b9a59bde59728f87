"""What a machine says of itself: found, or given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from trtfarm.compose.machine import runtimes, this_machine
from trtfarm.contract.device import Device
from trtfarm.errors import ConfigurationError, UnknownRuntimeError

RTX = {"tensorrt-rtx": "1.7.1.116"}
BOTH = {"tensorrt": "10.16.1.11", **RTX}


def device(gpu: str, capability: str = "9.0") -> Device:
    return Device(
        name=gpu, gpu=gpu, uuid=gpu, compute_capability=capability, multiprocessors=1, memory_bytes=1,
        driver="580.95.05", cuda="13.0",
    )  # fmt: skip


def machine(
    gpus: Sequence[Device] | Exception, here: Mapping[str, str] = RTX, **given: Any
) -> tuple[str, ...]:
    def find() -> Sequence[Device]:
        if isinstance(gpus, Exception):
            raise gpus
        return gpus

    found = this_machine(find_gpus=find, find_runtimes=lambda: here, platform="linux-x86_64", **given)
    return tuple(map(str, (found.gpu, found.compute_capability, found.runtime, found.driver)))


def test_found() -> None:
    h200 = device("h200")
    assert machine([h200]) == ("h200", "9.0", "tensorrt-rtx-1.7.1.116", "580.95.05")
    assert machine([h200, h200])[0] == "h200"
    assert machine([device("h200+mig-1g.18gb")])[0] == "h200+mig-1g.18gb"
    assert machine([h200], BOTH, runtime="tensorrt")[2] == "tensorrt-10.16.1.11"


def test_given() -> None:
    nothing = ConfigurationError("no driver")
    assert machine(nothing, {}, gpu="l4", runtime="tensorrt-10.9.0.34") == (
        "l4",
        "None",
        "tensorrt-10.9.0.34",
        "None",
    )
    assert machine(nothing, compute_capability="8.9")[1] == "8.9"
    assert machine([device("h200")], driver="1.2")[3] == "1.2"


@pytest.mark.parametrize(
    ("gpus", "here", "given", "said"),
    [
        (ConfigurationError("no driver"), RTX, {}, "--gpu rtx-4090"),
        ([], RTX, {}, "--gpu rtx-4090"),
        ([device("h200"), device("l4", "8.9")], RTX, {}, "Say which with --gpu"),
        ([device("h200")], {}, {}, "--runtime tensorrt-10.16.1.11"),
        ([device("h200")], RTX, {"runtime": "tensorrt"}, "--runtime tensorrt-10.16.1.11"),
        ([device("h200")], BOTH, {}, "Say which will run the plan"),
    ],
)
def test_what_to_give(gpus: Any, here: dict[str, str], given: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        machine(gpus, here, **given)
    assert said in (caught.value.hint or "")


def test_what_is_no_runtime() -> None:
    with pytest.raises(UnknownRuntimeError):
        machine([device("h200")], runtime="onnxruntime-1")


def test_what_is_installed_here() -> None:
    """TensorRT-RTX is, with the tests; its package says the version that the module does."""
    import tensorrt_rtx

    assert runtimes()["tensorrt-rtx"] == tensorrt_rtx.__version__
