"""Configurations of Triton models, read by Triton's own protocol."""

from __future__ import annotations

import importlib.util
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format

from tests import values
from trtfarm.contract.builder_config import BuilderConfig
from trtfarm.contract.digest import Digest
from trtfarm.contract.engine_io import EngineIo
from trtfarm.contract.target import Target
from trtfarm.contract.triton import Built, TritonModel, check_names
from trtfarm.contract.v1 import PlanView
from trtfarm.errors import NotExportableError


def _protocol() -> Any:
    """``tritonclient.grpc`` as a package would want gRPC; this one module of it wants protobuf alone."""
    package = importlib.util.find_spec("tritonclient")
    assert package is not None
    folder = Path((package.submodule_search_locations or [""])[0])
    spec = importlib.util.spec_from_file_location("model_config_pb2", folder / "grpc/model_config_pb2.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PROTOCOL = _protocol()
IMAGE = {"name": "image", "dtype": "float32", "shape": [-1, 3, -1, -1]}
SCORES = {"name": "scores", "dtype": "float16", "shape": [-1, 1000]}


def profile(*batches: tuple[int, int], name: str = "image") -> list[dict[str, Any]]:
    return [
        {
            name: {
                "min": [low, 3, 32, 32],
                "opt": [high, 3, 64, 64],
                "max": [high, 3, 64, 64],
            }
        }
        for low, high in batches
    ]


def engine(inputs: Any = (IMAGE,), outputs: Any = (SCORES,), profiles: Any = ()) -> EngineIo:
    return EngineIo.model_validate({"inputs": inputs, "outputs": outputs, "profiles": profiles})


def plan(gpu: str, capability: str, runtime: str = "tensorrt-10.16.1", number: int = 0) -> PlanView:
    return PlanView(
        digest=Digest.of_bytes(f"{gpu}{runtime}{number}".encode()), size_bytes=8, model=values.MODEL,
        target=Target(gpu=gpu, compute_capability=capability, runtime=runtime), build_key="0" * 64,
        build_seconds=1.0, job_id="job", config=BuilderConfig(), profiles=(), io=None, log=None,
        created_at=datetime.now(UTC),
    )  # fmt: skip


def read(model: TritonModel) -> Any:
    return text_format.Parse(model.config, PROTOCOL.ModelConfig())


def test_a_model_for_two_capabilities():
    io = engine(profiles=profile((1, 16)))
    built = [Built(plan("rtx-5090", "12.0"), io), Built(plan("l4", "8.9"), io), Built(plan("t4", "7.5"), io)]
    model = TritonModel.of("vision/detector:prod", built)
    config = read(model)
    assert config.name == model.name == "vision-detector-prod"
    assert (config.platform, config.backend, config.max_batch_size) == ("tensorrt_plan", "tensorrt", 16)
    assert [(each.name, each.data_type, list(each.dims)) for each in config.input] == [
        ("image", PROTOCOL.TYPE_FP32, [3, -1, -1])
    ]
    assert [(each.name, each.data_type, list(each.dims)) for each in config.output] == [
        ("scores", PROTOCOL.TYPE_FP16, [1000])
    ]
    assert dict(config.cc_model_filenames) == {
        "7.5": "model.cc-7.5.plan", "8.9": "model.cc-8.9.plan", "12.0": "model.cc-12.0.plan"
    }  # fmt: skip
    assert not config.default_model_filename
    assert not config.instance_group
    assert list(model.plans) == ["7.5", "8.9", "12.0"]
    assert str(model.file("8.9")) == "vision-detector-prod/1/model.cc-8.9.plan"


@pytest.mark.parametrize(
    ("batches", "largest"),
    [
        ([(1, 8)], 8),
        ([(1, 4), (5, 32)], 32),
        ([(8, 32), (1, 8)], 32),
        ([(1, 4), (6, 32)], 0),
        ([(2, 8)], 0),
        ([], 0),
    ],
)
def test_batches(batches, largest):
    """Every batch from one up must be one that some profile takes."""
    model = TritonModel.of("m", [Built(plan("l4", "8.9"), engine(profiles=profile(*batches)))])
    config = read(model)
    assert config.max_batch_size == largest
    assert list(config.input[0].dims) == ([3, -1, -1] if largest else [-1, 3, -1, -1])
    every = [str(number) for number in range(len(batches))]
    assert [list(group.profile) for group in config.instance_group] == ([every] if len(batches) > 1 else [])


def test_a_batch_is_that_of_all_inputs_and_outputs():
    mask = {"name": "mask", "dtype": "bool", "shape": [-1, 3, -1, -1]}
    ranges = {**profile((1, 16))[0], **profile((1, 4), name="mask")[0]}
    both = engine(inputs=(IMAGE, mask), profiles=[ranges])
    assert both.max_batch == 4
    fixed = engine(outputs=({"name": "mean", "dtype": "float32", "shape": [3]},), profiles=profile((1, 16)))
    assert fixed.max_batch == 0
    apart = {**profile((1, 4))[0], **profile((8, 16), name="mask")[0]}
    assert engine(inputs=(IMAGE, mask), profiles=[apart]).max_batch == 0


def test_names_types_and_scalars():
    kinds = ("bool", "uint8", "int8", "int32", "int64", "float16", "bfloat16", "float32")
    outputs = [{"name": f'o"\\\n{kind} é☃', "dtype": kind, "shape": [2]} for kind in kinds]
    outputs.append({"name": "count", "dtype": "int64", "shape": []})
    config = read(TritonModel.of("m", [Built(plan("l4", "8.9"), engine(outputs=outputs))]))
    assert [each.name for each in config.output] == [each["name"] for each in outputs]
    names = [PROTOCOL.DataType.Name(each.data_type) for each in config.output]
    assert names[:8] == [
        "TYPE_BOOL", "TYPE_UINT8", "TYPE_INT8", "TYPE_INT32",
        "TYPE_INT64", "TYPE_FP16", "TYPE_BF16", "TYPE_FP32",
    ]  # fmt: skip
    scalar = config.output[8]
    assert (list(scalar.dims), scalar.HasField("reshape"), list(scalar.reshape.shape)) == ([1], True, [])


def test_what_cannot_be_deployed_together():
    io = engine()

    def refused(*built: Built, **options: Any) -> str:
        with pytest.raises(NotExportableError) as caught:
            TritonModel.of("detector", built, **options)
        return str(caught.value)

    collision = refused(Built(plan("l4", "8.9"), io), Built(plan("rtx-4090", "8.9"), io))
    assert "two plans for capability 8.9: for l4 and for rtx-4090" in collision
    assert "--gpu" in collision
    other = plan("t4", "7.5", "tensorrt-10.16.2")
    assert "a Triton server has one TensorRT" in refused(Built(plan("l4", "8.9"), io), Built(other, io))
    larger = engine(inputs=({**IMAGE, "shape": [-1, 4, -1, -1]},))
    assert "differ in inputs" in refused(Built(plan("l4", "8.9"), io), Built(plan("t4", "7.5"), larger))
    eight = engine(outputs=({**SCORES, "dtype": "fp8"},))
    assert "no type for scores of fp8" in refused(Built(plan("l4", "8.9"), eight))
    rtx = Built(plan("cc-8.9", "8.9", "tensorrt-rtx-1.7.1.116"), io)
    assert "does not load" in refused(rtx)
    config = read(TritonModel.of("detector", [rtx], backend="tensorrt_rtx"))
    assert (config.platform, config.backend) == ("", "tensorrt_rtx")
    same = plan("l4", "8.9")
    assert TritonModel.of("detector", [Built(same, io), Built(same, io)]).plans == {"8.9": same}
    one = TritonModel.of("a/b", [Built(same, io)])
    with pytest.raises(NotExportableError, match="Two models would be called 'a-b'"):
        check_names([one, TritonModel.of("a-b", [Built(same, io)])])
