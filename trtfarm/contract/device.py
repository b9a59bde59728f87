"""A GPU, as NVML and CUDA describe it."""

from __future__ import annotations

from trtfarm.contract.value import Value


class Device(Value):
    """One GPU or MIG slice of a host.

    Attributes:
        name: NVML's product name.
        gpu: its slug, with the MIG profile if it is a slice.
        uuid: NVML's, ``GPU-…`` or ``MIG-…``.
        multiprocessors: streaming multiprocessors that are there to be used.
        driver: version of the kernel driver.
        cuda: newest CUDA version that the driver supports, as ``13.0``.
    """

    name: str
    gpu: str
    uuid: str
    compute_capability: str
    multiprocessors: int
    memory_bytes: int
    mig_profile: str | None = None
    driver: str
    cuda: str
