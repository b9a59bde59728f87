"""Models that are nearly right: most get past inspection, and then ask of TensorRT what nobody has asked."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

from google.protobuf.message import DecodeError, EncodeError
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper

Mutation = Callable[["Mutator", ModelProto], None]

INTS = (
    *(-(2**63), -(2**31), -2, -1, 0, 1, 2, 3, 5, 7, 8, 16, 64, 255, 1000),
    *(2**16, 2**31 - 1, 2**31, 2**32, 2**40, 2**62, 2**63 - 1),
)
SMALL_INTS = (-2, -1, 0, 1, 2, 3, 4, 5, 7, 8, 16)
FLOATS = (math.nan, math.inf, -math.inf, 0.0, -0.0, 1e-45, 3.4e38, -1.0, 0.5, 1.0, 2.0)
STRINGS = (b"", b"SAME_UPPER", b"VALID", b"NOTSET", b"linear", b"cubic", b"\xff\xfe", b"x" * 3000, b"%n%s")
DTYPES = tuple(range(24))
MAX_BYTES = 256 << 10
_BYTES_ALONE, _BYTES_TOO = 0.05, 0.03


class Mutator:
    """The same models for the same seed and the same corpus."""

    def __init__(self, seed: int, models: Sequence[bytes], donors: Sequence[bytes]) -> None:
        """``donors``: models that are too large to start from; parts of them are spliced in."""
        self.random = random.Random(seed)
        self._models = list(models)
        self._new: list[bytes] = []  # what has led somewhere new
        self._donors = [ModelProto.FromString(data) for data in donors]
        self._ops = sorted({node.op_type for data in models[:400] for node in _nodes_of(data)})
        self._mutations = [each for each, weight in MUTATIONS.items() for _ in range(weight)]

    def remember(self, data: bytes) -> None:
        """A model to go on from."""
        self._new.append(data)
        if len(self._new) > 2000:
            self._new.pop(self.random.randrange(len(self._new)))

    def model(self) -> bytes:
        pick = self.random
        data = pick.choice(self._new if self._new and pick.random() < 0.4 else self._models)
        if pick.random() < _BYTES_ALONE:
            return self._flipped(data)
        try:
            model = ModelProto.FromString(data)
            for _ in range(1 + min(int(pick.expovariate(0.9)), 6)):
                self._mutate(model)
            changed = model.SerializeToString()
        except (DecodeError, EncodeError):
            return self._flipped(data)
        if len(changed) > MAX_BYTES:
            return data
        return self._flipped(changed) if pick.random() < _BYTES_TOO else changed

    def _mutate(self, model: ModelProto) -> None:
        for _ in range(10):  # until one finds something to change
            try:
                self.random.choice(self._mutations)(self, model)
                return
            except (IndexError, ValueError, TypeError):
                continue

    def _flipped(self, data: bytes) -> bytes:
        changed = bytearray(data)
        for _ in range(1 + int(self.random.expovariate(0.5))):
            place = self.random.randrange(len(changed))
            what = self.random.randrange(4)
            if what == 0:
                changed[place] ^= 1 << self.random.randrange(8)
            elif what == 1:
                changed[place] = self.random.choice((0, 1, 0x7F, 0x80, 0xFF))
            elif what == 2:
                del changed[place : place + self.random.randrange(1, 9)]
            else:
                changed[place:place] = self.random.randbytes(self.random.randrange(1, 5))
            if not changed:
                return data
        return bytes(changed)

    # --- choices ---

    def graph(self, model: ModelProto) -> GraphProto:
        """The model's, or one inside of it."""
        graph = model.graph
        inner = [
            each
            for node in graph.node
            for attribute in node.attribute
            for each in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs)
        ]
        return self.random.choice(inner) if inner and self.random.random() < 0.3 else graph

    def node(self, model: ModelProto) -> NodeProto:
        return self.random.choice(self.graph(model).node)

    def attribute(self, model: ModelProto) -> AttributeProto:
        node = self.random.choice([node for node in self.graph(model).node if node.attribute])
        return self.random.choice(node.attribute)

    def tensor(self, model: ModelProto) -> TensorProto:
        graph = self.graph(model)
        constants = [a.t for node in graph.node for a in node.attribute if a.HasField("t")]
        return self.random.choice([*graph.initializer, *constants])

    def integer(self) -> int:
        return self.random.choice(SMALL_INTS if self.random.random() < 0.7 else INTS)

    def name(self, graph: GraphProto) -> str:
        """A change of a value that is there."""
        names = [
            *(value.name for value in graph.input),
            *(tensor.name for tensor in graph.initializer),
            *(name for node in graph.node for name in node.output),
        ]
        return self.random.choice([name for name in names if name])

    def fresh(self) -> str:
        return f"m{self.random.getrandbits(40):x}"

    def op(self) -> str:
        return self.random.choice(self._ops)

    def donor(self) -> GraphProto:
        if self._donors and self.random.random() < 0.3:
            return self.random.choice(self._donors).graph
        return ModelProto.FromString(self.random.choice(self._models)).graph


def _nodes_of(data: bytes) -> Sequence[NodeProto]:
    return ModelProto.FromString(data).graph.node


# --- what is done to them ---


def attribute_value(self: Mutator, model: ModelProto) -> None:
    attribute = self.attribute(model)
    if attribute.ints:
        attribute.ints[self.random.randrange(len(attribute.ints))] = self.integer()
    elif attribute.floats:
        attribute.floats[self.random.randrange(len(attribute.floats))] = self.random.choice(FLOATS)
    elif attribute.type == AttributeProto.INT:
        attribute.i = self.integer()
    elif attribute.type == AttributeProto.FLOAT:
        attribute.f = self.random.choice(FLOATS)
    elif attribute.type == AttributeProto.STRING:
        attribute.s = self.random.choice(STRINGS)


def attribute_length(self: Mutator, model: ModelProto) -> None:
    attribute = self.attribute(model)
    values: Any = attribute.ints or attribute.floats or attribute.strings
    place = self.random.randrange(len(values))
    if self.random.random() < 0.5:
        del values[place]
    else:
        values.extend([values[place]] * self.random.choice((1, 1, 2, 8, 100)))


def attribute_type(self: Mutator, model: ModelProto) -> None:
    self.attribute(model).type = self.random.randrange(0, 15)  # type: ignore[assignment]


def attribute_dropped(self: Mutator, model: ModelProto) -> None:
    node = self.node(model)
    del node.attribute[self.random.randrange(len(node.attribute))]


def attribute_added(self: Mutator, model: ModelProto) -> None:
    """One that other nodes have."""
    others = [a for node in self.donor().node for a in node.attribute]
    self.node(model).attribute.append(self.random.choice(others))


def input_shape(self: Mutator, model: ModelProto) -> None:
    value = self.random.choice(model.graph.input)
    shape = value.type.tensor_type.shape
    what = self.random.randrange(5)
    if what == 0:
        self.random.choice(shape.dim).dim_value = self.integer()
    elif what == 1:
        self.random.choice(shape.dim).dim_value = self.random.choice((1, 2, 3, 4, 8, 32, 224))
    elif what == 2:
        del shape.dim[self.random.randrange(len(shape.dim))]
    elif what == 3:
        shape.dim.add().dim_value = self.random.choice((1, 2, 3))
    else:
        self.random.choice(shape.dim).dim_param = self.random.choice(("n", "batch", ""))


def value_type(self: Mutator, model: ModelProto) -> None:
    graph = self.graph(model)
    value = self.random.choice([*graph.input, *graph.output, *graph.value_info])
    value.type.tensor_type.elem_type = self.random.choice(DTYPES)


def tensor_shape(self: Mutator, model: ModelProto) -> None:
    tensor = self.tensor(model)
    what = self.random.randrange(4)
    if what == 0:
        tensor.dims[self.random.randrange(len(tensor.dims))] = self.integer()
    elif what == 1:
        tensor.dims.append(1)
    elif what == 2:
        tensor.dims.reverse()
    else:
        del tensor.dims[self.random.randrange(len(tensor.dims))]


def tensor_type(self: Mutator, model: ModelProto) -> None:
    self.tensor(model).data_type = self.random.choice(DTYPES)


def tensor_values(self: Mutator, model: ModelProto) -> None:
    tensor = self.tensor(model)
    if tensor.int64_data:
        tensor.int64_data[self.random.randrange(len(tensor.int64_data))] = self.integer()
    elif tensor.float_data:
        tensor.float_data[self.random.randrange(len(tensor.float_data))] = self.random.choice(FLOATS)
    elif tensor.raw_data:
        data = bytearray(tensor.raw_data)
        width = 8 if tensor.data_type == TensorProto.INT64 else 4
        place = self.random.randrange(max(1, len(data) // width)) * width
        data[place : place + width] = (self.integer() % 2 ** (8 * width)).to_bytes(width, "little")
        tensor.raw_data = bytes(data)


def tensor_length(self: Mutator, model: ModelProto) -> None:
    tensor = self.tensor(model)
    data = tensor.raw_data
    tensor.raw_data = data[: self.random.randrange(len(data) + 1)] if self.random.random() < 0.5 else data * 2


def operator(self: Mutator, model: ModelProto) -> None:
    self.node(model).op_type = self.op()


def input_swapped(self: Mutator, model: ModelProto) -> None:
    node = self.node(model)
    one, other = (self.random.randrange(len(node.input)) for _ in range(2))
    node.input[one], node.input[other] = node.input[other], node.input[one]


def input_other(self: Mutator, model: ModelProto) -> None:
    graph = self.graph(model)
    node = self.random.choice(graph.node)
    node.input[self.random.randrange(len(node.input))] = self.name(graph)


def input_dropped(self: Mutator, model: ModelProto) -> None:
    node = self.node(model)
    place = self.random.randrange(len(node.input))
    if self.random.random() < 0.5:
        node.input[place] = ""
    else:
        del node.input[place]


def input_added(self: Mutator, model: ModelProto) -> None:
    graph = self.graph(model)
    self.random.choice(graph.node).input.append(self.name(graph))


def node_inserted(self: Mutator, model: ModelProto) -> None:
    """Between a value and the node that uses it."""
    graph = self.graph(model)
    node = self.random.choice([node for node in graph.node if node.input])
    place = self.random.randrange(len(node.input))
    made = helper.make_node(self.op(), [node.input[place]], [self.fresh()])
    node.input[place] = made.output[0]
    graph.node.insert(0, made)


def node_doubled(self: Mutator, model: ModelProto) -> None:
    graph = self.graph(model)
    made = NodeProto()
    made.CopyFrom(self.random.choice(graph.node))
    for place in range(len(made.output)):
        made.output[place] = self.fresh()
    graph.node.append(made)
    _show(graph, made.output[0])


def node_dropped(self: Mutator, model: ModelProto) -> None:
    graph = self.graph(model)
    del graph.node[self.random.randrange(len(graph.node))]


def spliced(self: Mutator, model: ModelProto) -> None:
    """A few nodes of another model, fed with values of this one."""
    graph, donor = self.graph(model), self.donor()
    start = self.random.randrange(len(donor.node))
    names: dict[str, str] = {}
    constants = {tensor.name: tensor for tensor in donor.initializer}
    for node in donor.node[start : start + self.random.choice((1, 1, 2, 3, 6))]:
        made = NodeProto()
        made.CopyFrom(node)
        for place, name in enumerate(node.input):
            if name and name not in names:
                names[name] = self.name(graph)
                if name in constants and len(constants[name].raw_data) < 10_000:
                    names[name] = self.fresh()
                    graph.initializer.append(constants[name])
                    graph.initializer[-1].name = names[name]
            made.input[place] = names.get(name, "")
        for place, name in enumerate(node.output):
            names[name] = made.output[place] = self.fresh()
        graph.node.append(made)
    _show(graph, made.output[0])


def constant_for_input(self: Mutator, model: ModelProto) -> None:
    """An input becomes a weight, as many operators want some of theirs."""
    graph = model.graph
    place = self.random.randrange(len(graph.input))
    value = graph.input[place]
    shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    count = math.prod(shape)
    if not 0 <= count <= 4096:
        raise ValueError
    kind = value.type.tensor_type.elem_type
    if kind in {TensorProto.INT64, TensorProto.INT32}:
        tensor = helper.make_tensor(value.name, kind, shape, [self.integer() % 2**31 for _ in range(count)])
    else:
        tensor = helper.make_tensor(
            value.name, TensorProto.FLOAT, shape, [self.random.choice(FLOATS) for _ in range(count)]
        )
    graph.initializer.append(tensor)
    del graph.input[place]


def opset(self: Mutator, model: ModelProto) -> None:
    entry = self.random.choice(model.opset_import)
    entry.version = self.random.choice((1, 7, 9, 11, 13, 15, 17, 18, 19, 20, 21, 22, 24, 26))
    if self.random.random() < 0.2:
        model.ir_version = self.random.choice((1, 3, 4, 7, 8, 9, 10, 11, 12, 13))


def branched(self: Mutator, model: ModelProto) -> None:
    """The whole graph becomes both branches of an If."""
    graph = model.graph
    body = GraphProto(name="body", node=graph.node, initializer=graph.initializer, output=graph.output)
    condition = self.fresh()
    outputs = [value.name for value in graph.output]
    for place, value in enumerate(body.output):
        inner = self.fresh()
        for node in body.node:
            for names in (node.input, node.output):
                for number, name in enumerate(names):
                    if name == value.name:
                        names[number] = inner
        body.output[place].name = inner
    made = helper.make_node("If", [condition], outputs, then_branch=body, else_branch=body)
    del graph.node[:], graph.initializer[:]
    graph.node.append(made)
    if self.random.random() < 0.5:
        graph.input.append(helper.make_tensor_value_info(condition, TensorProto.BOOL, []))
    else:
        graph.initializer.append(helper.make_tensor(condition, TensorProto.BOOL, [], [True]))


def name_changed(self: Mutator, model: ModelProto) -> None:
    graph = model.graph
    old = self.name(graph)
    new = self.random.choice(("", " ", "a" * 900, "\u202e", "%s%n", "../../x", "\x1b[31m", self.fresh()))
    for node in graph.node:
        for names in (node.input, node.output):
            for number, name in enumerate(names):
                if name == old:
                    names[number] = new
    for value in [*graph.input, *graph.output, *graph.value_info, *graph.initializer]:
        if value.name == old:
            value.name = new


def _show(graph: GraphProto, name: str) -> None:
    """An output, so that nobody removes what leads to it."""
    graph.output.add(name=name)
    if len(graph.output) > 1:
        graph.output[-1].type.CopyFrom(graph.output[0].type)
        graph.output[-1].type.tensor_type.ClearField("shape")


MUTATIONS: dict[Mutation, int] = {
    attribute_value: 14,
    attribute_length: 5,
    attribute_type: 1,
    attribute_dropped: 3,
    attribute_added: 4,
    input_shape: 8,
    value_type: 4,
    tensor_shape: 4,
    tensor_type: 2,
    tensor_values: 5,
    tensor_length: 2,
    operator: 6,
    input_swapped: 3,
    input_other: 4,
    input_dropped: 2,
    input_added: 2,
    node_inserted: 5,
    node_doubled: 2,
    node_dropped: 1,
    spliced: 7,
    constant_for_input: 6,
    opset: 3,
    branched: 1,
    name_changed: 1,
}
