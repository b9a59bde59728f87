"""Power, clocks and throttling while a benchmark runs, sampled from NVML in a thread."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from trtfarm.contract.benchmark import Usage
from trtfarm_worker import nvml as management

_INTERVAL_SECONDS = 0.1


class UsageMonitor:
    """Samples from ``mark`` to ``__exit__``; the GPU's energy counter is read at both ends."""

    def __init__(self, uuid: str) -> None:
        self._uuid = uuid
        self._stop = threading.Event()
        self._energy: list[tuple[float, int]] = []  # (seconds, millijoules)
        self._watts: list[float] = []
        self._clocks: list[int] = []
        self._temperatures: list[int] = []
        self._reasons: set[str] = set()
        self._foreign: set[int] = set()
        self._thread = threading.Thread(target=self._run, name="nvml", daemon=True)
        self._ready = threading.Event()
        self._marked = threading.Event()

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait(5)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._marked.set()
        self._thread.join()

    def mark(self) -> None:
        """The warm-up is over."""
        self._marked.set()

    def usage(self, samples: int, walltime_seconds: float) -> Usage:
        """Energy per inference: mean power times the time that one took."""
        watts = sum(self._watts) / len(self._watts) if self._watts else None
        if len(self._energy) == 2:
            (begin, before), (end, after) = self._energy
            watts = (after - before) / 1000 / (end - begin)
        energy = watts * walltime_seconds / samples if watts is not None else None
        return Usage(
            power_watts=watts,
            energy_joules_per_inference=energy,
            sm_clock_mhz_min=min(self._clocks, default=None),
            sm_clock_mhz_max=max(self._clocks, default=None),
            temperature_celsius_max=max(self._temperatures, default=None),
            throttle_reasons=tuple(sorted(self._reasons)),
            foreign_processes=len(self._foreign),
        )

    def _run(self) -> None:
        with management.library() as nvml:
            handle = nvml.nvmlDeviceGetHandleByUUID(self._uuid)
            self._ready.set()
            self._marked.wait()
            self._read_energy(nvml, handle)
            while not self._stop.wait(_INTERVAL_SECONDS):
                self._sample(nvml, handle)
            self._read_energy(nvml, handle)

    def _read_energy(self, nvml: Any, handle: Any) -> None:
        millijoules = _read(nvml, lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle))
        if millijoules is not None:
            self._energy.append((time.monotonic(), millijoules))

    def _sample(self, nvml: Any, handle: Any) -> None:
        watts = _read(nvml, lambda: nvml.nvmlDeviceGetPowerUsage(handle))
        clock = _read(nvml, lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM))
        heat = _read(nvml, lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU))
        reasons = _read(nvml, lambda: nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)) or 0
        if watts is not None:
            self._watts.append(watts / 1000)
        if clock is not None:
            self._clocks.append(clock)
        if heat is not None:
            self._temperatures.append(heat)
        self._reasons |= _names(nvml, reasons)
        running = _read(nvml, lambda: nvml.nvmlDeviceGetComputeRunningProcesses(handle)) or []
        self._foreign |= {each.pid for each in running} - {os.getpid()}


def _read(nvml: Any, call: Callable[[], Any]) -> Any:
    try:
        return call()
    except nvml.NVMLError:
        return None


def _names(nvml: Any, mask: int) -> set[str]:
    prefix = "nvmlClocksThrottleReason"
    harmless = {"None", "All", "GpuIdle", "ApplicationsClocksSetting"}
    names = {
        name.removeprefix(prefix): value for name, value in vars(nvml).items() if name.startswith(prefix)
    }
    return {name for name, bit in names.items() if name not in harmless and bit & mask}
