"""Which names of TensorRT's bindings the adapter's source uses."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.meta.repository import PACKAGES

ADAPTER = PACKAGES["trtfarm_worker"] / "tensorrt"

# What the adapter's variables and attributes are called, by their class in the bindings.
OBJECTS = {
    "builder": "Builder",
    "network": "INetworkDefinition",
    "config": "IBuilderConfig",
    "_config": "IBuilderConfig",
    "parser": "OnnxParser",
    "engine": "ICudaEngine",
    "context": "IExecutionContext",
    "_context": "IExecutionContext",
    "layer": "ILayer",
    "tensor": "ITensor",
    "item": "ITensor",
    "first": "ITensor",
    "_cache": "ITimingCache",
    "ours": "ITimingCache",
}
# The same names, where they mean something else.
OTHERS = {
    "builder": {"child.py"},  # an EngineBuilder
    "item": {"bindings.py", "options.py"},  # of a dict
    "first": {"diagnostics.py", "inference.py"},
}
EXTRA = {
    "benchmark.py": {"runtime": "Runtime"},
    "diagnostics.py": {"error": "ParserError"},
    "profiles.py": {"profile": "IOptimizationProfile"},
    "timing_cache.py": {"cache": "ITimingCache"},
}


# Used on what a call gives, where no name tells the class.
UNNAMED = {
    "EngineInspector.get_engine_information",
    *(
        f"{kind}.{name}"
        for kind in ("IBuilderConfig", "OnnxParser")
        for name in ("set_flag", "clear_flag", "get_flag")
    ),
}


def used() -> set[str]:
    """As ``IBuilderConfig.set_flag`` or ``TensorFormat.LINEAR``."""
    return UNNAMED | {name for path in sorted(ADAPTER.glob("*.py")) for name in _of(path)}


def _of(path: Path) -> Iterator[str]:
    known = {name: kind for name, kind in OBJECTS.items() if path.name not in OTHERS.get(name, ())}
    known |= EXTRA.get(path.name, {})
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute):
            yield from _attribute(node, known)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield from _call(node, known)


def _attribute(node: ast.Attribute, known: dict[str, str]) -> Iterator[str]:
    owner = _name(node.value)
    if owner in {"trt", "_trt"}:
        if not node.attr.startswith("__"):
            yield node.attr
    elif owner in known:
        yield f"{known[owner]}.{node.attr}"
    elif (
        isinstance(node.value, ast.Attribute)
        and _name(node.value.value) in {"trt", "_trt"}
        and not node.attr.startswith("__")
    ):
        yield f"{node.value.attr}.{node.attr}"


def _call(node: ast.Call, known: dict[str, str]) -> Iterator[str]:
    """``member(trt, "Enum", "NAME", …)``, ``hasattr(engine, "name")``, ``getattr(trt, "Enum", None)``."""
    words = [arg.value if isinstance(arg, ast.Constant) else None for arg in node.args]
    name = node.func.id if isinstance(node.func, ast.Name) else ""
    if name == "member" and isinstance(words[1], str):
        yield f"{words[1]}.{words[2]}" if isinstance(words[2], str) else words[1]
    elif name in {"hasattr", "getattr", "has_setter"} and isinstance(words[1], str):
        yield from _attribute(ast.Attribute(value=node.args[0], attr=words[1]), known)
    elif name == "assign" and isinstance(words[2], str):
        yield from _attribute(ast.Attribute(value=node.args[1], attr=words[2]), known)


def _name(node: ast.expr) -> str:
    """``x`` of ``x``, ``self.x`` and ``setup.x``."""
    if isinstance(node, ast.Name):
        return node.id
    if (
        isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id in {"self", "setup"}
    ):
        return node.attr
    return ""
