"""What a plan's ``io`` artifact says: the engine's inputs and outputs, as its network declares them."""

from __future__ import annotations

from trtfarm.contract.profiles import OptimizationProfile
from trtfarm.contract.value import Value


class EngineTensor(Value):
    """``dtype``: NumPy's name, and ``bfloat16``, ``fp8`` and the like. ``shape``: -1 where dynamic."""

    name: str
    dtype: str
    shape: tuple[int, ...]


class EngineIo(Value):
    inputs: tuple[EngineTensor, ...]
    outputs: tuple[EngineTensor, ...]
    profiles: tuple[OptimizationProfile, ...] = ()

    @property
    def max_batch(self) -> int:
        """The largest batch, if each tensor's first axis is one, and all up to it can be run; else 0."""
        if not all(each.shape[:1] == (-1,) for each in (*self.inputs, *self.outputs)):
            return 0
        ranges = sorted(self._batches(profile) for profile in self.profiles)
        covered = 0
        for low, high in ranges:
            if low > covered + 1:
                return 0
            covered = max(covered, high)
        return covered

    def _batches(self, profile: OptimizationProfile) -> tuple[int, int]:
        """Smallest and largest batch that all inputs take; the largest is 0 if there is none."""
        shapes = [profile.root[each.name] for each in self.inputs]
        low, high = max(each.min[0] for each in shapes), min(each.max[0] for each in shapes)
        return (low, high) if low <= high else (1, 0)
