"""What this machine has, and what it says of itself when it asks for a plan."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform as os_platform
import re
from collections.abc import Callable, Mapping, Sequence

from trtfarm.contract.device import Device
from trtfarm.contract.machine import MachineRequest
from trtfarm.contract.target import FLAVOURS, Runtime
from trtfarm.errors import ConfigurationError

# Each flavour's module and the distributions that may have brought it, the newest way of packaging first.
_PACKAGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "tensorrt": ("tensorrt", ("tensorrt_cu13", "tensorrt_cu12", "tensorrt")),
    "tensorrt-rtx": ("tensorrt_rtx", ("tensorrt_rtx_cu13", "tensorrt_rtx_cu12", "tensorrt_rtx")),
}
_RELEASE = re.compile(r"\d+(?:\.\d+)+")
_SAY = "Say for which machine: --gpu rtx-4090 (or --compute-capability 8.9) --runtime tensorrt-10.16.1.11."


def gpus() -> list[Device]:
    """Raises ConfigurationError with what is missing: the driver, or NVML's bindings."""
    from trtfarm_worker.nvml import devices

    return devices()


def runtimes() -> dict[str, str]:
    """Flavour → full version of the TensorRT that Python would import here. Nothing is imported."""
    found = {}
    for flavour, (module, distributions) in _PACKAGES.items():
        if importlib.util.find_spec(module) is None:
            continue
        for name in distributions:
            try:
                release = _RELEASE.match(importlib.metadata.version(name))
            except importlib.metadata.PackageNotFoundError:
                continue
            if release:
                found[flavour] = release.group()
                break
    return found


def this_machine(
    *,
    gpu: str | None = None,
    compute_capability: str | None = None,
    runtime: str | None = None,
    driver: str | None = None,
    platform: str | None = None,
    find_gpus: Callable[[], Sequence[Device]] = gpus,
    find_runtimes: Callable[[], Mapping[str, str]] = runtimes,
) -> MachineRequest:
    """What is given, and the rest as it is found here.

    Raises:
        ConfigurationError: no GPU or no TensorRT is found, or several; it says what to give.
        UnknownRuntimeError: no such runtime.
    """
    if gpu is None and compute_capability is None:
        device = _one_gpu(find_gpus)
        gpu, compute_capability, driver = device.gpu, device.compute_capability, driver or device.driver
    return MachineRequest(
        gpu=gpu,
        compute_capability=compute_capability,
        runtime=_runtime(runtime, find_runtimes),
        driver=driver,
        platform=platform or _platform(),
    )


def _one_gpu(find: Callable[[], Sequence[Device]]) -> Device:
    try:
        found = find()
    except ConfigurationError as error:
        hint = f"{error.hint}. {_SAY}" if error.hint else _SAY
        raise ConfigurationError(f"This machine's GPU is not found: {error.message}", hint=hint) from error
    kinds = {device.gpu: device for device in found}
    if not kinds:
        raise ConfigurationError("This machine has no NVIDIA GPU.", hint=_SAY)
    if len(kinds) > 1:
        names = ", ".join(kinds)
        raise ConfigurationError(
            f"This machine has several kinds of GPU: {names}.", hint="Say which with --gpu."
        )
    return next(iter(kinds.values()))


def _runtime(given: str | None, find: Callable[[], Mapping[str, str]]) -> str:
    asked = Runtime.parse(given) if given else None
    if asked and asked.version:
        return str(asked)
    found = find()
    here = [Runtime(flavour, version) for flavour, version in found.items()]
    fits = [each for each in here if asked is None or each.flavour == asked.flavour]
    if len(fits) == 1:
        return str(fits[0])
    if not fits:
        what = str(asked) if asked else " or ".join(FLAVOURS)
        raise ConfigurationError(
            f"Python has no {what} here.",
            hint="Say what will run the plan, with its whole version: --runtime tensorrt-10.16.1.11.",
        )
    raise ConfigurationError(
        f"There are two here: {', '.join(map(str, fits))}.",
        hint="Say which will run the plan: --runtime tensorrt.",
    )


def _platform() -> str:
    name = os_platform.machine().lower()
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(name, name)
    return f"{os_platform.system().lower()}-{machine}"
