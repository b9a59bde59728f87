"""trtexec's other options: why a build does not take them, and what to do instead."""

from __future__ import annotations

from typing import NamedTuple


class Refusal(NamedTuple):
    """Attributes: ``reason`` follows the option's name; ``alternative`` is a sentence of its own."""

    reason: str
    alternative: str


_BENCHMARK = "is about inference, not about the build"
_GO_BENCHMARK = "Give it to trtfarm benchmark."
_INSPECT = "reports on a finished engine"
_GO_INSPECT = "Use trtfarm plan inspect."
_CAFFE = "reads Caffe or UFF models, which TensorRT 10 dropped"
_GO_ONNX = "Convert the model to ONNX."
_BATCH = "is for implicit batch, which TensorRT 10 dropped"
_CALIBRATION = "is for int8 calibration, which TensorRT 11 dropped"
_QDQ = "Quantize the model (Q/DQ nodes) before you submit it."
_PLUGINS = "loads native code into the worker"
_GO_PLUGINS = "Ask who runs the farm to install the plugin on its workers."
_SAFETY = "is for safety-certified or DLA-only engines, which the farm does not build"
_GO_TRTEXEC = "Use trtexec itself."
_TUNER = "belongs to trtexec's own tuner"
_GO_SEARCH = "Try --builderOptimizationLevel and compare the plans with trtfarm benchmark."
_DEBUG = "marks tensors for debugging"
_LOADING = "chooses how a plan is loaded"
_GO_VC = "Build with --versionCompatible, then load the plan as you like."
_DLA = "is for the DLA, which the farm offers only with --useDLACore and --allowGPUFallback"


def _each(names: str, reason: str, alternative: str) -> dict[str, Refusal]:
    return {f"--{name}": Refusal(reason, alternative) for name in names.split()}


INFERENCE = (
    "loadInputs iterations warmUp duration sleepTime idleTime infStreams streams exposeDMA"
    " noDataTransfers includeDataTransfers useManagedMemory useSpinWait noSpinWait threads useCudaGraph"
    " noCudaGraph timeDeserialize timeRefit separateProfileRun persistentCacheRatio"
    " useProfile allocationStrategy weightStreamingBudget avgRuns percentile dumpOutput"
    " dumpRawBindingsToFile dumpProfile exportTimes exportOutput exportProfile loadRefOutputs"
    " refPair accuracyAlgorithm atol rtol accuracyThreshold saveDebugTensors saveAllDebugTensors"
    " asyncFileReader"
)
"""Without their dashes."""

REFUSED: dict[str, Refusal] = (
    _each(INFERENCE, _BENCHMARK, _GO_BENCHMARK)
    | _each("dumpRefit dumpLayerInfo exportLayerInfo dumpOptimizationProfile getPlanVersionOnly",
            _INSPECT, _GO_INSPECT)
    | _each("model deploy output uff uffInput uffNHWC", _CAFFE, _GO_ONNX)
    | _each("maxBatch batch", _BATCH, "Give the batch size in the shapes: --optShapes=x:8x3x224x224.")
    | _each("calib calibProfile minShapesCalib optShapesCalib maxShapesCalib", _CALIBRATION, _QDQ)
    | _each("plugins staticPlugins dynamicPlugins setPluginsToSerialize safetyPlugins ignoreParsedPluginLibs"
            " enablePluginOverride", _PLUGINS, _GO_PLUGINS)
    | _each("safe consistency restricted dumpKernelText buildDLAStandalone remoteAutoTuningConfig cpuOnly"
            " serialized std", _SAFETY, _GO_TRTEXEC)
    | _each("uint8AsymmetricQuantizationDLA reportCapabilityDLA adjustForDLA layerDeviceTypes",
            _DLA, _GO_TRTEXEC)
    | _each("setBuildRoute tuneBuildRoutes tuneBuildRouteFile tuningSearch tuningCacheFile tuningTimeOut"
            " tuningResultFile dryRun continue helpBuildRoute saveAllEngines", _TUNER, _GO_SEARCH)
    | _each("markDebug markUnfusedTensorsAsDebugTensors", _DEBUG, "Make the tensor an output of the model.")
    | {
        "--onnx": Refusal("names the model", "Give it as the first argument."),
        "--loadEngine": Refusal("loads a plan, and there is nothing to build", _GO_BENCHMARK),
        "--device": Refusal("picks a GPU of this machine", "Say which GPU to build for: --gpu h200."),
        "--explicitBatch": Refusal("has no effect: every network has an explicit batch", "Leave it out."),
        "--explicitPrecision": Refusal("has no effect since TensorRT 8", "Leave it out."),
        "--workspace": Refusal("was removed in TensorRT 10", "Use --memPoolSize=workspace:4096 (MiB)."),
        "--minTiming": Refusal("was removed in TensorRT 10", "Use --avgTiming."),
        "--heuristic": Refusal("was removed in TensorRT 10", "Use --builderOptimizationLevel=2 or less."),
        "--nvtxMode": Refusal("was removed in TensorRT 10", "Use --profilingVerbosity."),
        "--monitorMemory": Refusal("changes the log only", "The farm reports each build's peak memory."),
        "--decomposableAttentions": Refusal("is not offered by the farm", _GO_TRTEXEC),
        "--refitFromOnnx": Refusal("changes the weights of a plan", "Build the new model."),
        "--runtimePlatform": Refusal(
            "builds for another platform", "Choose a target of that platform; see trtfarm fleet."
        ),
        "--useRuntime": Refusal(_LOADING, _GO_VC),
        "--leanDLLPath": Refusal(_LOADING, _GO_VC),
        "--tempdir": Refusal("names a folder of the worker", "Leave it out: each attempt has its own."),
        "--tempfileControls": Refusal("is about the worker's files", "Leave it out."),
    }
)  # fmt: skip
