"""A model of a Triton model repository: one configuration, a plan for each compute capability."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple, Self

from trtfarm.contract.engine_io import EngineIo, EngineTensor
from trtfarm.contract.target import RTX, Runtime
from trtfarm.contract.v1 import PlanView
from trtfarm.contract.value import Value
from trtfarm.errors import NotExportableError

BACKEND = "tensorrt"
CONFIG = "config.pbtxt"
_PLATFORM = "tensorrt_plan"
_NO_NAME = re.compile(r"[^A-Za-z0-9._-]+")
_TYPES = {
    "bool": "TYPE_BOOL", "uint8": "TYPE_UINT8", "int8": "TYPE_INT8", "int32": "TYPE_INT32",
    "int64": "TYPE_INT64", "float16": "TYPE_FP16", "bfloat16": "TYPE_BF16", "float32": "TYPE_FP32",
}  # fmt: skip


class Built(NamedTuple):
    """A plan with what its ``io`` artifact says."""

    plan: PlanView
    io: EngineIo


class TritonModel(Value):
    """A folder of the repository.

    Attributes:
        name: of the folder, and of the model as clients ask for it.
        backend: who loads the plans.
        plans: by compute capability, as ``8.9``.
    """

    name: str
    backend: str
    version: int
    io: EngineIo
    plans: dict[str, PlanView]

    @classmethod
    def of(cls, name: str, built: Sequence[Built], *, backend: str = BACKEND, version: int = 1) -> Self:
        """
        Raises:
            NotExportableError: two plans for one capability, plans that differ in inputs or outputs or in
                runtime, a runtime that the backend does not load, or a data type that Triton does not have.
        """
        first = built[0]
        _loads(backend, first.plan, name)
        plans: dict[str, PlanView] = {}
        for plan, io in built:
            capability = plan.target.compute_capability
            other = plans.setdefault(capability, plan)
            if other.digest != plan.digest:
                raise NotExportableError(
                    f"{name} has two plans for capability {capability}: for {other.target.gpu} and for "
                    f"{plan.target.gpu}, and Triton tells GPUs apart by capability alone.",
                    hint="Choose one: --gpu. Or make a repository for each.",
                )
            if plan.target.runtime != first.plan.target.runtime:
                raise NotExportableError(
                    f"{name} has plans of {first.plan.target.runtime} and of {plan.target.runtime}, and a "
                    "Triton server has one TensorRT.",
                    hint="Choose one: --runtime. Or make a repository for each.",
                )
            if io != first.io:
                raise NotExportableError(
                    f"The plans of {name} for {first.plan.target.gpu} and for {plan.target.gpu} differ in "
                    "inputs, outputs or profiles, and Triton has one configuration for both.",
                )
        for tensor in (*first.io.inputs, *first.io.outputs):
            if tensor.dtype not in _TYPES:
                raise NotExportableError(f"{name}: Triton has no type for {tensor.name} of {tensor.dtype}.")
        ordered = dict(sorted(plans.items(), key=lambda each: float(each[0])))
        return cls(name=folder(name), backend=backend, version=version, io=first.io, plans=ordered)

    def file(self, capability: str) -> PurePosixPath:
        """Of a plan, below the repository."""
        return PurePosixPath(self.name, str(self.version), _file_name(capability))

    @property
    def config(self) -> str:
        """``config.pbtxt``. It has no default file name: a GPU without a plan of its own is refused."""
        batch = self.io.max_batch
        lines = [f"name: {_text(self.name)}"]
        if self.backend == BACKEND:
            lines.append(f"platform: {_text(_PLATFORM)}")
        lines += [f"backend: {_text(self.backend)}", f"max_batch_size: {batch}"]
        for field, tensors in (("input", self.io.inputs), ("output", self.io.outputs)):
            lines += [_list(field, [_tensor(each, batched=batch > 0) for each in tensors])]
        if len(self.io.profiles) > 1:
            listed = ", ".join(_text(str(number)) for number in range(len(self.io.profiles)))
            lines += ["instance_group [", f"  {{ kind: KIND_GPU profile: [ {listed} ] }}", "]"]
        files = [f"{{ key: {_text(key)} value: {_text(_file_name(key))} }}" for key in self.plans]
        lines += [_list("cc_model_filenames", files)]
        return "\n".join(lines) + "\n"


def folder(name: str) -> str:
    """A model's name as a folder's: ``vision/detector:prod`` → ``vision-detector-prod``."""
    return _NO_NAME.sub("-", name).strip("-.") or "model"


def check_names(models: Iterable[TritonModel]) -> None:
    """Raises NotExportableError if two models would share a folder, on a disk that ignores case too."""
    seen: set[str] = set()
    for model in models:
        name = model.name.casefold()
        if name in seen:
            raise NotExportableError(f"Two models would be called {model.name!r} in the repository.")
        seen.add(name)


def _loads(backend: str, plan: PlanView, name: str) -> None:
    if backend == BACKEND and Runtime.parse(plan.target.runtime).flavour == RTX:
        raise NotExportableError(
            f"{name} was built with {plan.target.runtime}; Triton's {BACKEND} backend does not load that.",
            hint="Build with --runtime tensorrt; or name a backend of yours that loads them: --backend.",
        )


def _file_name(capability: str) -> str:
    return f"model.cc-{capability}.plan"


def _list(field: str, entries: Sequence[str]) -> str:
    body = ",\n".join(f"  {entry}" for entry in entries)
    return f"{field} [\n{body}\n]"


def _tensor(tensor: EngineTensor, *, batched: bool) -> str:
    dims = tensor.shape[1:] if batched else tensor.shape
    # A scalar is sent as one element.
    reshape = "" if dims else " reshape: { shape: [ ] }"
    listed = ", ".join(map(str, dims or (1,)))
    return f"{{ name: {_text(tensor.name)} data_type: {_TYPES[tensor.dtype]} dims: [ {listed} ]{reshape} }}"


def _text(value: str) -> str:
    """Quoted; protobuf's text format knows JSON's escapes."""
    return json.dumps(value, ensure_ascii=False)
