"""download: a plan of 50 MB by one client, against nginx's static file."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from port_for import select_random

from bench import load, stand_in
from bench.farm import HOST, Servers, farm, running
from bench.figures import BenchError, Figure, Goal
from bench.submissions import submission
from bench.submit_to_plan import model_file
from trtfarm.inspection.manifest import manifest_of
from trtfarm.sdk.client import FarmClient

NAME = "download"
GOAL = Goal("ratio", "least", 0.5)
PLAN_BYTES = 50_000_000
ROUNDS = 30
_BUFFER_BYTES = 1 << 20
_NGINX = """
daemon off;
pid {folder}/nginx.pid;
error_log stderr;
worker_processes 1;
events {{ worker_connections 64; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen {host}:{port};
        root {folder}/root;
    }}
}}
"""


def measure(servers: Servers) -> list[Figure]:
    binary = _nginx_binary()
    with farm(servers, workers=0) as farm_, FarmClient(farm_.url, farm_.key) as client:
        worker = stand_in.register(farm_.database)
        model = model_file()
        digest = client.upload_model(model, manifest_of(model))
        with load.Connection(farm_.port) as connection:
            connection.exchange(submission(digest, 1 << 20, farm_.key))
        plan = farm_.folder / "plan"
        plan.write_bytes(os.urandom(PLAN_BYTES))
        path = f"/v1/plans/{stand_in.finish_one(farm_, worker, plan)}/content"
        with _nginx(binary, farm_.folder, plan) as port:
            ours, peer = _interleaved(
                (farm_.port, load.get(path, farm_.key)), (port, load.get(f"/{plan.name}"))
            )
    details = {"bytes": PLAN_BYTES, "rounds": ROUNDS}
    return [Figure(NAME, median(ours), median(peer), " GB/s", "nginx, sendfile", GOAL, details)]


def _interleaved(*places: tuple[int, bytes]) -> list[list[float]]:
    """GB/s from each place (port, request), in turn, over kept-alive connections."""
    rates: list[list[float]] = [[] for _ in places]
    buffer = memoryview(bytearray(_BUFFER_BYTES))
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(load.Connection(port)) for port, _ in places]
        for number in range(-1, ROUNDS):
            for connection, (_, request), series in zip(connections, places, rates, strict=True):
                start = time.perf_counter()
                length = connection.receive_into(request, buffer)
                seconds = time.perf_counter() - start
                if length != PLAN_BYTES:
                    raise BenchError(f"{length} bytes arrived instead of {PLAN_BYTES}")
                if number >= 0:  # the first round warms
                    series.append(length / seconds / 1e9)
    return rates


def _nginx_binary() -> str:
    # Debian keeps it in sbin, which is not on the PATH of everybody.
    found = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/sbin")
    if found is None:
        raise BenchError(
            "download is measured against nginx, which is not on the PATH: apt-get install nginx"
        )
    return found


@contextlib.contextmanager
def _nginx(binary: str, folder: Path, plan: Path) -> Iterator[int]:
    """The port of an nginx that serves the plan."""
    port, root = select_random(), folder / "root"
    root.mkdir()
    (root / plan.name).hardlink_to(plan)
    plan.chmod(0o644)
    folder.chmod(0o755)  # started by root, nginx serves as nobody
    config = folder / "nginx.conf"
    config.write_text(_NGINX.format(folder=folder, host=HOST, port=port))

    def ready() -> bool:
        try:
            with load.Connection(port):
                return True
        except OSError:
            return False

    with running([binary, "-c", str(config), "-p", str(folder), "-e", "stderr"], {}, ready):
        yield port
