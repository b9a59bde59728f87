"""A fleet as a table."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from trtfarm.cli.fleet import _ago, _queue, _worker
from trtfarm.contract.device import Device
from trtfarm.contract.v1 import QueueView, WorkerView

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
DEVICE = Device(
    name="NVIDIA L4",
    gpu="l4",
    uuid="GPU-1",
    compute_capability="8.9",
    multiprocessors=58,
    memory_bytes=23 << 30,
    driver="580.65.06",
    cuda="13.0",
)


def worker(**changes: object) -> WorkerView:
    return WorkerView.model_validate(
        {
            "worker_id": "w1",
            "hostname": "host",
            "runtime": "tensorrt-10.16.1",
            "platform": "linux-x86_64",
            "gpus": ["l4"],
            "slots": 1,
            "device": DEVICE,
            "running": 1,
            "alive": True,
            "draining": False,
            "started_at": NOW,
            "last_seen_at": NOW - timedelta(seconds=4),
            **changes,
        }
    )


def test_a_worker_on_a_gpu() -> None:
    row = [str(cell) for cell in _worker(worker(), NOW)]
    for told in (
        "host",
        "l4 (cc-8.9, 23.0 GiB)",
        "tensorrt-10.16.1",
        "13.0",
        "580.65.06",
        "1/1",
        "4 s ago",
        "w1",
    ):
        assert told in row


def test_a_worker_without_one_that_has_gone_silent() -> None:
    seen = NOW - timedelta(minutes=3)
    row = _worker(worker(device=None, alive=False, last_seen_at=seen, gpus=["cc-8.9", "cc-12.0"]), NOW)
    assert {"none", "cc-8.9, cc-12.0", "3 min ago", "silent"} <= {str(cell) for cell in row}


@pytest.mark.parametrize(
    ("seconds", "said"), [(-2, "0 s ago"), (59, "59 s ago"), (7200, "2 h ago"), (200000, "2 d ago")]
)
def test_how_long_ago(seconds: float, said: str) -> None:
    assert _ago(seconds) == said


def test_a_queue_that_nobody_serves_says_so() -> None:
    there = QueueView(queue="q", queued=3, running=1, workers=2, slots=4)
    assert _queue(there) == ("q", 3, 1, 2, 4)
    gone = there.model_copy(update={"workers": 0, "slots": 0, "running": 0})
    assert _queue(gone) == ("q", 3, 0, "none: its jobs wait", "")
