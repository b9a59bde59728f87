from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trtfarm.contract.builder_config import BuilderConfig
from trtfarm.contract.trtexec import OPTIONS, parse_build_options
from trtfarm.contract.trtexec_options import PROFILE, TOOL, spelling_of
from trtfarm.contract.trtexec_refused import REFUSED
from trtfarm.errors import (
    InvalidRequestError,
    OptionUnknownError,
    OptionUnsupportedError,
    ProfileInvalidError,
    TrtFarmError,
)

MIB = 1 << 20

# (option, the rest of the command line that it needs) → fields
READS = {
    "--fp16": {"fp16": True},
    "--bf16": {"bf16": True},
    "--int8": {"int8": True},
    "--fp8": {"fp8": True},
    "--int4": {"int4": True},
    "--best": {"best": True},
    "--noTF32": {"tf32": False},
    "--stronglyTyped": {"strongly_typed": True},
    "--precisionConstraints=prefer": {"precision_constraints": "prefer"},
    "--precisionConstraints=none": {},
    "--layerPrecisions=conv*:fp16,'a:b':int8 --precisionConstraints=obey": {
        "layer_precisions": {"a:b": "int8", "conv*": "fp16"},
        "precision_constraints": "obey",
    },
    "--layerOutputTypes=a:b:fp16+fp32 --precisionConstraints=obey": {
        "layer_output_types": {"a:b": ["fp16", "fp32"]},
        "precision_constraints": "obey",
    },
    "--builderOptimizationLevel=5": {"builder_optimization_level": 5},
    "--avgTiming=8": {"avg_timing_iterations": 8},
    "--maxTactics=20": {"max_num_tactics": 20},
    "--maxTactics=-1": {},
    "--tacticSources=-CUDNN,+cublas": {"tactic_sources": {"CUBLAS": True, "CUDNN": False}},
    "--tilingOptimizationLevel=3": {"tiling_optimization_level": 3},
    "--l2LimitForTiling=1048576": {"l2_limit_for_tiling": MIB},
    "--l2LimitForTiling=-1": {},
    "--sparsity=enable": {"sparsity": "enable"},
    "--sparsity=disable": {},
    "--maxAuxStreams=0": {"max_aux_streams": 0},
    "--maxAuxStreams=-1": {},
    "--distributiveIndependence": {"distributive_independence": True},
    "--preview=+profileSharing0806,-fasterDynamicShapes0805": {
        "preview_features": {"FASTER_DYNAMIC_SHAPES_0805": False, "PROFILE_SHARING_0806": True}
    },
    "--inputIOFormats=fp16:chw+hwc8,fp32:chw": {"input_io_formats": ["fp16:chw+hwc8", "fp32:chw"]},
    "--outputIOFormats=chw": {"output_io_formats": ["chw"]},
    "--directIO": {"direct_io": True},
    "--pluginInstanceNorm": {"native_instance_norm": False},
    "--pi": {"native_instance_norm": False},
    "--memPoolSize=workspace:4096": {"memory_pool_limits": {"workspace": 4096 * MIB}},
    "--memPoolSize=workspace:0.25,tacticSharedMem:48K,dlaLocalDRAM:1g,dlaGlobalDRAM:512B": {
        "memory_pool_limits": {
            "workspace": MIB // 4,
            "tactic_shared_memory": 48 << 10,
            "dla_local_dram": 1 << 30,
            "dla_global_dram": 512,
        }
    },
    "--memPoolSize=dlaSRAM:3M": {"memory_pool_limits": {"dla_managed_sram": 2 * MIB}},
    "--allowWeightStreaming": {"weight_streaming": True},
    "--refit": {"refit": True},
    "--stripWeights": {"strip_plan": True},
    "--weightless": {"strip_plan": True},
    "--stripAllWeights": {"refit": True, "strip_plan": True},
    "--versionCompatible": {"version_compatible": True},
    "--vc": {"version_compatible": True},
    "--vc --excludeLeanRuntime": {"version_compatible": True, "exclude_lean_runtime": True},
    "--hardwareCompatibilityLevel=ampere+": {"hardware_compatibility_level": "ampere_plus"},
    "--hardwareCompatibilityLevel=sameComputeCapability": {
        "hardware_compatibility_level": "same_compute_capability"
    },
    "--hardwareCompatibilityLevel=none": {},
    "--profilingVerbosity=detailed": {"profiling_verbosity": "detailed"},
    "--profilingVerbosity=verbose": {"profiling_verbosity": "detailed"},
    "--profilingVerbosity=default": {},
    "--noBuilderCache": {"disable_timing_cache": True},
    "--noCompilationCache": {"disable_compilation_cache": True},
    "--errorOnTimingCacheMiss": {"error_on_timing_cache_miss": True},
    "--useDLACore=0": {"use_dla_core": 0},
    "--useDLACore=-1": {},
    "--allowGPUFallback": {"allow_gpu_fallback": True},
}


@pytest.mark.parametrize("line", READS)
def test_options_of_the_config(line):
    found = parse_build_options(line.split())
    assert found.config.canonical() == READS[line]
    assert found.config == BuilderConfig.model_validate(READS[line])
    assert found.profiles == ()
    assert found.tool == {}


@pytest.mark.parametrize("line", [line for line in READS if "=" in line and " " not in line])
def test_a_value_may_be_an_argument_of_its_own(line):
    assert parse_build_options(line.split("=", 1)) == parse_build_options([line])


def test_every_config_option_is_tested_here():
    used = {word.partition("=")[0] for line in READS for word in line.split()}
    assert {o.spelling for o in OPTIONS if o.group not in (PROFILE, TOOL)} == used


def test_every_field_is_reachable():
    assert {field for o in OPTIONS if o.group != TOOL for field in o.fields} == set(
        BuilderConfig.model_fields
    )
    set_here = {field for fields in READS.values() for field in fields}
    assert set_here == set(BuilderConfig.model_fields)
    assert all(spelling_of(field).startswith("--") for field in BuilderConfig.model_fields)
    assert spelling_of("of_no_option") == "of_no_option"


def test_the_table_is_fit_for_a_help_text():
    spellings = [option.spelling for option in OPTIONS]
    assert len(spellings) == len(set(spellings))
    assert not set(spellings) & set(REFUSED)
    assert all(o.help and o.group and len(o.help) < 90 and "\n" not in o.help for o in OPTIONS)
    assert all(
        r.reason and not r.reason.endswith(".") and r.alternative.endswith(".") for r in REFUSED.values()
    )


# All spellings of trtexec 8.6.1, 10.16 and 11.1 (but for --help), of tensorrt.md section 1.
TRTEXEC = """
onnx model deploy output uff uffInput uffNHWC maxBatch explicitBatch explicitPrecision minShapes optShapes
maxShapes profile minShapesCalib optShapesCalib maxShapesCalib calibProfile inputIOFormats outputIOFormats
workspace memPoolSize profilingVerbosity nvtxMode minTiming avgTiming refit stripWeights weightless
stripAllWeights versionCompatible vc pluginInstanceNorm pi uint8AsymmetricQuantizationDLA
reportCapabilityDLA adjustForDLA enablePluginOverride useRuntime leanDLLPath excludeLeanRuntime
monitorMemory sparsity noTF32 fp16 bf16 int8 fp8 int4 best stronglyTyped directIO precisionConstraints
layerPrecisions layerOutputTypes layerDeviceTypes decomposableAttentions distributiveIndependence calib
saveEngine loadEngine asyncFileReader getPlanVersionOnly tacticSources noBuilderCache noCompilationCache
errorOnTimingCacheMiss timingCacheFile heuristic preview builderOptimizationLevel maxTactics
hardwareCompatibilityLevel runtimePlatform tempdir tempfileControls maxAuxStreams allowWeightStreaming
markDebug markUnfusedTensorsAsDebugTensors tilingOptimizationLevel l2LimitForTiling refitFromOnnx
setBuildRoute saveAllEngines skipInference buildOnly safe consistency restricted dumpKernelText
buildDLAStandalone allowGPUFallback remoteAutoTuningConfig cpuOnly safetyPlugins serialized std device
useDLACore plugins staticPlugins dynamicPlugins setPluginsToSerialize ignoreParsedPluginLibs batch shapes
loadInputs loadRefOutputs iterations warmUp duration sleepTime idleTime infStreams streams exposeDMA
noDataTransfers includeDataTransfers useManagedMemory useSpinWait noSpinWait threads useCudaGraph
noCudaGraph timeDeserialize timeRefit separateProfileRun persistentCacheRatio useProfile
allocationStrategy accuracyAlgorithm atol rtol accuracyThreshold refPair saveDebugTensors
saveAllDebugTensors weightStreamingBudget tuneBuildRoutes tuneBuildRouteFile tuningSearch tuningCacheFile
tuningTimeOut dryRun continue helpBuildRoute tuningResultFile verbose avgRuns percentile dumpRefit
dumpOutput dumpRawBindingsToFile dumpProfile dumpLayerInfo dumpOptimizationProfile exportTimes
exportOutput exportProfile exportLayerInfo
"""


def test_every_option_of_trtexec_is_honoured_or_refused_with_a_reason():
    known = {f"--{name}" for name in TRTEXEC.split()}
    assert known == {option.spelling for option in OPTIONS} | set(REFUSED)


@pytest.mark.parametrize("option", REFUSED)
@pytest.mark.parametrize("rest", [[], ["7"]])
def test_refused_options_say_why_and_what_instead(option, rest):
    for args in ([option, *rest], [f"{option}=7"], ["--fp16", option]):
        with pytest.raises(OptionUnsupportedError) as caught:
            parse_build_options(args)
        assert caught.value.message.startswith(f"{option} ")
        assert caught.value.hint
        assert caught.value.details["option"] == option


@pytest.mark.parametrize(
    ("args", "hint"),
    [
        (["--fp61"], "--fp16"),
        (["-fp16"], "--fp16"),
        (["--FP16"], "--fp16"),
        (["--minshapes=x:1"], "--minShapes"),
        (["--builderOptimisationLevel=5"], "--builderOptimizationLevel"),
        (["--iteration=5"], "--iterations"),
        (["--zzzzzzzz"], "--help"),
        (["fp16"], "Options start with --"),
        (["--fp16", "true"], "Options start with --"),
        (["=3"], "Options start with --"),
        ([""], "Options start with --"),
        (["--"], "--help"),
    ],
)
def test_unknown_options_get_the_nearest(args, hint):
    with pytest.raises(OptionUnknownError) as caught:
        parse_build_options(args)
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("line", "grammar"),
    [
        ("--builderOptimizationLevel=6", "0..5"),
        ("--builderOptimizationLevel=high", "0..5"),
        ("--builderOptimizationLevel=-1", "0..5"),
        ("--builderOptimizationLevel=²", "0..5"),
        ("--builderOptimizationLevel=", "0..5"),
        ("--builderOptimizationLevel", "0..5"),
        ("--builderOptimizationLevel --fp16", "0..5"),
        ("--avgTiming=0", "N"),
        ("--maxAuxStreams=-2", "N"),
        ("--maxAuxStreams=99999999999", "N"),
        ("--tacticSources=CUDNN", "+NAME|-NAME"),
        ("--tacticSources=-CUDN", "+NAME|-NAME"),
        ("--tacticSources=-CUDNN,+CUDNN", "+NAME|-NAME"),
        ("--tacticSources=-CUDNN,,", "+NAME|-NAME"),
        ("--preview=+profileSharing", "+NAME|-NAME"),
        ("--memPoolSize=workspace", "pool:size"),
        ("--memPoolSize=cellar:3", "pool:size"),
        ("--memPoolSize=workspace:", "pool:size"),
        ("--memPoolSize=workspace:-1", "pool:size"),
        ("--memPoolSize=workspace:4T", "pool:size"),
        ("--memPoolSize=workspace:nan", "pool:size"),
        ("--memPoolSize=workspace:inf", "pool:size"),
        ("--memPoolSize=workspace:1e30", "pool:size"),
        ("--memPoolSize=workspace:1,workspace:2", "pool:size"),
        ("--hardwareCompatibilityLevel=ampere", "none|ampere+|sameComputeCapability"),
        ("--profilingVerbosity=loud", "layer_names_only|detailed|none"),
        ("--sparsity=maybe", "disable|enable"),
        ("--precisionConstraints=please", "none|obey|prefer"),
        ("--layerPrecisions=fp16", "layer:type"),
        ("--layerPrecisions=a:half", "layer:type"),
        ("--layerOutputTypes=a:fp16+", "layer:type"),
        ("--inputIOFormats=fp16:chw64", "[type:]format"),
        ("--inputIOFormats=half:chw", "[type:]format"),
        ("--outputIOFormats=fp16", "[type:]format"),
        ("--fp16=false", "--fp16"),
        ("--fp16=", "--fp16"),
        ("--saveEngine", "PATH"),
    ],
)
def test_bad_values_name_the_option_and_its_grammar(line, grammar):
    with pytest.raises(InvalidRequestError) as caught:
        parse_build_options(line.split())
    assert caught.value.message.startswith(line.split("=")[0].split()[0])
    assert grammar in (caught.value.hint or "")


@pytest.mark.parametrize(
    "line", ["--fp16 --fp16", "--avgTiming=1 --avgTiming=2", "--shapes=x:1 --shapes=y:1"]
)
def test_twice_is_refused(line):
    with pytest.raises(InvalidRequestError, match="given twice"):
        parse_build_options(line.split())


def test_options_that_exclude_one_another():
    with pytest.raises(InvalidRequestError, match="strongly typed"):
        parse_build_options(["--stronglyTyped", "--fp16"])


def test_what_is_the_client_s_business():
    found = parse_build_options(
        ["--saveEngine=out/m.plan", "--timingCacheFile", "t.cache", "--verbose", "--skipInference"]
    )
    assert found.config == BuilderConfig()
    assert found.tool == {
        "save_engine": "out/m.plan",
        "timing_cache_file": "t.cache",
        "verbose": True,
        "skip_inference": True,
    }


def dumped(line: str) -> list[dict[str, dict[str, list[int]]]]:
    return [p.model_dump(mode="json") for p in parse_build_options(line.split()).profiles]


def test_shapes():
    assert dumped("--minShapes=x:1x3x8x8,y:1 --optShapes=x:4x3x8x8,y:2 --maxShapes=x:8x3x8x8,y:3") == [
        {
            "x": {"min": [1, 3, 8, 8], "opt": [4, 3, 8, 8], "max": [8, 3, 8, 8]},
            "y": {"min": [1], "opt": [2], "max": [3]},
        }
    ]


@pytest.mark.parametrize(
    ("line", "low", "opt", "high"),
    [
        ("--optShapes=x:2", 2, 2, 2),
        ("--minShapes=x:2", 2, 2, 2),
        ("--maxShapes=x:2", 2, 2, 2),
        ("--shapes=x:2", 2, 2, 2),
        ("--minShapes=x:1 --maxShapes=x:3", 1, 3, 3),
        ("--minShapes=x:1 --optShapes=x:2", 1, 2, 2),
        ("--optShapes=x:2 --maxShapes=x:3", 2, 2, 3),
    ],
)
def test_what_is_missing_is_taken_from_what_is_given(line, low, opt, high):
    assert dumped(line) == [{"x": {"min": [low], "opt": [opt], "max": [high]}}]


def test_missing_shapes_are_filled_for_each_input():
    found = dumped("--minShapes=x:1 --maxShapes=x:3,y:5")[0]
    assert found["y"] == {"min": [5], "opt": [5], "max": [5]}


@pytest.mark.parametrize(
    ("text", "name", "shape"),
    [
        ("input:0:1x3", "input:0", [1, 3]),
        ("'input:0':1x3", "input:0", [1, 3]),
        ("'a:1':", "a:1", []),
        ("a:scalar", "a", []),
        ("a:", "a", []),
        ("/model/in.1:7", "/model/in.1", [7]),
    ],
)
def test_names_in_shapes(text, name, shape):
    assert dumped(f"--optShapes={text}") == [{name: {"min": shape, "opt": shape, "max": shape}}]


def test_spaces_after_commas_do_not_matter():
    assert [*dumped("--optShapes=a:1,b:2")[0]] == ["a", "b"]
    found = parse_build_options(["--optShapes=a:1, b:2"])
    assert [*found.profiles[0].root] == ["a", "b"]


def test_several_profiles_in_the_order_of_their_numbers():
    line = (
        "--profile=1 --minShapes=x:8 --optShapes=x:16 --maxShapes=x:32 --fp16 "
        "--profile 0 --maxShapes=x:4 --minShapes=x:1 --optShapes=x:2"
    )
    assert dumped(line) == [
        {"x": {"min": [1], "opt": [2], "max": [4]}},
        {"x": {"min": [8], "opt": [16], "max": [32]}},
    ]
    assert parse_build_options(line.split()).config.fp16


def test_shapes_fix_inputs_that_the_profile_does_not_name():
    assert dumped("--minShapes=x:1 --maxShapes=x:4 --shapes=y:2x2") == [
        {
            "x": {"min": [1], "opt": [4], "max": [4]},
            "y": {"min": [2, 2], "opt": [2, 2], "max": [2, 2]},
        }
    ]


def test_shapes_for_inference_are_refused():
    with pytest.raises(OptionUnsupportedError, match="for inference"):
        dumped("--minShapes=x:1 --maxShapes=x:4 --shapes=x:2")


@pytest.mark.parametrize(
    "line",
    [
        "--minShapes=x",
        "--minShapes=1x3",
        "--minShapes=:1x3",
        "--minShapes=x:1x0",
        "--minShapes=x:1x-1",
        "--minShapes=x:1,3",
        "--minShapes=x:1*3",
        "--minShapes=x:1X3",
        "--minShapes=x:axb",
        "--minShapes=x:²",
        "--minShapes=x:1x",
        "--minShapes=x:99999999999",
        "--minShapes=in*:1",
        "--minShapes=x:1,x:2",
        "--minShapes='x:1",
        "--minShapes='x'1",
        "--minShapes=a'x':1",
        "--minShapes=x:1,,y:1",
        "--minShapes=x:4 --maxShapes=x:1",
        "--minShapes=x:1 --maxShapes=x:1x2",
        "--minShapes=x:1 --minShapes=x:2",
        "--profile=0",
        "--profile=0 --fp16 --minShapes=x:1",
        "--minShapes=x:1 --profile=0 --minShapes=x:1",
        "--profile=0 --minShapes=x:1 --minShapes=x:1",
        "--profile=1 --minShapes=x:1",
        "--profile=0 --minShapes=x:1 --profile=2 --minShapes=x:1",
        "--profile=0 --minShapes=x:1 --profile=0 --minShapes=x:1",
        "--profile=-1 --minShapes=x:1",
        "--profile=64 --minShapes=x:1",
        "--profile=a --minShapes=x:1",
    ],
)
def test_bad_shapes(line):
    with pytest.raises(ProfileInvalidError):
        parse_build_options(line.split())


def test_a_contradiction_names_the_input():
    with pytest.raises(ProfileInvalidError, match=r"Input 'x': axis 0 .* breaks min"):
        dumped("--minShapes=x:4 --maxShapes=x:1")


SPELLINGS = [*(o.spelling for o in OPTIONS), *REFUSED]


@given(
    st.lists(
        st.one_of(
            st.sampled_from(SPELLINGS),
            st.tuples(st.sampled_from(SPELLINGS), st.text(max_size=12)).map("=".join),
            st.tuples(st.sampled_from(SPELLINGS), st.text("':x,+-*0123456789kMGfp", max_size=12)).map(
                "=".join
            ),
            st.text(max_size=12),
        ),
        max_size=6,
    )
)
def test_anything_is_read_or_refused_in_words(args):
    try:
        found = parse_build_options(args)
    except TrtFarmError:
        return  # any other exception is a bug
    assert BuilderConfig.model_validate(found.config.canonical()) == found.config
