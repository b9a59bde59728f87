"""NVML's bindings for a machine without a GPU: the one that ``CHAOS_GPU`` names, as ``UUID NVIDIA L4``."""

from __future__ import annotations

import os
from types import SimpleNamespace


class NVMLError(Exception):
    pass


def nvmlInit() -> None: ...  # noqa: N802


def nvmlShutdown() -> None: ...  # noqa: N802


def nvmlDeviceGetCount() -> int:  # noqa: N802
    return 1


def nvmlDeviceGetHandleByIndex(index: int) -> int:  # noqa: N802
    return index


def nvmlDeviceGetHandleByUUID(uuid: str) -> int:  # noqa: N802
    return 0


def nvmlDeviceGetMigMode(handle: int) -> tuple[int, int]:  # noqa: N802
    return 0, 0


def nvmlDeviceGetName(handle: int) -> str:  # noqa: N802
    return os.environ["CHAOS_GPU"].partition(" ")[2]


def nvmlDeviceGetUUID(handle: int) -> str:  # noqa: N802
    return os.environ["CHAOS_GPU"].partition(" ")[0]


def nvmlDeviceGetCudaComputeCapability(handle: int) -> tuple[int, int]:  # noqa: N802
    return 8, 9


def nvmlSystemGetCudaDriverVersion_v2() -> int:  # noqa: N802
    return 13000


def nvmlSystemGetDriverVersion() -> str:  # noqa: N802
    return "580.0"


def nvmlDeviceGetMemoryInfo(handle: int) -> SimpleNamespace:  # noqa: N802
    return SimpleNamespace(total=2**34)


def nvmlDeviceGetAttributes_v2(handle: int) -> SimpleNamespace:  # noqa: N802
    return SimpleNamespace(multiprocessorCount=58)


def nvmlDeviceGetComputeRunningProcesses(handle: int) -> list[SimpleNamespace]:  # noqa: N802
    return []
