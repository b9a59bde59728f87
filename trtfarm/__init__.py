"""A build farm for TensorRT engines."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trtfarm.compose.farm import AsyncFarm, Farm

__version__ = "0.1.0"
__all__ = ["AsyncFarm", "Farm", "__version__"]


def __getattr__(name: str) -> Any:
    """The clients are loaded when they are asked for: the version alone should cost nothing."""
    if name in {"AsyncFarm", "Farm"}:
        from importlib import import_module

        return getattr(import_module("trtfarm.compose.farm"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
