"""Nodes of an ONNX file by number: TensorRT 8.6 tells no more of the one it refuses."""

from __future__ import annotations

from pathlib import Path


def node_at(model: Path, index: int) -> tuple[str, str]:
    """(operator, name) of a node of the main graph; empty if there is none of that number."""
    import onnx

    nodes = onnx.load(model, load_external_data=False).graph.node
    if not 0 <= index < len(nodes):
        return "", ""
    return nodes[index].op_type, nodes[index].name
