"""Logs that grow too long."""

from __future__ import annotations

from pathlib import Path

from trtfarm_worker.child.log_limit import LogLimit

LIMIT = 100_000


def test_a_short_log_stays_as_it_is(tmp_path: Path) -> None:
    log = tmp_path / "log"
    LogLimit(log, LIMIT).apply()
    assert not log.exists()
    log.write_bytes(b"x" * LIMIT)
    LogLimit(log, LIMIT).apply()
    assert log.read_bytes() == b"x" * LIMIT


def test_a_long_log_keeps_its_beginning_and_its_end_while_it_is_written(tmp_path: Path) -> None:
    log = tmp_path / "log"
    limit = LogLimit(log, LIMIT)
    with log.open("a", encoding="utf-8") as writer:  # as the child has it open
        writer.write("the first line\n")
        for number in range(50_000):
            writer.write(f"line {number}\n")
            if number % 1000 == 0:
                writer.flush()
                limit.apply()
                assert log.stat().st_size <= LIMIT + 20_000
        writer.write("the last line\n")
    limit.apply()
    text = log.read_text(encoding="utf-8")
    assert len(text) <= LIMIT
    assert text.startswith("the first line\nline 0\n")
    assert "was dropped" in text
    assert text.endswith("line 49999\nthe last line\n")
