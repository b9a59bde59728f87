"""What this machine has."""

from __future__ import annotations

from trtfarm.contract.device import Device


def gpus() -> list[Device]:
    """Raises ConfigurationError with what is missing: the driver, or NVML's bindings."""
    from trtfarm_worker.nvml import devices

    return devices()
