"""What was declared with a key is that key's: another one may not take it away."""

from __future__ import annotations

from trtfarm.contract.jobs import Scope
from trtfarm.errors import ScopeMissingError
from trtfarm_api.auth import Principal


def require_own(principal: Principal, owner: str, what: str) -> None:
    """Raises ScopeMissingError unless it is theirs, or they have scope admin."""
    if owner != principal.name and not principal.scope.includes(Scope.ADMIN):
        raise ScopeMissingError(
            f"The {what} was declared with another key.",
            hint="Who has that key may, and whoever has one with scope admin.",
        )
