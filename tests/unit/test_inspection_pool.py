"""Inspection in a process of its own: what it costs, and what becomes of it when it dies."""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import onnx
import psutil
import pytest

from tests.security.hostile_models import varint
from tests.unit import odd_inspector
from tests.unit.inspection.graphs import model, value, weight
from trtfarm.errors import (
    ExternalDataPathError,
    ModelError,
    NotOnnxError,
    ResourceLimitError,
    UnavailableError,
)
from trtfarm.inspection.inspect import inspect_model
from trtfarm.inspection.pool import InspectionPool
from trtfarm.inspection.wire import Answer, info_of, refusal_of

LIGHT = Path(onnx.__file__).parent / "backend/test/data/light"
RESNET = LIGHT / "light_resnet50.onnx"


@pytest.fixture(scope="module")
def pool():
    with InspectionPool() as made:
        yield made


@pytest.fixture
def odd_pool():
    """Its inspector does what models say."""
    with InspectionPool(module="tests.unit.odd_inspector", timeout_seconds=60) as made:
        yield made


@pytest.fixture
def odd(tmp_path):
    def write(what):
        path = tmp_path / f"{abs(hash(what))}.onnx"
        path.write_bytes(odd_inspector.odd(what))
        return path

    return write


def _gone(pid, seconds=30.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False


def _family(known=frozenset()):
    """Processes below this one."""
    return {child.pid for child in psutil.Process().children(recursive=True)} - known


def _wait_for(condition, seconds=30.0):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.01)
    return found


def test_same_answer_from_another_process(pool):
    assert pool.inspect(RESNET) == inspect_model(RESNET)


def test_stays_warm():
    """Nothing is started anew for another model of the same submitter."""
    before = _family()
    with InspectionPool() as pool:
        pool.inspect(RESNET)
        started = _family(before)
        assert len(started) == 2  # an inspector, and what it has forked
        for _ in range(5):
            pool.inspect(RESNET)
            assert _family(before) == started


def test_errors_arrive_whole(pool, tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(b"<html>")
    with pytest.raises(NotOnnxError, match="6 bytes only") as caught:
        pool.inspect(path)
    assert caught.value.code == "NOT_ONNX"
    path.write_bytes(model(initializers=[weight(location="../w")]).SerializeToString())
    with pytest.raises(ExternalDataPathError) as caught:
        pool.inspect(path)
    assert "onnx.save_model" in caught.value.hint
    assert caught.value.details == {"location": "../w"}


def test_inputs_of_every_kind_arrive(pool, tmp_path):
    unknown_rank = onnx.helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, None)
    sequence = onnx.helper.make_tensor_sequence_value_info("s", onnx.TensorProto.FLOAT, None)
    path = tmp_path / "m.onnx"
    made = model(inputs=[value("x"), value("n", ("n", 4)), value("scalar", ()), unknown_rank, sequence])
    path.write_bytes(made.SerializeToString())
    info = pool.inspect(path)
    assert info == inspect_model(path)
    assert [item.shape for item in info.inputs] == [(1, 4), (-1, 4), (), None, None]


def test_sizes_are_passed_on(pool, tmp_path):
    assert pool.inspect(RESNET, {}).external_data == ()
    path = tmp_path / "m.onnx"
    path.write_bytes(model(initializers=[weight(location="w", offset="8", length="16")]).SerializeToString())
    assert pool.inspect(path, {"w": 24}).external_data == ("w",)
    with pytest.raises(ModelError, match="byte 24"):
        pool.inspect(path, {"w": 23})


def _all_errors(kind=ModelError):
    yield kind
    for child in kind.__subclasses__():
        yield from _all_errors(child)


@pytest.mark.parametrize("kind", sorted(set(_all_errors()), key=lambda kind: kind.__name__))
def test_every_error_of_a_model_arrives(kind):
    for error in (kind("Message.", hint="Hint.", location="a", size_bytes=1), kind()):
        answer = Answer(refusal=refusal_of(error)).model_dump_json()
        with pytest.raises(kind) as caught:
            info_of(answer.encode())
        assert type(caught.value) is kind
        assert (str(caught.value), caught.value.details) == (str(error), error.details)


def test_a_crash_is_an_error_and_the_next_call_works(odd_pool, odd):
    before = odd_pool.inspect(odd("pid")).node_count
    for _ in range(2):
        with pytest.raises(ModelError, match="died") as caught:
            odd_pool.inspect(odd("crash"))
        assert caught.value.code == "ONNX_PARSE_ERROR"
    assert odd_pool.inspect(RESNET).node_count == 415
    assert odd_pool.inspect(odd("pid")).node_count != before
    assert _gone(before)


def test_a_fault_of_ours_is_logged(odd_pool, odd, caplog):
    with pytest.raises(ModelError, match="could not be read"):
        odd_pool.inspect(odd("raise:defect"))
    assert "RuntimeError: defect" in caplog.text


def test_killed_between_calls(odd_pool, odd):
    pid = odd_pool.inspect(odd("pid")).node_count
    for victim in (pid, psutil.Process(pid).ppid()):
        os.kill(victim, signal.SIGKILL)
        assert _gone(victim)
        assert odd_pool.inspect(RESNET).node_count == 415


def test_killed_once_during_a_call(odd_pool, odd):
    """As the system does when memory is short: another process reads the model again."""
    assert odd_pool.inspect(odd("crash once")).node_count == 1


def test_keeps_no_failed_model(odd_pool, odd, tmp_path):
    path = tmp_path / "model.onnx"
    data = onnx.ModelProto(ir_version=8, producer_name="x" * (200 << 20)).SerializeToString()
    for content in (data, data[:-1]):
        path.write_bytes(content)
        with pytest.raises(ModelError):
            odd_pool.inspect(path)
        pid = odd_pool.inspect(odd("pid")).node_count
        assert psutil.Process(pid).memory_info().rss < 200 << 20


@pytest.mark.parametrize("what", ["hang", "spin"])
def test_timeout_kills(what, odd):
    with InspectionPool(module="tests.unit.odd_inspector", timeout_seconds=3) as pool:
        pid = pool.inspect(odd("pid")).node_count
        with pytest.raises(ResourceLimitError, match="3 s"):
            pool.inspect(odd(what))
        assert _gone(pid)
        assert pool.inspect(odd("pid")).node_count != pid


def test_memory_limit(tmp_path):
    made = onnx.load(RESNET)
    made.graph.initializer.add(name="w", data_type=onnx.TensorProto.FLOAT, raw_data=bytes(300 << 20))
    path = tmp_path / "model.onnx"
    path.write_bytes(made.SerializeToString())
    del made
    for mebibytes in (350, 500, 650):  # too little to read it, and to parse it, in several places
        with InspectionPool(memory_bytes=mebibytes << 20) as pool:
            with pytest.raises(ResourceLimitError):
                pool.inspect(path)
            assert pool.inspect(RESNET).node_count == 415
    with InspectionPool() as pool:
        assert pool.inspect(path).node_count == 415


def test_a_small_file_gets_little_memory(tmp_path):
    """A byte of a file can become a hundred in memory: who wants memory has to send bytes."""
    path = tmp_path / "model.onnx"
    with InspectionPool(module="tests.unit.odd_inspector", memory_bytes=4 << 30) as pool:
        for mebibytes, gibibytes in ((0, 1), (40, 2), (100, 4)):
            data = odd_inspector.odd("memory")
            path.write_bytes(data + b"\x32" + varint(mebibytes << 20) + bytes(mebibytes << 20))
            assert pool.inspect(path).node_count == gibibytes


def test_concurrent_callers():
    paths = sorted(LIGHT.glob("*.onnx")) * 8
    before = _family()
    with InspectionPool(processes=2) as pool, ThreadPoolExecutor(12) as threads:
        found = list(threads.map(pool.inspect, paths))
        assert len(_family(before)) <= 4  # two inspectors, and what each has forked
    assert found == [inspect_model(path) for path in paths]


def test_a_crash_harms_no_other_caller(odd):
    with (
        InspectionPool(module="tests.unit.odd_inspector", processes=2) as pool,
        ThreadPoolExecutor(8) as threads,
    ):
        good = [threads.submit(pool.inspect, RESNET) for _ in range(10)]
        bad = [threads.submit(pool.inspect, odd("crash")) for _ in range(3)]
        good += [threads.submit(pool.inspect, RESNET) for _ in range(10)]
        assert all(future.result().node_count == 415 for future in good)
        assert all(isinstance(future.exception(), ModelError) for future in bad)


def test_close_leaves_no_process(odd):
    before = _family()
    pool = InspectionPool(module="tests.unit.odd_inspector", processes=3)
    pool.warm()
    pids = {pool.inspect(odd("pid")).node_count, *_family(before)}
    pool.close()
    assert all(map(_gone, pids))
    pool.close()
    with pytest.raises(UnavailableError):
        pool.inspect(RESNET)


def test_close_cuts_a_call_short(odd):
    pool = InspectionPool(module="tests.unit.odd_inspector")
    pid = pool.inspect(odd("pid")).node_count
    with ThreadPoolExecutor(1) as threads:
        future = threads.submit(pool.inspect, odd("hang"))
        time.sleep(0.1)  # in the middle of it or before: the outcome is the same
        pool.close()
        assert isinstance(future.exception(30), UnavailableError)
    assert _gone(pid)


def test_nothing_starts_before_the_first_call():
    before = _family()
    InspectionPool().close()
    assert not _family(before)


def test_no_descriptor_is_left_open(odd_pool, odd):
    for what in ("pid", "crash", "say raw:ffffffff"):  # the pipes of the first use are there
        with contextlib.suppress(ModelError):
            odd_pool.inspect(odd(what))
    odd_pool.inspect(RESNET)
    inspector = psutil.Process(psutil.Process(odd_pool.inspect(odd("pid")).node_count).ppid())
    before = psutil.Process().num_fds(), inspector.num_fds()
    for what in ("crash", "pid", "say raw:ffffffff", "raise:x") * 3:
        with contextlib.suppress(ModelError):
            odd_pool.inspect(odd(what))
    odd_pool.inspect(RESNET)
    assert (psutil.Process().num_fds(), inspector.num_fds()) == before


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
        import sys, time
        from pathlib import Path
        from trtfarm.inspection.pool import InspectionPool
        pool = InspectionPool()
        pool.inspect(Path(sys.argv[1]))
        print("ready", flush=True)
        time.sleep(60)
    """)
    command = [sys.executable, "-c", program, str(RESNET)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as parent:
        assert parent.stdout.readline() == "ready\n"
        pids = [child.pid for child in psutil.Process(parent.pid).children(recursive=True)]
        assert len(pids) == 2  # an inspector, and what it has forked
        parent.kill()
    assert all(map(_gone, pids))
