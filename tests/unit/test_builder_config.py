from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from trtfarm.contract.builder_config import BuilderConfig
from trtfarm.contract.digest import Digest
from trtfarm.contract.spec import BuildSpec
from trtfarm.contract.target import Target
from trtfarm.errors import InvalidRequestError

EVERYTHING = {
    "fp16": True,
    "bf16": True,
    "int8": True,
    "int4": True,
    "best": True,
    "tf32": False,
    "sparsity": "enable",
    "builder_optimization_level": 5,
    "memory_pool_limits": {"dla_managed_sram": 1 << 20, "workspace": 1 << 32},
    "tactic_sources": {"CUDNN": False, "JIT_CONVOLUTIONS": True},
    "avg_timing_iterations": 8,
    "max_aux_streams": 0,
    "max_num_tactics": 10,
    "tiling_optimization_level": 2,
    "l2_limit_for_tiling": 1 << 20,
    "profiling_verbosity": "detailed",
    "hardware_compatibility_level": "ampere_plus",
    "version_compatible": True,
    "exclude_lean_runtime": True,
    "refit": True,
    "strip_plan": True,
    "weight_streaming": True,
    "direct_io": True,
    "distributive_independence": True,
    "disable_timing_cache": True,
    "disable_compilation_cache": True,
    "error_on_timing_cache_miss": True,
    "preview_features": {"ALIASED_PLUGIN_IO_10_03": True},
    "native_instance_norm": True,
    "input_io_formats": ["fp16:chw+hwc8"],
    "output_io_formats": ["fp32:chw", "int8:chw32"],
    "precision_constraints": "obey",
    "layer_precisions": {"conv*": "fp16"},
    "layer_output_types": {"split": ["fp16", "fp32"]},
    "use_dla_core": 0,
    "allow_gpu_fallback": True,
}


def test_the_defaults_are_nothing():
    assert BuilderConfig().canonical() == {}


def test_canonical_has_what_was_asked_for_sorted_and_comes_back():
    config = BuilderConfig.model_validate(EVERYTHING)
    canonical = config.canonical()
    assert canonical == EVERYTHING
    assert list(canonical) == sorted(canonical)
    assert BuilderConfig.model_validate(json.loads(json.dumps(canonical))) == config
    covered = {*EVERYTHING, "fp8", "strongly_typed"}
    assert covered == set(BuilderConfig.model_fields), "a new field is to be tested here"


def test_the_order_of_what_was_given_does_not_matter():
    one = BuilderConfig(memory_pool_limits={"workspace": 1, "tactic_dram": 2}, tactic_sources={})
    other = BuilderConfig(memory_pool_limits={"tactic_dram": 2, "workspace": 1})
    assert one == other
    assert hash(one) == hash(other)
    assert list(one.canonical()["memory_pool_limits"]) == ["tactic_dram", "workspace"]
    assert json.dumps(one.canonical()) == json.dumps(other.canonical())


@pytest.mark.parametrize(
    "default",
    [
        {"fp16": False},
        {"refit": False},
        {"tf32": True},
        {"sparsity": "disable"},
        {"profiling_verbosity": "layer_names_only"},
        {"hardware_compatibility_level": "none"},
        {"precision_constraints": "none"},
        {"tiling_optimization_level": 0},
        {"memory_pool_limits": {}},
        {"preview_features": {}},
        {"input_io_formats": ()},
        {"layer_precisions": {}},
    ],
)
def test_a_default_spelt_out_is_the_default(default):
    assert BuilderConfig.model_validate(default) == BuilderConfig()


@pytest.mark.parametrize(
    "meant",
    [
        {"tf32": False},
        {"native_instance_norm": False},
        {"native_instance_norm": True},
        {"max_aux_streams": 0},
        {"use_dla_core": 0},
        {"builder_optimization_level": 0},
        {"l2_limit_for_tiling": 0},
        {"memory_pool_limits": {"workspace": 0}},
        {"tactic_sources": {"CUDNN": False}},
        {"preview_features": {"RUNTIME_ACTIVATION_RESIZE_10_10": False}},
        {"profiling_verbosity": "none"},
    ],
)
def test_zero_and_false_are_kept_where_they_mean_something(meant):
    assert BuilderConfig.model_validate(meant).canonical() == meant


@pytest.mark.parametrize(
    "wrong",
    [
        {"fp17": True},
        {"sparsity": "maybe"},
        {"builder_optimization_level": 6},
        {"builder_optimization_level": -1},
        {"tiling_optimization_level": 4},
        {"memory_pool_limits": {"cellar": 1}},
        {"memory_pool_limits": {"workspace": -1}},
        {"memory_pool_limits": {"workspace": 2**63}},
        {"tactic_sources": {"cudnn": True}},
        {"avg_timing_iterations": 0},
        {"max_num_tactics": 0},
        {"max_aux_streams": -1},
        {"hardware_compatibility_level": "ampere+"},
        {"preview_features": {"aliasedPluginIO1003": True}},
        {"input_io_formats": ("fp16",)},
        {"input_io_formats": ("fp16:",)},
        {"input_io_formats": ("half:chw",)},
        {"output_io_formats": ("fp16:chw+",)},
        {"layer_precisions": {"": "fp16"}, "precision_constraints": "obey"},
        {"layer_precisions": {"a": "half"}, "precision_constraints": "obey"},
        {"layer_output_types": {"a": ()}, "precision_constraints": "obey"},
    ],
)
def test_wrong_values_are_refused(wrong):
    with pytest.raises(ValidationError):
        BuilderConfig.model_validate(wrong)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"strongly_typed": True, "fp16": True, "best": True}, "fp16 and best"),
        ({"fp8": True, "int8": True}, "fp8 and int8"),
        ({"fp8": True, "best": True}, "fp8 and int8"),
        ({"exclude_lean_runtime": True}, "lean runtime"),
        ({"native_instance_norm": False, "version_compatible": True}, "InstanceNorm"),
        ({"native_instance_norm": False, "hardware_compatibility_level": "ampere_plus"}, "InstanceNorm"),
        ({"layer_precisions": {"a": "fp16"}}, "no effect"),
        ({"layer_output_types": {"a": ("fp16",)}, "precision_constraints": "none"}, "no effect"),
    ],
)
def test_fields_that_exclude_one_another(fields, words):
    with pytest.raises(InvalidRequestError, match=words):
        BuilderConfig.model_validate(fields)


def test_it_cannot_be_changed():
    config = BuilderConfig()
    with pytest.raises(ValidationError):
        config.fp16 = True  # type: ignore[misc]


def test_the_build_key_is_that_of_the_meaning():
    def key(**fields):
        target = Target(gpu="h200", compute_capability="9.0", runtime="tensorrt-8.6.0")
        return BuildSpec(
            model=Digest.of_bytes(b""), target=target, config=BuilderConfig.model_validate(fields)
        ).build_key

    assert key() == key(tf32=True, fp16=False, memory_pool_limits={})
    assert len({key(), key(fp16=True), key(tf32=False), key(builder_optimization_level=3)}) == 4
