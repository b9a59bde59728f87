"""Optimization profiles: the range of shapes that an engine is built for."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, RootModel, model_validator
from pydantic.config import ConfigDict

from trtfarm.contract.value import NO_NUL, Value
from trtfarm.errors import ProfileInvalidError, ProfileRequiredError

Dim = Annotated[int, Field(ge=1, lt=2**31)]
Shape = tuple[Dim, ...]
InputName = Annotated[str, Field(pattern=NO_NUL)]
MAX_PROFILES = 64


class ShapeRange(Value):
    """Shapes of one input, in elements per axis, with min ≤ opt ≤ max on every axis."""

    min: Shape
    opt: Shape
    max: Shape

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not len(self.min) == len(self.opt) == len(self.max):
            raise ProfileInvalidError(f"min, opt and max differ in rank: {self}.")
        for axis, (low, best, high) in enumerate(zip(self.min, self.opt, self.max, strict=True)):
            if not low <= best <= high:
                raise ProfileInvalidError(
                    f"axis {axis} of {self} breaks min ≤ opt ≤ max ({low}, {best}, {high})."
                )
        return self

    def __str__(self) -> str:
        return " / ".join("x".join(map(str, shape)) for shape in (self.min, self.opt, self.max))


class OptimizationProfile(RootModel[dict[InputName, ShapeRange]]):
    """Input name → shape range."""

    model_config = ConfigDict(frozen=True)

    def __hash__(self) -> int:
        return hash(tuple(sorted(self.root)))


class TensorInfo(Value):
    """A model's input or output.

    Attributes:
        shape: elements per axis; -1 where the size is known only at run time. None: rank unknown.
        dtype: ONNX's name in lower case, as ``float``, ``float16``, ``int64``.
    """

    name: str
    dtype: str
    shape: tuple[int, ...] | None

    @property
    def dynamic(self) -> bool:
        return self.shape is None or -1 in self.shape

    def __str__(self) -> str:
        dims = "?" if self.shape is None else "x".join("?" if d < 0 else str(d) for d in self.shape)
        return f"{self.name}:{dims}"


def check_profiles(profiles: tuple[OptimizationProfile, ...], inputs: tuple[TensorInfo, ...]) -> None:
    """Profiles against the inputs of a model.

    Raises:
        ProfileRequiredError: an input is dynamic and a profile (or the only one) does not name it.
        ProfileInvalidError: an unknown input, another rank, or another size on a fixed axis.
    """
    dynamic = [tensor for tensor in inputs if tensor.dynamic]
    if dynamic and not profiles:
        _require(dynamic[0])
    if len(profiles) > MAX_PROFILES:
        raise ProfileInvalidError(f"{len(profiles)} profiles are more than {MAX_PROFILES}.")
    known = {tensor.name: tensor for tensor in inputs}
    for profile in profiles:
        for name, shapes in profile.root.items():
            if name not in known:
                listed = ", ".join(map(str, inputs))
                raise ProfileInvalidError(f"The model has no input {name!r}.", hint=f"Its inputs: {listed}.")
            _fits(known[name], shapes)
        for tensor in dynamic:
            if tensor.name not in profile.root:
                _require(tensor)


def _require(tensor: TensorInfo) -> None:
    example = "x".join("1" if d < 0 else str(d) for d in tensor.shape or ())
    raise ProfileRequiredError(
        f"Input {tensor} has dynamic dimensions and no optimization profile.",
        hint=f"Give --minShapes, --optShapes and --maxShapes, as in --optShapes={tensor.name}:{example}.",
    )


def _fits(tensor: TensorInfo, shapes: ShapeRange) -> None:
    if tensor.shape is None:
        return
    for shape in (shapes.min, shapes.opt, shapes.max):
        same_rank = len(shape) == len(tensor.shape)
        if not same_rank or any(want not in (-1, got) for want, got in zip(tensor.shape, shape, strict=True)):
            raise ProfileInvalidError(
                f"{tensor.name}:{'x'.join(map(str, shape))} does not fit the model's input {tensor}."
            )
