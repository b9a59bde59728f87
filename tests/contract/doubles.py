"""Objects with exactly the names that the classes of the real bindings have, as one build needs them.

They keep what is set on them, as TensorRT does; deaf ones keep something else, as TensorRT does too. What a
generation's class lacks, its double lacks; a property that cannot be set there cannot be set here.
"""

from __future__ import annotations

from typing import Any

from trtfarm_worker.tensorrt import bindings
from trtfarm_worker.tensorrt.readback import Setup


def double(kind: type, *, deaf: bool = False, **members: Any) -> Any:
    """An instance; ``members`` that ``kind`` lacks are left out."""
    namespace: dict[str, Any] = {"__slots__": ()}  # nothing else can be set
    state: dict[str, Any] = {}
    for name, value in members.items():
        real = getattr(kind, name, None)
        if isinstance(real, property):
            state[name] = value
            namespace[name] = _property(name, state, settable=real.fset is not None, deaf=deaf)
        elif real is not None:
            namespace[name] = staticmethod(value)
    return type(kind.__name__, (), namespace)()


def _property(name: str, state: dict[str, Any], *, settable: bool, deaf: bool) -> property:
    def get(_: Any) -> Any:
        return state[name]

    def put(_: Any, value: Any) -> None:
        assert type(value) is type(state[name]), f"{name} takes {type(state[name])}, not {value!r}"
        if not deaf:
            state[name] = value

    return property(get, put if settable else None)


class Flags:
    """The three methods by which a config and a parser take flags."""

    def __init__(self, kind: Any, *, deaf: bool) -> None:
        self._kind, self._deaf = kind, deaf
        self.on: set[Any] = set()
        self.set: set[Any] = set()

    def methods(self) -> dict[str, Any]:
        return {"set_flag": self._put, "clear_flag": self._clear, "get_flag": self._get}

    def _put(self, flag: Any) -> None:
        assert isinstance(flag, self._kind)
        self.set.add(flag)
        self.on.add(flag)

    def _clear(self, flag: Any) -> None:
        assert isinstance(flag, self._kind)
        self.set.add(flag)
        self.on.discard(flag)

    def _get(self, flag: Any) -> bool:
        return (flag in self.on) != self._deaf


class Build:
    """The objects of a build: a network of a convolution ``a``, a shape computation and, perhaps, Q/DQ."""

    def __init__(
        self, trt: Any, *, strongly_typed: bool, quantized: bool, dla_cores: int, deaf: bool
    ) -> None:
        self.trt, self._deaf = trt, deaf
        self.config_flags = Flags(trt.BuilderFlag, deaf=deaf)
        self.parser_flags = Flags(trt.OnnxParserFlag, deaf=deaf)
        self.memory: dict[Any, int] = {}
        self.previews: dict[Any, bool] = {}
        self.sources = 0
        self.output_types: dict[str, list[Any]] = {}
        self.tensors = {"x": self._tensor("x", "FLOAT"), "y": self._tensor("y", "FLOAT")}
        self.layers = [
            self._layer("a", "CONVOLUTION", "FLOAT", "FLOAT"),
            self._layer("shape", "SHAPE", "FLOAT", "INT32", precision="INT32"),
            self._layer("weights", "CONSTANT", "", "INT32"),
            self._layer("block/b", "ACTIVATION", "FLOAT", "FLOAT"),
        ]
        if quantized:
            self.layers.append(self._layer("q", "QUANTIZE", "FLOAT", "INT8"))
        self.parser = double(trt.OnnxParser, **self.parser_flags.methods())
        self.builder = double(trt.Builder, num_DLA_cores=dla_cores, platform_has_tf32=True)
        self.config = self._config()
        created = bindings.network_flags(trt, strongly_typed=strongly_typed)
        self.network = double(
            trt.INetworkDefinition,
            num_inputs=1,
            num_outputs=1,
            num_layers=len(self.layers),
            get_input=lambda _: self.tensors["x"],
            get_output=lambda _: self.tensors["y"],
            get_layer=self.layers.__getitem__,
            get_flag=lambda flag: bool(created >> int(flag) & 1),
        )

    @property
    def setup(self) -> Setup:
        return Setup(self.trt, self.builder, self.network, self.config)

    def summary(self) -> dict[str, Any]:
        """What is set now, in names of this generation."""
        return {
            "flags": sorted(flag.name for flag in self.config_flags.on),
            "memory": {pool.name: size for pool, size in self.memory.items()},
            "formats": {name: tensor.allowed_formats for name, tensor in self.tensors.items()},
            "types": {name: tensor.dtype.name for name, tensor in self.tensors.items()},
            "precisions": {
                layer.name: layer.precision.name for layer in self.layers if hasattr(layer, "precision")
            },
            "output_types": {
                name: [kind.name for kind in kinds] for name, kinds in self.output_types.items()
            },
            "dla_core": self.config.DLA_core,
        }

    def _config(self) -> Any:
        trt = self.trt
        tiling = getattr(trt, "TilingOptimizationLevel", None)
        return double(
            trt.IBuilderConfig,
            deaf=self._deaf,
            builder_optimization_level=3,
            avg_timing_iterations=1,
            max_aux_streams=-1,
            max_num_tactics=-1,
            l2_limit_for_tiling=-1,
            tiling_optimization_level=tiling and tiling.NONE,
            profiling_verbosity=trt.ProfilingVerbosity.LAYER_NAMES_ONLY,
            hardware_compatibility_level=trt.HardwareCompatibilityLevel.NONE,
            default_device_type=trt.DeviceType.GPU,
            DLA_core=-1,
            set_memory_pool_limit=self.memory.__setitem__,
            get_memory_pool_limit=lambda pool: -1 if self._deaf else self.memory[pool],
            set_preview_feature=self.previews.__setitem__,
            get_preview_feature=lambda feature: self.previews[feature] != self._deaf,
            set_tactic_sources=self._set_sources,
            get_tactic_sources=lambda: self.sources ^ (1 << 20 if self._deaf else 0),
            **self.config_flags.methods(),
        )

    def _set_sources(self, mask: int) -> None:
        self.sources = mask

    def _tensor(self, name: str, kind: str) -> Any:
        return double(
            self.trt.ITensor,
            deaf=self._deaf,
            name=name,
            dtype=getattr(self.trt.DataType, kind),
            allowed_formats=0,
            is_shape_tensor=False,
        )

    def _layer(self, name: str, kind: str, takes: str, gives: str, precision: str = "FLOAT") -> Any:
        types = self.trt.DataType
        chosen = self.output_types.setdefault(name, [])

        def set_output_type(index: int, dtype: Any) -> None:
            assert index == 0
            assert isinstance(dtype, types)
            chosen[:] = [] if self._deaf else [dtype]

        return double(
            self.trt.ILayer,
            deaf=self._deaf,
            name=name,
            type=getattr(self.trt.LayerType, kind),
            precision=getattr(types, precision),
            num_inputs=1 if takes else 0,
            num_outputs=1,
            get_input=lambda _: self._tensor("in", takes),
            get_output=lambda _: self._tensor("out", gives),
            set_output_type=set_output_type,
            get_output_type=lambda _: chosen[0] if chosen else None,
        )
