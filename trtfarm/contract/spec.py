"""Build specs and their keys: what makes two builds the same build."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from trtfarm.contract.builder_config import BuilderConfig
from trtfarm.contract.digest import Digest
from trtfarm.contract.profiles import OptimizationProfile
from trtfarm.contract.target import Target
from trtfarm.contract.typed import converter_for
from trtfarm.contract.value import Value, canonical_json

KEY_VERSION = 1
"""Raised when the canonical form changes its meaning; plans of older keys are then built anew."""


def _converter(fields: dict[str, Any]) -> str | None:
    if "config" not in fields or "target" not in fields:  # not valid
        return None
    return converter_for(fields["config"], fields["target"].runtime)


class BuildSpec(Value):
    """All that decides the content of a plan.

    ``plugins`` and ``calibration`` are digests of artifacts the build loads. ``converter``: name and
    version of what gives the model the types that are asked for, where TensorRT takes them from the model.
    """

    model: Digest
    target: Target
    config: BuilderConfig = Field(default_factory=BuilderConfig)
    profiles: tuple[OptimizationProfile, ...] = ()
    plugins: tuple[Digest, ...] = ()
    calibration: Digest | None = None
    converter: str | None = Field(default_factory=_converter)

    def canonical(self) -> dict[str, Any]:
        """The document that the build key is taken of.

        What is left at TensorRT's default is left out, so an option added to trtfarm later changes no key.
        """
        document: dict[str, Any] = {
            "key_version": KEY_VERSION,
            "model": self.model,
            "target": self.target.model_dump(mode="json"),
            "config": self.config.canonical(),
            "profiles": [profile.model_dump(mode="json") for profile in self.profiles],
            "plugins": sorted(self.plugins),
            "calibration": self.calibration,
            "converter": self.converter,
        }
        return {name: value for name, value in document.items() if value not in (None, [], {})}

    @property
    def build_key(self) -> str:
        """SHA-256 of the canonical form, 64 hexadecimal digits."""
        return Digest.of_bytes(canonical_json(self.canonical())).hex
