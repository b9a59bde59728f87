"""Deep learning accelerators, which boards of the Jetson kind have."""

from __future__ import annotations

from trtfarm_worker.tensorrt.readback import Setup, assign, assign_flag, member, unsupported


def require(setup: Setup, field: str, core: int = 0) -> None:
    """Raises OptionUnsupportedError where there is no such core."""
    cores = getattr(setup.builder, "num_DLA_cores", 0)
    if core >= cores:
        has = f"has {cores}" if cores else "has none"
        raise unsupported(
            setup.trt, field, f"needs DLA core {core}, this machine {has}; it cannot be used", "Leave it out."
        )


def set_core(setup: Setup, core: int) -> None:
    """Every layer goes to that core; what it cannot run needs ``allow_gpu_fallback``."""
    trt, config, field = setup.trt, setup.config, "use_dla_core"
    require(setup, field, core)
    assign(trt, config, "default_device_type", member(trt, "DeviceType", "DLA", field), field)
    assign(trt, config, "DLA_core", core, field)


def set_gpu_fallback(setup: Setup, value: bool) -> None:
    field = "allow_gpu_fallback"
    require(setup, field)
    flag = member(setup.trt, "BuilderFlag", "GPU_FALLBACK", field)
    assign_flag(setup.trt, setup.config, flag, value, field)
