"""Models that are as slow to read as their size allows: made by hand, and so quickly."""

from __future__ import annotations

from collections.abc import Callable

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

Kind = Callable[[int], bytes]


def field(number: int, data: bytes) -> bytes:
    """A field of protobuf that has a length."""
    return varint(number << 3 | 2) + varint(len(data)) + data


def varint(value: int) -> bytes:
    encoded = b""
    while value > 127:
        encoded += bytes([value & 127 | 128])
        value >>= 7
    return encoded + bytes([value])


# Numbers of fields: ModelProto's, GraphProto's, NodeProto's.
GRAPH, OPSETS, METADATA, TRAINING, FUNCTIONS = 7, 8, 14, 20, 25
NODES, INITIALIZERS, INPUTS, OUTPUTS, VALUES, SPARSE = 1, 5, 11, 12, 13, 15
USES, GIVES, ATTRIBUTES = 1, 2, 5


def graph(extra: bytes = b"", nodes: bytes = b"", inputs: bytes = b"") -> bytes:
    """A graph that could be read but for what is added to it."""
    relu = NodeProto(op_type="Relu", input=["x"], output=["y"]).SerializeToString()
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]).SerializeToString() for name in "xy"
    )
    return field(NODES, relu) + nodes + field(INPUTS, x) + inputs + field(OUTPUTS, y) + extra


def model(in_graph: bytes | None = None, extra: bytes = b"") -> bytes:
    opset = field(OPSETS, b"\x10\x11")
    return b"\x08\x08" + field(GRAPH, graph() if in_graph is None else in_graph) + extra + opset


def _repeated(number: int, *, size: int, item: bytes = b"") -> bytes:
    one = field(number, item)
    return one * (size // len(one))


def _node(uses: bytes = b"", gives: bytes = b"", more: bytes = b"") -> bytes:
    return field(NODES, uses + gives + field(4, b"Relu") + more)


def _many(size: int, one: Callable[[int], bytes]) -> bytes:
    parts, total = [], 0
    while total < size:
        parts.append(one(len(parts)))
        total += len(parts[-1])
    return b"".join(parts)


def _function(name: str, called: tuple[str, ...] = ()) -> bytes:
    nodes = b"".join(
        field(7, field(1, b"a") + field(2, b"b%d" % number) + field(4, each.encode()) + field(7, b"f"))
        for number, each in enumerate(called)
    )
    body = field(1, name.encode()) + field(4, b"a") + field(5, b"a") + nodes + field(10, b"f")
    return field(FUNCTIONS, body)


def functions(size: int) -> bytes:
    """Very many, none of which calls another."""
    return model(extra=_many(size, lambda number: _function(f"f{number}")))


def chained_functions(size: int) -> bytes:
    """Each calls the next twice: the last of them expands to a number with thousands of digits."""
    return model(
        extra=_many(size, lambda number: _function(f"f{number}", (f"f{number + 1}", f"f{number + 1}")))
    )


def shared_functions(size: int) -> bytes:
    """All call the same one."""
    return model(extra=_function("f") + _many(size, lambda number: _function(f"f{number}", ("f",) * 4)))


def nested(size: int, depth: int = 29) -> bytes:
    """The innermost of many graphs uses what the outermost gives."""
    uses = _many(
        size, lambda number: _node(field(USES, b"x"), field(GIVES, b"%x" % number if number else b"y"))
    )
    inner = uses + field(OUTPUTS, field(1, b"y"))
    for _ in range(depth):
        attribute = field(1, b"body") + field(6, inner) + b"\xa0\x01\x05"
        inner = field(NODES, field(1, b"x") + field(2, b"y") + field(4, b"If") + field(5, attribute))
        inner += field(OUTPUTS, field(1, b"y"))
    return model(graph(nodes=field(NODES, field(2, b"z") + field(4, b"If") + field(5, field(6, inner)))))


def many_graphs(size: int) -> bytes:
    """A node with very many bodies that are empty."""
    return model(graph(nodes=field(NODES, field(4, b"If") + field(ATTRIBUTES, _repeated(11, size=size)))))


def unsorted(size: int) -> bytes:
    """Each node uses what the next one gives."""
    return model(
        graph(
            nodes=_many(
                size, lambda number: _node(field(USES, b"n%x" % (number + 1)), field(GIVES, b"n%x" % number))
            )
        )
    )


def sorted_chain(size: int) -> bytes:
    return model(
        graph(
            nodes=_many(
                size,
                lambda number: _node(
                    field(USES, b"n%x" % number if number else b"x"), field(GIVES, b"n%x" % (number + 1))
                ),
            )
        )
    )


def wide_node(size: int) -> bytes:
    return model(graph(nodes=_node(_repeated(USES, size=size, item=b"x"), field(GIVES, b"z"))))


def attributes(size: int) -> bytes:
    return model(graph(nodes=_node(more=_repeated(ATTRIBUTES, size=size))))


def long_name(size: int) -> bytes:
    return model(graph(inputs=field(INPUTS, field(1, b"x" * size))))


def long_output(size: int) -> bytes:
    name = b"y" * size
    nodes = field(NODES, field(1, b"x") + field(2, name) + field(4, b"Relu"))
    return model(graph(field(OUTPUTS, field(1, name)), nodes))


def many_inputs(size: int) -> bytes:
    return model(graph(inputs=_many(size, lambda number: field(INPUTS, field(1, b"i%d" % number)))))


def inputs_and_initializers(size: int) -> bytes:
    """Many inputs, none of which is one of as many initializers."""
    return model(
        graph(
            _many(size // 2, lambda number: field(INITIALIZERS, field(8, b"w%d" % number))),
            inputs=_many(size // 2, lambda number: field(INPUTS, field(1, b"i%d" % number))),
        )
    )


def high_rank(size: int) -> bytes:
    tensor = field(1, b"\x08\x01" + field(2, _repeated(1, size=size)))
    return model(graph(inputs=field(INPUTS, field(1, b"w") + field(2, tensor))))


def long_dimension(size: int) -> bytes:
    tensor = field(1, b"\x08\x01" + field(2, field(1, field(2, b"n" * size))))
    return model(graph(inputs=field(INPUTS, field(1, b"w") + field(2, tensor))))


def domains(size: int) -> bytes:
    return model(extra=_many(size, lambda number: field(OPSETS, field(1, b"d%d" % number) + b"\x10\x01")))


def long_domain(size: int) -> bytes:
    return model(extra=field(OPSETS, field(1, b"d" * size) + b"\x10\x01"))


def metadata(size: int) -> bytes:
    return model(extra=_repeated(METADATA, size=size))


def producer(size: int) -> bytes:
    return model(extra=field(2, b"p" * size))


def value_infos(size: int) -> bytes:
    return model(graph(_repeated(VALUES, size=size)))


def training(size: int) -> bytes:
    return model(extra=_repeated(TRAINING, size=size))


def sparse(size: int) -> bytes:
    return model(graph(_many(size, lambda number: field(SPARSE, field(1, field(8, b"s%d" % number))))))


def external(number: int, location: bytes) -> bytes:
    entry = field(13, field(1, b"location") + field(2, location))
    return field(INITIALIZERS, field(8, b"e%d" % number) + entry + b"\x70\x01")


def locations(size: int) -> bytes:
    return model(graph(_many(size, lambda number: external(number, b"w%d" % number))))


def long_location(size: int) -> bytes:
    return model(graph(external(0, b"w" * size)))


def deep_location(size: int) -> bytes:
    return model(graph(external(0, b"w/" * (size // 2))))


def external_keys(size: int) -> bytes:
    tensor = field(8, b"e") + _repeated(13, size=size, item=field(1, b"checksum")) + b"\x70\x01"
    return model(graph(field(INITIALIZERS, tensor)))


def one_location(size: int) -> bytes:
    """Very many tensors in one file."""
    return model(graph(_many(size, lambda number: external(number, b"w"))))


def damaged(size: int) -> bytes:
    """Many fields in their order, and nonsense at the end."""
    return b"\x08\x08" * (size // 2) + b"\x3a\x7f\xff"


def unknown(size: int) -> bytes:
    """Fields that ONNX does not have."""
    return model(extra=_repeated(1000, size=size))


KINDS: dict[str, Kind] = {
    kind.__name__: kind
    for kind in (
        functions,
        chained_functions,
        shared_functions,
        nested,
        many_graphs,
        unsorted,
        sorted_chain,
        wide_node,
        attributes,
        long_name,
        long_output,
        many_inputs,
        inputs_and_initializers,
        high_rank,
        long_dimension,
        domains,
        long_domain,
        metadata,
        producer,
        value_infos,
        training,
        sparse,
        locations,
        long_location,
        deep_location,
        external_keys,
        one_location,
        damaged,
        unknown,
    )
}


def parsed(data: bytes) -> ModelProto:
    return ModelProto.FromString(data)


__all__ = ["KINDS", "GraphProto", "Kind", "field", "graph", "model", "parsed", "varint"]
