from __future__ import annotations

import pytest

from trtfarm.contract.builder_config import BuilderConfig
from trtfarm.contract.support import refuse_unsupported
from trtfarm.contract.target import Runtime
from trtfarm.contract.trtexec import parse_build_options
from trtfarm.errors import OptionUnsupportedError

RUNTIMES = ("8.6.0", "8.6.1.6", "9.1.0", "10.0.1", "10.16.1.11", "11.0", "11.4.0.106", "rtx")

# Command line → where it is honoured; r stands for tensorrt-rtx.
WHERE = {
    "--fp16": " ".join(RUNTIMES),
    "--bf16": "9.1.0 10.0.1 10.16.1.11",
    "--int8": "8.6.0 8.6.1.6 9.1.0 10.0.1 10.16.1.11",
    "--fp8": "8.6.0 8.6.1.6 9.1.0 10.0.1 10.16.1.11",
    "--int4": "10.16.1.11",
    "--best": "8.6.0 8.6.1.6 9.1.0 10.0.1 10.16.1.11",
    "--noTF32": " ".join(RUNTIMES),
    "--stronglyTyped": "9.1.0 10.0.1 10.16.1.11 11.0 11.4.0.106 rtx",
    "--precisionConstraints=obey": "8.6.0 8.6.1.6 9.1.0 10.0.1 10.16.1.11",
    "--precisionConstraints=obey --layerPrecisions=a:fp16": "8.6.0 8.6.1.6 9.1.0 10.0.1 10.16.1.11",
    "--precisionConstraints=obey --layerOutputTypes=a:fp16": "8.6.0 8.6.1.6 9.1.0 10.0.1 10.16.1.11",
    "--precisionConstraints=none": " ".join(RUNTIMES),
    "--sparsity=enable": " ".join(RUNTIMES),
    "--sparsity=force": "",
    "--builderOptimizationLevel=5": "8.6.0 8.6.1.6 9.1.0 10.0.1 10.16.1.11 11.0 11.4.0.106",
    "--avgTiming=8": "8.6.0 8.6.1.6 9.1.0 10.0.1 10.16.1.11 11.0 11.4.0.106",
    "--maxTactics=8": "10.16.1.11 11.0 11.4.0.106",
    "--tacticSources=-CUDNN": "8.6.0 8.6.1.6 9.1.0 10.0.1 10.16.1.11",
    "--tacticSources=+CUBLAS_LT": "8.6.0 8.6.1.6 9.1.0 10.0.1 10.16.1.11",
    "--tacticSources=-JIT_CONVOLUTIONS": "8.6.0 8.6.1.6 9.1.0 10.0.1 10.16.1.11 11.0 11.4.0.106",
    "--tilingOptimizationLevel=1": "10.16.1.11 11.0 11.4.0.106",
    "--l2LimitForTiling=1": "10.16.1.11 11.0 11.4.0.106",
    "--maxAuxStreams=1": " ".join(RUNTIMES),
    "--distributiveIndependence": "10.16.1.11 11.0 11.4.0.106 rtx",
    "--preview=+fasterDynamicShapes0805": "8.6.0 8.6.1.6 9.1.0",
    "--preview=-disableExternalTacticSourcesForCore0805": "8.6.0 8.6.1.6 9.1.0",
    "--preview=+profileSharing0806": "8.6.0 8.6.1.6 9.1.0 10.0.1 10.16.1.11",
    "--preview=+aliasedPluginIO1003": "10.16.1.11 11.0 11.4.0.106 rtx",
    "--preview=-runtimeActivationResize": "10.16.1.11 11.0 11.4.0.106 rtx",
    "--preview=+multiDeviceRuntime": "10.16.1.11",
    "--inputIOFormats=fp16:chw": "8.6.0 8.6.1.6 9.1.0 10.0.1 10.16.1.11",
    "--inputIOFormats=bf16:chw": "9.1.0 10.0.1 10.16.1.11",
    "--outputIOFormats=int4:chw": "10.16.1.11",
    "--precisionConstraints=prefer --layerPrecisions=a:bf16": "9.1.0 10.0.1 10.16.1.11",
    "--precisionConstraints=prefer --layerOutputTypes=a:fp16+int64": "9.1.0 10.0.1 10.16.1.11",
    "--inputIOFormats=chw": "11.0 11.4.0.106 rtx",
    "--fp16 --inputIOFormats=fp16:chw": " ".join(RUNTIMES),
    "--fp16 --precisionConstraints=obey --layerPrecisions=*:fp32": " ".join(RUNTIMES),
    "--fp16 --precisionConstraints=obey --layerPrecisions=a:int8": "8.6.0 8.6.1.6 9.1.0 10.0.1 10.16.1.11",
    "--outputIOFormats=fp32:chw,hwc8": "",
    "--directIO": " ".join(RUNTIMES),
    "--pluginInstanceNorm": " ".join(RUNTIMES),
    "--memPoolSize=workspace:64": " ".join(RUNTIMES),
    "--memPoolSize=tacticSharedMem:48K": "10.0.1 10.16.1.11 11.0 11.4.0.106 rtx",
    "--memPoolSize=dlaSRAM:1": "8.6.0 8.6.1.6 9.1.0 10.0.1 10.16.1.11 11.0 11.4.0.106",
    "--allowWeightStreaming": "11.0 11.4.0.106 rtx",
    "--allowWeightStreaming --stronglyTyped": "10.0.1 10.16.1.11 11.0 11.4.0.106 rtx",
    "--refit": "8.6.0 8.6.1.6 9.1.0 10.0.1 10.16.1.11 11.0 11.4.0.106",
    "--stripWeights": "10.0.1 10.16.1.11 11.0 11.4.0.106",
    "--stripAllWeights": "10.0.1 10.16.1.11 11.0 11.4.0.106",
    "--versionCompatible": "8.6.0 8.6.1.6 9.1.0 10.0.1 10.16.1.11 11.0 11.4.0.106",
    "--versionCompatible --excludeLeanRuntime": " ".join(RUNTIMES),
    "--hardwareCompatibilityLevel=ampere+": "8.6.0 8.6.1.6 9.1.0 10.0.1 10.16.1.11 11.0 11.4.0.106",
    "--hardwareCompatibilityLevel=sameComputeCapability": "10.16.1.11 11.0 11.4.0.106",
    "--hardwareCompatibilityLevel=none": " ".join(RUNTIMES),
    "--profilingVerbosity=detailed": " ".join(RUNTIMES),
    "--noBuilderCache": "8.6.0 8.6.1.6 9.1.0 10.0.1 10.16.1.11 11.0 11.4.0.106",
    "--noCompilationCache": "9.1.0 10.0.1 10.16.1.11 11.0 11.4.0.106",
    "--errorOnTimingCacheMiss": "9.1.0 10.0.1 10.16.1.11 11.0 11.4.0.106",
    "--useDLACore=0": "8.6.0 8.6.1.6 9.1.0 10.0.1 10.16.1.11 11.0 11.4.0.106",
    "--allowGPUFallback": "8.6.0 8.6.1.6 9.1.0 10.0.1 10.16.1.11 11.0 11.4.0.106",
    "": " ".join(RUNTIMES),
}


def runtime(version: str) -> Runtime:
    return Runtime.parse("tensorrt-rtx-1.7.1.116" if version == "rtx" else f"tensorrt-{version}")


@pytest.mark.parametrize("version", RUNTIMES)
@pytest.mark.parametrize("line", WHERE)
def test_options_are_honoured_where_the_runtime_has_them(line, version):
    config = parse_build_options(line.split()).config
    if version in WHERE[line].split():
        refuse_unsupported(config, runtime(version))
        return
    with pytest.raises(OptionUnsupportedError) as caught:
        refuse_unsupported(config, runtime(version))
    assert str(runtime(version)) in caught.value.message
    assert caught.value.message.startswith("--")
    assert (caught.value.hint or "").endswith(".")


def test_every_field_is_in_the_table():
    tested = {field for line in WHERE for field in parse_build_options(line.split()).config.canonical()}
    assert tested == set(BuilderConfig.model_fields)


def test_a_pool_that_trtexec_cannot_name():
    config = BuilderConfig(memory_pool_limits={"tactic_dram": 1})
    refuse_unsupported(config, runtime("8.6.1"))
    with pytest.raises(OptionUnsupportedError, match="tactic_dram has no effect"):
        refuse_unsupported(config, runtime("rtx"))


@pytest.mark.parametrize("line", [line for line in WHERE if "force" not in line])
def test_without_a_version_only_rtx_can_be_sure(line):
    config = parse_build_options(line.split()).config
    refuse_unsupported(config, Runtime("tensorrt"))
    if "rtx" in WHERE[line].split():
        refuse_unsupported(config, Runtime("tensorrt-rtx"))
    else:
        with pytest.raises(OptionUnsupportedError):
            refuse_unsupported(config, Runtime("tensorrt-rtx"))


def test_the_words():
    with pytest.raises(OptionUnsupportedError) as caught:
        refuse_unsupported(BuilderConfig(bf16=True), runtime("rtx"))
    assert caught.value.message == "--bf16 cannot be set with tensorrt-rtx-1.7.1.116."
    assert "--low_precision_type=bf16" in (caught.value.hint or "")
    with pytest.raises(OptionUnsupportedError) as caught:
        refuse_unsupported(BuilderConfig(int8=True), runtime("11.4.0.106"))
    assert caught.value.message == (
        "--int8 was removed in TensorRT 11; it cannot be used with tensorrt-11.4.0.106."
    )
    assert "Q/DQ" in (caught.value.hint or "")
    with pytest.raises(OptionUnsupportedError) as caught:
        refuse_unsupported(BuilderConfig(bf16=True), runtime("8.6.1"))
    assert caught.value.message == (
        "--bf16 needs TensorRT 9.1 or newer; it cannot be used with tensorrt-8.6.1."
    )


def test_the_client_s_timing_cache():
    tool = parse_build_options(["--timingCacheFile=t", "--verbose"]).tool
    refuse_unsupported(BuilderConfig(), runtime("8.6.1"), tool)
    refuse_unsupported(BuilderConfig(), runtime("rtx"), {"verbose": True})
    with pytest.raises(OptionUnsupportedError, match="--timingCacheFile has no effect"):
        refuse_unsupported(BuilderConfig(), runtime("rtx"), tool)
