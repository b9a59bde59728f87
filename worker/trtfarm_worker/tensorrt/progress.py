"""TensorRT's progress monitor, boiled down to a stage and a fraction."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

_INTERVAL_SECONDS = 0.25


def make_monitor(trt: Any, on_progress: Callable[[str, float | None], None]) -> Any:
    """None where the bindings have no monitor (8.6).

    Phases nest; the fraction is that of the outermost one, whose steps do not take equal times.
    """
    if not hasattr(trt, "IProgressMonitor"):
        return None

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._phases: dict[str, tuple[int, int]] = {}
            self._told_at = 0.0

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            del parent_phase
            self._phases[phase_name] = (0, num_steps)
            self._tell()

        def step_complete(self, phase_name: str, step: int) -> bool:
            _, steps = self._phases.get(phase_name, (0, 0))
            self._phases[phase_name] = (step + 1, steps)
            self._tell()
            return True

        def phase_finish(self, phase_name: str) -> None:
            self._phases.pop(phase_name, None)

        def _tell(self) -> None:
            now = time.monotonic()
            if now - self._told_at < _INTERVAL_SECONDS or not self._phases:
                return
            self._told_at = now
            done, steps = next(iter(self._phases.values()))
            inner = next(reversed(self._phases))
            on_progress(inner, min(1.0, done / steps) if steps > 0 else None)

    return Monitor()
