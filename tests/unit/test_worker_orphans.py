"""What a child leaves behind when its worker is killed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from tests.acceptance.processes import alive, wait_until
from trtfarm_worker.child.orphans import end_orphans, mark

SLEEPER = [sys.executable, "-c", "import time; time.sleep(60)"]
# A worker that starts a process under its mark, tells its pid, and waits.
WORKER = """
import os, subprocess, sys, time
from trtfarm_worker.child.orphans import mark
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], env=os.environ | mark(),
                         start_new_session=True)
print(child.pid, flush=True)
time.sleep(60)
"""


def test_what_outlived_its_worker_is_ended() -> None:
    worker = subprocess.Popen([sys.executable, "-c", WORKER], stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    orphan = int(worker.stdout.readline())
    # Until it has begun to run its program, it has its parent's environment.
    wait_until("it runs", lambda: b"sleep" in Path(f"/proc/{orphan}/cmdline").read_bytes())
    end_orphans()
    time.sleep(0.2)
    assert alive(orphan), "its worker lives"
    worker.kill()
    worker.wait()
    worker.stdout.close()
    end_orphans()
    wait_until("it is gone", lambda: not alive(orphan))


def test_what_is_ours_or_nobodys_stays() -> None:
    mine = subprocess.Popen(SLEEPER, env=os.environ | mark())
    strange = subprocess.Popen(SLEEPER)
    try:
        end_orphans()
        time.sleep(0.2)
        assert mine.poll() is None
        assert strange.poll() is None
    finally:
        for each in (mine, strange):
            each.kill()
            each.wait()
