"""What a live job may expect, in words."""

from __future__ import annotations

from trtfarm.contract.forecast import Forecast, Spread
from trtfarm.contract.jobs import JobState
from trtfarm.contract.v1 import JobView

_WHY = {
    "worker": "no worker for it is there and ready (trtfarm fleet)",
    "quota": "its API key has as many jobs running as it may",
    "retry": "tried again soon",
}


def outlook(job: JobView) -> str:
    """``3rd, starts in about 2 min (1 min to 4 min)``; empty if nothing is known."""
    if job.forecast is None:
        return ""
    if job.state is JobState.RUNNING:
        return _ending(job.forecast)
    parts = [place(job)]
    why = _WHY.get(job.forecast.waiting_for or "")
    if why:
        parts.append(why)
    if job.forecast.starts is not None and job.forecast.starts.p50 >= 1:
        parts.append(f"starts in about {about(job.forecast.starts)}")
    return ", ".join(filter(None, parts))


def place(job: JobView) -> str:
    """``next``, ``3rd``, ``behind more than 10000``."""
    if job.queue_position is None:
        return ""
    if job.forecast is not None and job.forecast.position_at_least:
        return f"behind more than {job.queue_position}"
    return "next" if job.queue_position == 0 else _ordinal(job.queue_position + 1)


def about(spread: Spread) -> str:
    """``2 min (1 min to 4 min)``."""
    text = duration(spread.p50)
    if spread.p10 is None or spread.p90 is None:
        return text
    low, high = duration(spread.p10), duration(spread.p90)
    return text if low == high else f"{text} ({low} to {high})"


def duration(seconds: float) -> str:
    for unit, length, most in (("s", 1, 90), ("min", 60, 90), ("h", 3600, 36)):
        if seconds / length < most:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds / 86400:.0f} days"


def _ending(forecast: Forecast) -> str:
    if forecast.overdue:
        return "longer than any before it"
    return f"about {about(forecast.ends)} left" if forecast.ends is not None else ""


def _ordinal(number: int) -> str:
    suffix = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}th" if number % 100 in {11, 12, 13} else f"{number}{suffix}"
