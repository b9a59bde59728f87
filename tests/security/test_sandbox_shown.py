"""What confines models is shown where an operator looks."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from trtfarm import sandbox
from trtfarm.cli.doctor import _sandbox as look
from trtfarm.cli.fleet import _sandbox as shown
from trtfarm.contract.v1 import WorkerView
from trtfarm.contract.worker import WorkerCondition
from trtfarm.sandbox import Part
from trtfarm_worker.agent import Agent

FULL = tuple(Part)


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        (FULL, "full"),
        (FULL[:3], "without tcp, signals"),
        (FULL[:2], "without files, tcp, signals"),
        ((), "off"),
        (None, ""),
    ],
)
def test_the_fleet(parts, text):
    now = datetime.now(UTC)
    worker = WorkerView(
        worker_id="a",
        hostname="a",
        runtime="tensorrt-rtx-1.7.1.116",
        platform="linux-x86_64",
        gpus=("cc-8.9",),
        slots=1,
        running=0,
        started_at=now,
        last_seen_at=now,
        alive=True,
        draining=False,
        condition=WorkerCondition(sandbox=parts),
    )
    assert shown(WorkerView.model_validate_json(worker.model_dump_json())) == text


def test_the_doctor(monkeypatch):
    assert look().ok
    assert "files" in look().text
    monkeypatch.setattr(sandbox.landlock, "abi", lambda: 0)
    assert not look().ok
    assert "Landlock" in look().advice


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        (FULL, ["sandbox: privileges, calls, files, tcp, signals"]),
        (FULL[:3], ["sandbox: privileges, calls, files", "has no sandbox for: tcp, signals"]),
        ((), ["worker.sandbox is off: a model can reach all that this worker can"]),
    ],
)
def test_a_worker_says_so_at_its_start(caplog, parts, told):
    with caplog.at_level(logging.INFO):
        Agent._tell_of_the_sandbox(SimpleNamespace(_sandbox=parts))
    assert len(caplog.messages) == len(told)
    assert all(text in message for text, message in zip(told, caplog.messages, strict=True))
