"""Plans on the machine that runs them: kept by digest, with the answers that led to them."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import AwareDatetime, ValidationError

from trtfarm.contract.digest import Digest
from trtfarm.contract.resolve import ResolveRequest
from trtfarm.contract.v1 import PlanView
from trtfarm.contract.value import Value, canonical_json
from trtfarm.errors import BlobCorruptError
from trtfarm.sdk.answers import read
from trtfarm.sdk.placing import place

if TYPE_CHECKING:
    from trtfarm.sdk.calls import OnBytes
    from trtfarm.sdk.client import FarmClient

MOST_BYTES = 32 * 2**30


class Answer(Value):
    """What a farm answered last: the plan, and why."""

    plan: PlanView
    why: tuple[str, ...]
    needs: tuple[str, ...]
    at: AwareDatetime


class PlanCache:
    """A folder that several processes share.

    Nothing is trusted because it is there: a plan is hashed as it is handed out. What was used least lately
    goes when there is more than ``most_bytes``.
    """

    def __init__(self, folder: Path, most_bytes: int = MOST_BYTES) -> None:
        self._plans = folder / "sha256"
        self._answers = folder / "answers"
        self._most_bytes = most_bytes

    def fetch(
        self, farm: FarmClient, digest: Digest, destination: Path, on_bytes: OnBytes | None = None
    ) -> bool:
        """Puts the plan at ``destination``, from here or from the farm; False if it lay there already.

        Two processes that want one plan download it once. A download that broke off goes on.

        Raises:
            BlobCorruptError: the farm sends other bytes; ``destination`` is as it was.
        """
        path = self._path(digest)
        with self._locked(path):
            if not path.exists():
                farm.pull(digest, path, on_bytes)
                self._make_room(keep=path)
        try:
            return self.place(digest, destination)
        except (BlobCorruptError, FileNotFoundError):  # damaged here, or pruned this moment
            with self._locked(path):
                farm.pull(digest, path, on_bytes)
                return place(path, digest, destination)

    def has(self, digest: Digest) -> bool:
        return self._path(digest).exists()

    def place(self, digest: Digest, destination: Path) -> bool:
        """The plan that is kept here, as ``fetch``.

        Raises:
            FileNotFoundError: it is not here.
            BlobCorruptError: it was damaged here, and is dropped.
        """
        path = self._path(digest)
        os.utime(path)
        try:
            return place(path, digest, destination)
        except BlobCorruptError:
            path.unlink(missing_ok=True)
            raise

    def remember(self, question: str, answer: Answer) -> None:
        self._answers.mkdir(parents=True, exist_ok=True)
        path = self._answers / f"{question}.json"
        new = path.with_name(f".{path.name}.{os.getpid()}")
        new.write_text(answer.model_dump_json())
        new.replace(path)

    def recall(self, question: str) -> Answer | None:
        """The last answer to that question, if its plan is still here."""
        try:
            answer = read(Answer, (self._answers / f"{question}.json").read_bytes())
        except (FileNotFoundError, ValidationError):
            return None
        return answer if self.has(answer.plan.digest) else None

    def _path(self, digest: Digest) -> Path:
        return self._plans / digest.hex[:2] / digest.hex[2:]

    @contextlib.contextmanager
    def _locked(self, path: Path) -> Iterator[None]:
        """One process at a time; the lock ends with it, however it ends."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with (path.parent / ".lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _make_room(self, keep: Path) -> None:
        files = [(path.stat(), path) for path in self._plans.glob("*/*") if not path.name.startswith(".")]
        total = sum(stat.st_size for stat, _ in files)
        for stat, path in sorted(files, key=lambda pair: pair[0].st_mtime):
            if total <= self._most_bytes:
                return
            if path != keep:
                path.unlink(missing_ok=True)
                total -= stat.st_size


def answered(plan: PlanView, why: tuple[str, ...] = (), needs: tuple[str, ...] = ()) -> Answer:
    return Answer(plan=plan, why=why, needs=needs, at=datetime.now(UTC))


def question_of(farm: str, asked: ResolveRequest | Digest) -> str:
    """One name for the same question to the same farm."""
    document: Any = asked
    if isinstance(asked, ResolveRequest):
        document = asked.model_dump(
            mode="json", exclude_unset=True, include={"model", "machine", "config", "profiles"}
        )
    return Digest.of_bytes(canonical_json({"farm": farm, "asked": document})).hex
