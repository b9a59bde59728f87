"""Setters that are read back: TensorRT drops what it does not like, and says so in its log only."""

from __future__ import annotations

from typing import Any, NamedTuple

from trtfarm.contract.trtexec_options import spelling_of
from trtfarm.errors import OptionUnsupportedError


class Setup(NamedTuple):
    """What the options of one build are set on, after the model was parsed into the network."""

    trt: Any
    builder: Any
    network: Any
    config: Any


def unsupported(trt: Any, field: str, reason: str, hint: str | None = None) -> OptionUnsupportedError:
    """``reason`` goes on after the option's name, as in ``--fp16`` *does not exist*."""
    option, runtime = spelling_of(field), f"{trt.__name__}-{trt.__version__}".replace("_", "-")
    return OptionUnsupportedError(
        f"{option} {reason} with {runtime}.", hint=hint, option=option, runtime=runtime
    )


def member(trt: Any, enum: str, name: str, field: str) -> Any:
    """``trt.<enum>.<name>``; raises OptionUnsupportedError where these bindings have none."""
    found = getattr(getattr(trt, enum, None), name, None)
    if found is None:
        raise unsupported(trt, field, f"cannot be set: there is no {enum}.{name}")
    return found


def has_setter(target: Any, attribute: str) -> bool:
    """Properties of the bindings lose their setters from one version to the next."""
    return getattr(getattr(type(target), attribute, None), "fset", None) is not None


def assign(trt: Any, target: Any, attribute: str, value: Any, field: str) -> None:
    """``target.attribute = value``.

    Raises:
        OptionUnsupportedError: there is no such attribute, it cannot be set, or it keeps another value.
    """
    if not has_setter(target, attribute):
        raise unsupported(trt, field, f"cannot be set: there is no {type(target).__name__}.{attribute}")
    setattr(target, attribute, value)
    check(trt, field, value, getattr(target, attribute))


def assign_flag(trt: Any, target: Any, flag: Any, value: bool, field: str) -> None:
    """Of a builder config or a parser."""
    (target.set_flag if value else target.clear_flag)(flag)
    check(trt, field, value, target.get_flag(flag))


def check(trt: Any, field: str, wanted: Any, got: Any) -> None:
    if got != wanted:
        raise unsupported(trt, field, f"is not taken: {wanted} was asked for and it stays {got}")
