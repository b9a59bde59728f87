"""Hypothesis strategies for values of the contract."""

from __future__ import annotations

from typing import Any, get_args

from hypothesis import strategies as st

from trtfarm.contract.builder_config import BuilderConfig, DataType, MemoryPool, PreviewFeature, TacticSource
from trtfarm.contract.digest import Digest
from trtfarm.contract.profiles import OptimizationProfile, ShapeRange
from trtfarm.contract.spec import BuildSpec
from trtfarm.contract.target import Target, capability_target

digests = st.binary(max_size=2).map(Digest.of_bytes)
names = st.sampled_from(
    ["x", "ids:0", "eingäbe", "入力", "a\u0301", "\N{LATIN SMALL LETTER A WITH ACUTE}", " "]
)
_data_types = st.sampled_from(get_args(DataType))
_switches = st.sampled_from([True, False, None])

_FIELDS: dict[str, st.SearchStrategy[Any]] = {
    **dict.fromkeys(("fp16", "bf16", "int4", "best", "tf32", "refit", "direct_io"), _switches),
    "sparsity": st.sampled_from(["disable", "enable", "force"]),
    "builder_optimization_level": st.integers(0, 5),
    "memory_pool_limits": st.dictionaries(
        st.sampled_from(get_args(MemoryPool)), st.integers(0, 2**40), max_size=3
    ),
    "tactic_sources": st.dictionaries(st.sampled_from(get_args(TacticSource)), st.booleans(), max_size=3),
    "preview_features": st.dictionaries(st.sampled_from(get_args(PreviewFeature)), st.booleans(), max_size=2),
    "avg_timing_iterations": st.integers(1, 9),
    "max_aux_streams": st.integers(0, 2),
    "tiling_optimization_level": st.integers(0, 3),
    "profiling_verbosity": st.sampled_from(["layer_names_only", "detailed", "none"]),
    "hardware_compatibility_level": st.sampled_from(["none", "ampere_plus", "same_compute_capability"]),
    "native_instance_norm": st.sampled_from([True, None]),
    "input_io_formats": st.lists(st.sampled_from(["fp16:chw", "fp32:chw+hwc8", "chw"]), max_size=2),
    "use_dla_core": st.integers(0, 1),
}
_LAYERS = st.fixed_dictionaries(
    {
        "precision_constraints": st.sampled_from(["obey", "prefer"]),
        "layer_precisions": st.dictionaries(names, _data_types, max_size=3),
        "layer_output_types": st.dictionaries(
            names, st.lists(_data_types, min_size=1, max_size=2), max_size=2
        ),
    }
)
builder_configs = st.builds(
    lambda fields, layers: BuilderConfig.model_validate(fields | layers),
    st.fixed_dictionaries({}, optional=_FIELDS),
    st.just({}) | _LAYERS,
)

shape_ranges = st.lists(st.tuples(*[st.integers(1, 64)] * 3).map(sorted), max_size=3).map(
    lambda axes: ShapeRange.model_validate(
        {name: [axis[which] for axis in axes] for which, name in enumerate(("min", "opt", "max"))}
    )
)
profiles = st.dictionaries(names, shape_ranges, min_size=1, max_size=3).map(OptimizationProfile)


@st.composite
def targets(draw: st.DrawFn) -> Target:
    capability = draw(st.sampled_from(["8.6", "8.9", "9.0", "12.0"]))
    return Target(
        gpu=draw(st.sampled_from([capability_target(capability), "h200", "h200+mig-1g.18gb"])),
        compute_capability=capability,
        runtime=draw(st.sampled_from(["tensorrt-8.6.0", "tensorrt-rtx-1.7.1.116"])),
        platform=draw(st.sampled_from(["linux-x86_64", "linux-aarch64"])),
    )


build_specs = st.builds(
    BuildSpec,
    model=digests,
    target=targets(),
    config=builder_configs,
    profiles=st.lists(profiles, max_size=2).map(tuple),
    plugins=st.lists(digests, max_size=3, unique=True).map(tuple),
    calibration=st.none() | digests,
)
