"""Optimization profiles → TensorRT's."""

from __future__ import annotations

from typing import Any

from trtfarm.contract.profiles import OptimizationProfile
from trtfarm.errors import ProfileInvalidError


def add_profiles(builder: Any, config: Any, profiles: tuple[OptimizationProfile, ...]) -> None:
    """Raises ProfileInvalidError for what TensorRT refuses now; the rest it refuses when it builds."""
    for number, wanted in enumerate(profiles):
        profile = builder.create_optimization_profile()
        for name, shapes in wanted.root.items():
            try:
                profile.set_shape(name, shapes.min, shapes.opt, shapes.max)
            except (ValueError, RuntimeError) as error:
                raise ProfileInvalidError(f"Profile {number}, input {name!r}: {error}") from error
        if config.add_optimization_profile(profile) < 0:
            raise ProfileInvalidError(f"TensorRT refuses optimization profile {number}.")
