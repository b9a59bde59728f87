"""Plans on the machine that runs them: kept by digest, with the answers that led to them."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import AwareDatetime, ValidationError

from trtfarm.contract.digest import Digest
from trtfarm.contract.machine import Machine
from trtfarm.contract.resolve import ResolveRequest
from trtfarm.contract.v1 import PlanView
from trtfarm.contract.value import Value, canonical_json
from trtfarm.errors import BlobCorruptError
from trtfarm.files import target_of, write
from trtfarm.private_folder import private_folder
from trtfarm.sdk import asked
from trtfarm.sdk.answers import read
from trtfarm.sdk.placing import place

if TYPE_CHECKING:
    from trtfarm.sdk.calls import OnBytes
    from trtfarm.sdk.client import FarmClient

MOST_BYTES = 32 * 2**30
Question = Digest | ResolveRequest
"""A plan, or which one fits."""


class Answer(Value):
    """What a farm answered last: the plan, and why. ``machine``: of a question about one."""

    plan: PlanView
    machine: Machine | None = None
    why: tuple[str, ...]
    needs: tuple[str, ...]
    at: AwareDatetime


class PlanCache:
    """A folder that several processes share.

    Nothing is trusted because it is there: a plan is hashed as it is handed out. What was used least lately
    goes when there is more than ``most_bytes``.
    """

    def __init__(self, folder: Path, most_bytes: int = MOST_BYTES) -> None:
        self._folder = folder
        self._most_bytes = most_bytes

    @cached_property
    def _root(self) -> Path:
        return private_folder(self._folder, "TRTFARM_HOME")

    @property
    def _plans(self) -> Path:
        return self._root / "sha256"

    @property
    def _answers(self) -> Path:
        return self._root / "answers"

    def fetch(
        self, farm: FarmClient, plan: PlanView, destination: Path, on_bytes: OnBytes | None = None
    ) -> bool:
        """Puts the plan at ``destination``, from here or from the farm; False if it lay there already.

        Two processes that want one plan download it once. A download that broke off goes on.

        Raises:
            BlobCorruptError: the farm sends other bytes; ``destination`` is as it was.
            LocalFileError: ``destination`` is no regular file.
        """
        target_of(destination)
        path = self._path(plan.digest)
        with self._locked(path):
            if not path.exists():
                farm.pull(plan, path, on_bytes)
                self._make_room(keep=path)
        try:
            return self.place(plan.digest, destination)
        except (BlobCorruptError, FileNotFoundError):  # damaged here, or pruned this moment
            with self._locked(path):
                farm.pull(plan, path, on_bytes)
                return place(path, plan.digest, destination)

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

    def remember(self, farm: str, question: Question, answer: Answer) -> None:
        """``farm``: the address of the one that answered."""
        self._answers.mkdir(parents=True, exist_ok=True)
        write(self._answer_to(farm, question), answer.model_dump_json().encode())

    def recall(self, farm: str, question: Question) -> Answer | None:
        """The last answer to that question, if its plan is still here.

        Raises:
            AnswerMismatchError: what is kept is not an answer to it.
        """
        try:
            answer = read(Answer, self._answer_to(farm, question).read_bytes())
        except (FileNotFoundError, ValidationError):
            return None
        if isinstance(question, Digest):
            asked.same("plan", question, answer.plan.digest)
        elif answer.machine is None:
            return None
        else:
            asked.fitting(question, answer.machine, answer.plan)
        return answer if self.has(answer.plan.digest) else None

    def _answer_to(self, farm: str, question: Question) -> Path:
        return self._answers / f"{_name(farm, question)}.json"

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


def _name(farm: str, question: Question) -> str:
    """One for the same question to the same farm."""
    document: Any = question
    if isinstance(question, ResolveRequest):
        document = question.model_dump(
            mode="json", exclude_unset=True, include={"model", "machine", "config", "profiles"}
        )
    return Digest.of_bytes(canonical_json({"farm": farm, "asked": document})).hex
