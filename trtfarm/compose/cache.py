"""Where this machine keeps the plans that it pulled."""

from __future__ import annotations

import os
from pathlib import Path

from trtfarm.sdk.plan_cache import PlanCache


def plan_cache() -> PlanCache:
    """In ``$TRTFARM_HOME/pulled``, else in the user's cache folder."""
    from platformdirs import user_cache_path

    home = os.environ.get("TRTFARM_HOME")
    return PlanCache(Path(home) / "pulled" if home else user_cache_path("trtfarm", appauthor=False))
