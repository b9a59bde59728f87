"""What importing costs, and what it must not do."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.meta.repository import sources

# Where a package may be imported when a module is loaded; elsewhere only inside of a function, or nowhere.
# import-linter has the rules on who may use what at all.
AT_THE_TOP = {
    "alembic": ("trtfarm_db",),
    "celery": (),
    "cuda": (),
    "fastapi": ("trtfarm_api",),
    "filelock": (),
    "kombu": ("trtfarm_worker.rings",),
    "numpy": ("trtfarm_worker.tensorrt",),
    "obstore": (),
    "onnx": ("trtfarm.inspection",),
    "prometheus_client": ("trtfarm_api.metrics", "trtfarm_api.worker_metrics"),
    "psycopg": ("trtfarm_db",),
    "pydantic_settings": ("trtfarm.compose.settings",),
    "redis": (),
    "sqlalchemy": ("trtfarm_db", "trtfarm_worker"),
    "starlette": ("trtfarm_api",),
    "tensorrt": (),
    "tensorrt_rtx": (),
    "uvicorn": ("trtfarm_api.connections",),
}
# Names whose call makes an engine, a client, an application, a settings object, a thread or a log handler.
MAKERS = {
    "create_engine", "sessionmaker", "Celery", "FastAPI", "Client", "AsyncClient", "FarmClient",
    "AsyncFarmClient", "Farm", "AsyncFarm", "Redis",
    "from_url", "basicConfig", "addHandler", "StreamHandler", "FileHandler", "Thread", "ThreadPoolExecutor",
    "ProcessPoolExecutor", "Popen", "open_store", "import_module",
}  # fmt: skip
CLIENT = "trtfarm, trtfarm.sdk.client, trtfarm.sdk.aio, trtfarm.compose.farm, trtfarm.cli.main"
HEAVY = ("alembic", "celery", "fastapi", "numpy", "obstore", "onnx", "sqlalchemy", "tensorrt_rtx", "uvicorn")


def _at_import(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run when a module is loaded, class bodies included, type checking left out."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            for part in (*child.decorator_list, *child.args.defaults, *child.args.kw_defaults):
                if part is not None:
                    yield part
                    yield from _at_import(part)
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            for part in child.orelse:
                yield part
                yield from _at_import(part)
        elif not isinstance(child, ast.Lambda):
            yield child
            yield from _at_import(child)


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name.partition(".")[0] for alias in node.names]
    if isinstance(node, ast.ImportFrom) and not node.level:
        return [(node.module or "").partition(".")[0]]
    return []


def _called(node: ast.AST) -> str:
    if not isinstance(node, ast.Call):
        return ""
    function = node.func
    return function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")


@pytest.fixture(scope="module")
def modules() -> list[tuple[str, Path, ast.Module]]:
    return [(name, path, ast.parse(path.read_text(encoding="utf-8"))) for name, path in sources()]


def test_heavy_packages_are_imported_where_they_are_used(modules):
    wrong = [
        f"{name} imports {package}"
        for name, _, tree in modules
        for node in _at_import(tree)
        for package in _imported(node)
        if package in AT_THE_TOP
        and not any(name == home or name.startswith(f"{home}.") for home in AT_THE_TOP[package])
    ]
    assert wrong == []


def test_nothing_is_made_at_import(modules):
    wrong = [
        f"{name}:{node.lineno} calls {_called(node)}"
        for name, _, tree in modules
        if not name.startswith("trtfarm_db.migrations")
        for node in _at_import(tree)
        if isinstance(node, ast.Call) and _called(node) in MAKERS
    ]
    assert wrong == []


def test_no_settings_object_at_module_level(modules):
    """As the default of a field, a frozen value is harmless; as a global, it has read the environment."""
    wrong = [
        f"{name}:{node.lineno}"
        for name, _, tree in modules
        for statement in tree.body
        if not isinstance(statement, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(statement)
        if isinstance(node, ast.Call) and (_called(node).endswith("Settings") or _called(node) == "load")
    ]
    assert wrong == []


def test_packages_start_empty():
    """No code in __init__.py: re-exports, ``__version__`` and annotated dependencies only."""
    allowed = (ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign, ast.FunctionDef, ast.AsyncFunctionDef)
    for name, path in sources():
        if path.name == "__init__.py":
            body = ast.parse(path.read_text(encoding="utf-8")).body
            rest = [
                node
                for node in body
                if not isinstance(node, allowed)
                and not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))
            ]
            assert all(
                isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in rest
            ), name


def test_a_light_client_loads_no_server_parts():
    check = f"import sys, {CLIENT}; print(*sorted(set({HEAVY!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_worker_loads_tensorrt_only_in_its_child():
    check = (
        "import sys, trtfarm_worker.agent, trtfarm_worker.consumer, trtfarm_worker.tensorrt.child;"
        "print(*sorted({'tensorrt', 'tensorrt_rtx', 'cuda', 'celery', 'fastapi'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
