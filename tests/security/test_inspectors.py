"""What a model can do that has taken over its reader: nothing to the farm, nothing to others."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.unit.odd_inspector import odd
from trtfarm.errors import ModelError, OnnxTooComplexError
from trtfarm.inspection.pool import InspectionPool
from trtfarm.inspection.wire import MAX_ANSWER_BYTES

INFO = '{"info": {"inputs": [], "outputs": [], "ir_version": 8, "opsets": {}, "node_count": 7}}'

Tell = Callable[..., int]


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Iterator[InspectionPool]:
    monkeypatch.setenv("TRTFARM_DATABASE_URL", "postgresql://farm:password@host/farm")
    with InspectionPool(module="tests.unit.odd_inspector") as made:
        yield made


@pytest.fixture
def tell(pool: InspectionPool, tmp_path: Path) -> Tell:
    """Has a model read, and returns its number of nodes."""
    path = tmp_path / "model.onnx"

    def inspected(what: str, submitter: str = "") -> int:
        path.write_bytes(odd(what))
        return pool.inspect(path, submitter=submitter).node_count

    return inspected


def test_it_reaches_nothing(tell: Tell, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    assert tell(f"break out:{secret}") == 0
    assert not secret.with_name("new").exists()


def test_its_environment_tells_nothing(tell: Tell) -> None:
    process = psutil.Process(tell("pid"))
    for each in (process, psutil.Process(process.ppid())):
        assert "PATH" in each.environ()
        assert not [value for value in each.environ().values() if "password" in value]


class _Planted:
    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> object:
        return os.mkdir, (str(self._path),)


@pytest.mark.parametrize("form", ["say", "say raw"])
def test_an_answer_is_never_unpickled(form: str, tell: Tell, tmp_path: Path) -> None:
    planted = tmp_path / "planted"
    data = pickle.dumps(_Planted(planted), protocol=0 if form == "say" else 4)
    with pytest.raises(ModelError):
        tell(f"{form}:{data.decode() if form == 'say' else data.hex()}")
    assert not planted.exists()
    assert tell("pid")


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "{}",
        "nonsense",
        INFO[:-2],
        INFO.replace("7", '"7 nodes"'),
        INFO.replace("{}", '{"\\u0000": 1}'),
        '{"refusal": {"code": "AUTH_INVALID", "message": "Who are you?"}}',
        '{"refusal": {"code": "NO_SUCH_CODE", "message": "What?"}}',
        '{"refusal": {"code": "NOT_ONNX", "message": "What?", "details": {"hint": "x", "message": "y"}}}',
        '{"refusal": {"code": "NOT_ONNX", "message": "' + "x" * 5000 + '"}}',
    ],
)
def test_lies_are_refused(answer: str, tell: Tell) -> None:
    with pytest.raises(ModelError):
        tell(f"say:{answer}")
    assert tell("pid")


def test_an_answer_has_a_size(tell: Tell) -> None:
    with pytest.raises(ModelError, match="died"):
        tell(f"say much:{MAX_ANSWER_BYTES + 1}")
    with pytest.raises(OnnxTooComplexError, match="1024 are accepted"):
        tell("name:100000")


def test_nobody_answers_for_the_next_model(tell: Tell) -> None:
    """A second answer waits for whoever asks next: another process is asked."""
    first = tell("pid")
    assert tell(f"say twice:{INFO}") == 7
    assert tell("pid") not in {7, first}


def test_a_process_reads_models_of_one_submitter(tell: Tell) -> None:
    first = tell("pid", "one")
    assert tell("pid", "one") == first
    other = tell("pid", "other")
    assert other != first
    assert not psutil.pid_exists(first)
    assert tell("pid", "one") not in {first, other}
