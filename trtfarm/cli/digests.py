"""Digests as people type them."""

from __future__ import annotations

from trtfarm.compose.farm import Farm
from trtfarm.contract.digest import Digest
from trtfarm.errors import InvalidDigestError, NotFoundError

_SHORTEST = 6


def find_digest(farm: Farm, name: str) -> Digest:
    """A digest in full or by its first digits."""
    try:
        return Digest(name)
    except InvalidDigestError:
        prefix = name.removeprefix("sha256:").lower()
        if len(prefix) < _SHORTEST:
            raise
    plans = farm.plans(limit=500).plans
    found = {plan.digest for plan in plans if plan.digest.hex.startswith(prefix)}
    if len(found) != 1:
        many = f"{len(found)} plans start with {name}." if found else f"No recent plan starts with {name}."
        raise NotFoundError(many, hint="Give the whole digest; trtfarm plan list shows them.")
    return found.pop()
