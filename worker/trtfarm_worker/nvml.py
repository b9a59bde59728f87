"""NVIDIA's management library: which GPUs are here, who uses them, what they draw."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from trtfarm.contract.device import Device
from trtfarm.contract.target import gpu_slug
from trtfarm.errors import ConfigurationError

_MIG_MARK = " MIG "


@contextlib.contextmanager
def library() -> Iterator[Any]:
    """pynvml, initialised.

    Raises:
        ConfigurationError: not installed, or there is no NVIDIA driver.
    """
    try:
        import pynvml
    except ImportError as error:
        raise ConfigurationError(
            "NVML's bindings are not installed.", hint="pip install 'trtfarm[nvml]'"
        ) from error
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise ConfigurationError(f"There is no usable NVIDIA driver: {error}.") from error
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()


def devices() -> list[Device]:
    """The GPUs of this host; of a GPU in MIG mode, its slices instead. Raises ConfigurationError."""
    with library() as nvml:
        found = []
        for index in range(nvml.nvmlDeviceGetCount()):
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            slices = _slices(nvml, handle)
            found += [_device(nvml, each, handle) for each in slices or [handle]]
        return found


def _slices(nvml: Any, handle: Any) -> list[Any]:
    try:
        current, _ = nvml.nvmlDeviceGetMigMode(handle)
        count = nvml.nvmlDeviceGetMaxMigDeviceCount(handle) if current else 0
    except nvml.NVMLError:
        return []
    slices = []
    for index in range(count):
        with contextlib.suppress(nvml.NVMLError):
            slices.append(nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index))
    return slices


def _device(nvml: Any, handle: Any, physical: Any) -> Device:
    name, _, profile = _text(nvml.nvmlDeviceGetName(handle)).partition(_MIG_MARK)
    major, minor = nvml.nvmlDeviceGetCudaComputeCapability(physical)
    cuda = nvml.nvmlSystemGetCudaDriverVersion_v2()
    slug = gpu_slug(name)
    return Device(
        name=name,
        gpu=f"{slug}+mig-{profile}" if profile else slug,
        uuid=_text(nvml.nvmlDeviceGetUUID(handle)),
        compute_capability=f"{major}.{minor}",
        multiprocessors=_multiprocessors(nvml, handle),
        memory_bytes=nvml.nvmlDeviceGetMemoryInfo(handle).total,
        mig_profile=profile or None,
        driver=_text(nvml.nvmlSystemGetDriverVersion()),
        cuda=f"{cuda // 1000}.{cuda % 1000 // 10}",
    )


def _multiprocessors(nvml: Any, handle: Any) -> int:
    """0 where NVML does not tell: the CUDA child fills it in."""
    try:
        return int(nvml.nvmlDeviceGetAttributes_v2(handle).multiprocessorCount)
    except nvml.NVMLError:
        return 0


class Process(NamedTuple):
    pid: int
    memory_bytes: int | None


def compute_processes(uuid: str) -> list[Process]:
    """Processes with a CUDA context on the GPU. Inside a container other ones may not be visible."""
    with library() as nvml:
        handle = nvml.nvmlDeviceGetHandleByUUID(uuid)
        try:
            running = nvml.nvmlDeviceGetComputeRunningProcesses(handle)
        except nvml.NVMLError:
            return []
        return [Process(each.pid, each.usedGpuMemory) for each in running]


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
