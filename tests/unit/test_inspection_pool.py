"""Inspection in a process of its own: what it costs, and what becomes of it when it dies."""

import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import onnx
import psutil
import pytest

from trtfarm.errors import (
    ExternalDataPathError,
    ModelError,
    NotOnnxError,
    ResourceLimitError,
    TrtFarmError,
    UnavailableError,
)
from trtfarm.inspection.inspect import inspect_model
from trtfarm.inspection.pool import InspectionPool

LIGHT = Path(onnx.__file__).parent / "backend/test/data/light"
RESNET = LIGHT / "light_resnet50.onnx"


@pytest.fixture(scope="module")
def pool():
    with InspectionPool() as made:
        yield made


def _gone(pid, seconds=10.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False


def _raise(error):
    raise error


def test_same_answer_from_another_process(pool):
    assert pool.inspect(RESNET) == inspect_model(RESNET)
    assert pool.call(os.getpid) != os.getpid()


def test_warm_latency(pool):
    """Its goal is 5 ms; the bound here only catches a child that is started anew for every model."""
    pool.inspect(RESNET)
    took = []
    for _ in range(30):
        start = time.perf_counter()
        pool.inspect(RESNET)
        took.append(time.perf_counter() - start)
    assert sorted(took)[15] < 0.05


def test_errors_arrive_whole(pool, tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"<html>")
    with pytest.raises(NotOnnxError, match="6 bytes only") as caught:
        pool.inspect(tmp_path / "m.onnx")
    assert caught.value.code == "NOT_ONNX"
    sent = ExternalDataPathError("What.", hint="Do.", location="../w", number=3)
    with pytest.raises(ExternalDataPathError) as caught:
        pool.call(_raise, sent)
    assert (caught.value.message, caught.value.hint) == ("What.", "Do.")
    assert caught.value.details == {"location": "../w", "number": 3}


def test_sizes_are_passed_on(pool):
    assert pool.inspect(RESNET, {}).external_data == ()


def _all_errors(kind=TrtFarmError):
    yield kind
    for child in kind.__subclasses__():
        yield from _all_errors(child)


@pytest.mark.parametrize("kind", sorted(set(_all_errors()), key=lambda kind: kind.__name__))
def test_every_error_can_be_pickled(kind):
    error = pickle.loads(pickle.dumps(kind("Message.", hint="Hint.", detail=1)))
    assert type(error) is kind
    assert (error.message, error.hint, error.details) == ("Message.", "Hint.", {"detail": 1})
    assert str(pickle.loads(pickle.dumps(kind()))) == str(kind())


def test_a_crash_is_an_error_and_the_next_call_works(pool):
    before = pool.call(os.getpid)
    for _ in range(2):
        with pytest.raises(ModelError, match="died") as caught:
            pool.call(os._exit, 1)
        assert caught.value.code == "ONNX_PARSE_ERROR"
    assert pool.inspect(RESNET).node_count == 415
    assert pool.call(os.getpid) != before
    assert _gone(before)


def test_killed_between_calls(pool):
    pid = pool.call(os.getpid)
    os.kill(pid, signal.SIGKILL)
    assert _gone(pid)
    assert pool.inspect(RESNET).node_count == 415


def test_killed_once_during_a_call(pool):
    """As the system does when memory is short."""
    pid = pool.call(os.getpid)
    timer = threading.Timer(0.2, os.kill, (pid, signal.SIGKILL))
    timer.start()
    pool.call(time.sleep, 0.5)
    timer.join()
    assert _gone(pid)


def test_keeps_no_failed_model(pool, tmp_path):
    path = tmp_path / "model.onnx"
    data = onnx.ModelProto(ir_version=8, producer_name="x" * (200 << 20)).SerializeToString()
    for content in (data, data[:-1]):
        path.write_bytes(content)
        with pytest.raises(ModelError):
            pool.inspect(path)
        assert psutil.Process(pool.call(os.getpid)).memory_info().rss < 120 << 20


def test_timeout_kills():
    with InspectionPool(timeout_seconds=0.5) as pool:
        pid = pool.call(os.getpid)
        start = time.monotonic()
        with pytest.raises(ResourceLimitError, match=r"0\.5 s"):
            pool.call(time.sleep, 60)
        assert time.monotonic() - start < 5
        assert _gone(pid)
        assert pool.inspect(RESNET).node_count == 415


def test_memory_limit(tmp_path):
    made = onnx.load(RESNET)
    made.graph.initializer.add(name="w", data_type=onnx.TensorProto.FLOAT, raw_data=bytes(300 << 20))
    path = tmp_path / "model.onnx"
    path.write_bytes(made.SerializeToString())
    del made
    for mebibytes in (400, 600, 800):  # too little to read it, and to parse it, in several places
        with InspectionPool(memory_bytes=mebibytes << 20) as pool:
            with pytest.raises(ResourceLimitError):
                pool.inspect(path)
            assert pool.inspect(RESNET).node_count == 415
    with InspectionPool() as pool:
        assert pool.inspect(path).node_count == 415


def test_concurrent_callers(pool):
    paths = sorted(LIGHT.glob("*.onnx")) * 8
    with ThreadPoolExecutor(12) as threads:
        found = list(threads.map(pool.inspect, paths))
    assert found == [inspect_model(path) for path in paths]


def test_a_crash_harms_no_other_caller():
    with InspectionPool() as pool, ThreadPoolExecutor(8) as threads:
        good = [threads.submit(pool.inspect, RESNET) for _ in range(10)]
        bad = [threads.submit(pool.call, os._exit, 1) for _ in range(3)]
        good += [threads.submit(pool.inspect, RESNET) for _ in range(10)]
        assert all(future.result().node_count == 415 for future in good)
        assert all(isinstance(future.exception(), ModelError) for future in bad)


def test_close_leaves_no_process():
    pool = InspectionPool()
    pool.warm()
    pid = pool.call(os.getpid)
    pool.close()
    assert not psutil.pid_exists(pid)
    pool.close()
    with pytest.raises(UnavailableError):
        pool.inspect(RESNET)


def test_close_cuts_a_call_short():
    pool = InspectionPool()
    pid = pool.call(os.getpid)
    with ThreadPoolExecutor(1) as threads:
        future = threads.submit(pool.call, time.sleep, 60)
        time.sleep(0.3)
        start = time.monotonic()
        pool.close()
        assert isinstance(future.exception(5), UnavailableError)
    assert time.monotonic() - start < 5
    assert not psutil.pid_exists(pid)


def test_nothing_starts_before_the_first_call():
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    InspectionPool().close()
    assert {child.pid for child in psutil.Process().children(recursive=True)} == before


PROGRAM = """
import sys
from pathlib import Path

from trtfarm.inspection.pool import InspectionPool


def main():
    with InspectionPool() as pool:
        info = pool.inspect(Path(sys.argv[1]))
    assert not {"onnx", "numpy"} & set(sys.modules)
    print(info.node_count, __name__)


if __name__ == "__main__":
    main()
"""


@pytest.mark.parametrize("how", ["module", "script", "import", "unguarded"])
def test_however_the_parent_was_started(how, tmp_path):
    """The child does not run the parent's main module again; a script without .py is what pip installs."""
    (tmp_path / "farm_main.py").write_text(PROGRAM)
    (tmp_path / "notebook.py").write_text(PROGRAM.partition('if __name__ == "__main__"')[0] + "main()\n")
    (tmp_path / "farm").write_text(PROGRAM)
    arguments = {
        "module": ["-m", "farm_main"],
        "script": ["farm"],
        "import": ["-c", "import farm_main; farm_main.main()"],
        "unguarded": ["notebook.py"],
    }[how]
    command = [sys.executable, *arguments, str(RESNET)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([".", str(Path(__file__).parents[2])])}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] == "415"
    assert not done.stderr


def test_ends_with_a_parent_that_was_killed():
    program = textwrap.dedent("""
        import os, time
        from trtfarm.inspection.pool import InspectionPool
        pool = InspectionPool()
        print(pool.call(os.getpid), flush=True)
        time.sleep(60)
    """)
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as parent:
        pid = int(parent.stdout.readline())
        assert psutil.pid_exists(pid)
        parent.kill()
    assert _gone(pid)
