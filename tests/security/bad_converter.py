"""A converter that a model has taken over: it does what the model's text says, confined as the real one."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from trtfarm_worker.conversion.convert import Order
from trtfarm_worker.conversion.process import enter

FOREVER = 3600


def main() -> None:
    order = Order.model_validate_json(sys.stdin.buffer.read())
    enter(order)
    destination = Path(order.destination)
    destination.with_suffix(".txt").write_text("fp16: done\n")
    words = Path(order.model).read_text().split()
    BEHAVIOURS[words[0]](order, destination, *words[1:])


def model(location: str | None = None) -> bytes:
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
        [helper.make_tensor("w", TensorProto.FLOAT, [1], [1.0])],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    if location is not None:
        (weights,) = made.graph.initializer
        weights.ClearField("float_data")
        weights.data_location = TensorProto.EXTERNAL
        weights.external_data.add(key="location", value=location)
    data: bytes = made.SerializeToString()
    return data


def work(order: Order, destination: Path) -> None:
    destination.write_bytes(model())


def nothing(order: Order, destination: Path) -> None:
    """Ends well, without a model."""


def silent(order: Order, destination: Path) -> None:
    """Without an account."""
    destination.with_suffix(".txt").unlink()
    work(order, destination)


def garbage(order: Order, destination: Path) -> None:
    destination.write_bytes(b"this is no model")


def link(order: Order, destination: Path) -> None:
    destination.symlink_to(order.model)


def account_link(order: Order, destination: Path) -> None:
    work(order, destination)
    destination.with_suffix(".txt").unlink()
    destination.with_suffix(".txt").symlink_to("/etc/passwd")


def hard_link(order: Order, destination: Path) -> None:
    """What it does to its copy later, it does to the original."""
    Path(order.model).with_name("beside").write_bytes(model())
    os.link(Path(order.model).with_name("beside"), destination)


def pipe(order: Order, destination: Path) -> None:
    os.mkfifo(destination)


def unix_socket(order: Order, destination: Path) -> None:
    os.chdir(destination.parent)
    socket.socket(socket.AF_UNIX).bind(destination.name)


def folder(order: Order, destination: Path) -> None:
    destination.mkdir()


def more(order: Order, destination: Path) -> None:
    work(order, destination)
    destination.with_name("sitecustomize.py").write_text("")


def many(order: Order, destination: Path) -> None:
    work(order, destination)
    for number in range(1000):
        destination.with_name(f"x{number}").touch()


def large(order: Order, destination: Path) -> None:
    """Larger than it may be, if nothing holds it back."""
    work(order, destination)
    with contextlib.suppress(OSError):
        os.truncate(destination, order.file_bytes + 1)
    os._exit(0)


def long_account(order: Order, destination: Path) -> None:
    work(order, destination)
    destination.with_suffix(".txt").write_text("x" * 100_000)


def outside(order: Order, destination: Path, location: str) -> None:
    destination.write_bytes(model(location))


def unused(order: Order, destination: Path) -> None:
    work(order, destination)
    destination.with_name("typed.onnx.data").write_bytes(b"1234")


def die(order: Order, destination: Path, number: str) -> None:
    os.kill(os.getpid(), signal.Signals[number])
    time.sleep(FOREVER)


def babble(order: Order, destination: Path) -> None:
    """An answer without an end."""
    while True:
        os.write(order.answer, b"x" * 65536)


def claim(order: Order, destination: Path) -> None:
    """An error of a kind that it has no business with, and text without end."""
    os.write(order.answer, json.dumps({"code": "INTERNAL", "message": "\x1b[31m" + "x" * 60_000}).encode())
    sys.exit(1)


def hang(order: Order, destination: Path) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    destination.with_name("hanging").write_text(str(os.getpid()))
    while True:
        time.sleep(0.01)


def stand_still(order: Order, destination: Path) -> None:
    time.sleep(FOREVER)


def spill(order: Order, destination: Path) -> None:
    for _ in range(100):
        print("a line of many\n" * 10_000, flush=True)
        time.sleep(0.02)
    work(order, destination)


def setuid(order: Order, destination: Path) -> None:
    work(order, destination)
    destination.chmod(0o6777)


def escape(order: Order, destination: Path, *targets: str) -> None:
    """Into its log, by name, what it could do."""

    def tries(name: str, action: Callable[[], object]) -> None:
        try:
            action()
        except OSError:
            return
        print(f"escaped: {name}", flush=True)

    attempt = destination.parent.parent.parent
    tries("environment of the worker", lambda: Path(f"/proc/{order.parent_pid}/environ").read_bytes())
    tries("memory of the worker", lambda: os.open(f"/proc/{order.parent_pid}/mem", os.O_RDONLY))
    tries("signal", lambda: os.kill(order.parent_pid, 0))
    tries("users", lambda: Path("/etc/passwd").read_bytes())
    tries("model", lambda: Path(order.model).write_bytes(b""))
    tries("cache", (Path(order.model).parent.parent / "typed").mkdir)
    tries("attempt", lambda: (attempt / "plan").write_bytes(b""))
    tries("attempts", lambda: list(attempt.parent.iterdir()))
    tries("link", lambda: destination.with_name("link").symlink_to("/"))
    tries("pipe", lambda: os.mkfifo(destination.with_name("pipe")))
    tries("socket", lambda: socket.socket(socket.AF_UNIX))
    tries("udp", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    tries("fork", os.fork)
    tries("program", lambda: os.execv("/bin/true", ["true"]))
    for target in targets:
        tries(target, lambda target=target: Path(target).read_bytes())
    for name in sorted(os.environ):
        if name.startswith(("TRTFARM_", "AWS_")) and name != "TRTFARM_CHILD_OF":
            print(f"escaped: {name}", flush=True)
    print("tried all", flush=True)
    work(order, destination)


BEHAVIOURS = {
    each.__name__: each
    for each in (
        *(
            work,
            nothing,
            silent,
            garbage,
            link,
            account_link,
            hard_link,
            pipe,
            unix_socket,
            folder,
            more,
            many,
        ),
        *(large, long_account, outside, unused, die, babble, claim, hang, stand_still, spill, setuid, escape),
    )
}

if __name__ == "__main__":
    assert onnx
    main()
