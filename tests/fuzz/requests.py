"""Requests made from /openapi.json, right and wrong ones, to a farm that is served, by a key of every scope.

Nothing but a 5xx and an answer that does not come is a fault: what the farm answers is other tests' affair.
"""

from __future__ import annotations

import contextlib
import logging
import random
import tempfile
import time
import warnings
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import requests
import schemathesis
from hypothesis import HealthCheck, Phase
from schemathesis import Case, GenerationMode

from tests.integration.api.world import World, client, open_farm, serving
from trtfarm.contract.jobs import Scope
from trtfarm.inspection.pool import InspectionPool
from trtfarm_db import schema
from trtfarm_db.repositories.keys import KeyRepository

ANSWER_SECONDS = 60.0
_UPLOAD_BYTES = 1 << 20  # what is announced must fit on the disk: 507 is a true answer
_KNOWN = 0.5  # how often a part of an address is one that the farm knows
_EXAMPLES = 12  # of one operation, before the next one's turn
# Parts of addresses and documents that name something; and what an answer's own name stands for.
_LEARNT = {
    "job_id",
    "upload_id",
    "digest",
    "model",
    "name",
    "campaign",
    "order",
    "key",
    "revision",
    "reference",
}
_ALSO = {
    "name": ("name", "campaign", "order", "reference"),
    "model": ("model", "digest"),
    "plan": ("digest",),
}


class Requests:
    """``counts``: of answers, by the hundred, and of faults."""

    def __init__(self, world: World, keys: dict[str, str | None], seed: int) -> None:
        self.counts: Counter[str] = Counter()
        self.faults: list[str] = []
        self._world = world
        self._keys = keys
        self._random = random.Random(seed)
        self._seed = seed
        self._known: dict[str, list[Any]] = defaultdict(list)
        for name, values in _something_of_everything(world).items():
            self._known[name] += values
        self._session = requests.Session()
        self._session.trust_env = False

    def run(self, seconds: float, limit: int, only: str = "") -> None:
        """``only``: operations whose address contains this."""
        found = schemathesis.openapi.from_dict(self._world.get("/openapi.json")).get_all_operations()
        operations = [each for each in (result.ok() for result in found) if only in each.path]
        end, turn = time.monotonic() + seconds, 0
        while time.monotonic() < end and self.counts["requests"] < limit:
            for operation in operations:
                for name, key in self._keys.items():
                    mode = GenerationMode.NEGATIVE if turn % 2 else GenerationMode.POSITIVE
                    if time.monotonic() > end or self.counts["requests"] >= limit:
                        return
                    self._some(operation, mode, name, key, turn)
            turn += 1

    def _some(self, operation: Any, mode: GenerationMode, name: str, key: str | None, turn: int) -> None:
        @hypothesis.seed(zlib.crc32(f"{self._seed} {operation.label} {name} {turn}".encode()))
        @hypothesis.settings(
            max_examples=_EXAMPLES,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
        def send(case: Case) -> None:
            self._send(case, name, key)

        with contextlib.suppress(hypothesis.errors.Unsatisfiable, schemathesis.errors.SchemathesisError):
            send()  # there is nothing wrong that one could say, where nothing can be said

    def _send(self, case: Case, name: str, key: str | None) -> None:
        for parts in (case.path_parameters, case.query, case.body):
            if isinstance(parts, dict):
                self._name_what_is_there(parts)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        arguments = case.as_transport_kwargs(base_url=self._world.url, headers=headers)
        what = f"{name}: {arguments['method']} {arguments['url']}"
        try:
            with self._session.request(**arguments, stream=True, timeout=ANSWER_SECONDS) as answer:
                self.counts[f"{answer.status_code // 100}xx"] += 1
                if answer.status_code >= 500:
                    self.counts["faults"] += 1
                    self.faults.append(f"{what}: {answer.status_code} {answer.text[:300]}")
                elif answer.headers.get("content-type", "").startswith("text/event-stream"):
                    next(answer.iter_content(1), None)  # it has no end
                else:
                    self._learn(answer)
        except requests.exceptions.InvalidHeader:
            return  # it was not sent
        except (requests.exceptions.RequestException, UnicodeError) as error:
            if not isinstance(error, requests.exceptions.ConnectionError | requests.exceptions.Timeout):
                return
            self.counts["faults"] += 1
            self.faults.append(f"{what}: {type(error).__name__} {error}"[:500])
        self.counts["requests"] += 1

    def _name_what_is_there(self, parts: dict[str, Any]) -> None:
        for name in parts:
            if self._known[name] and self._random.random() < _KNOWN:
                parts[name] = self._random.choice(self._known[name])

    def _learn(self, answer: requests.Response) -> None:
        """What an answer names is there to be asked for."""
        if not answer.headers.get("content-type", "").startswith("application/json"):
            return
        document = answer.json()
        for each in [document, *(value for value in document.values() if isinstance(value, dict))]:
            for name, value in each.items():
                for known in _ALSO.get(name, (name,)) if isinstance(value, str) else ():
                    if known in _LEARNT and value not in self._known[known]:
                        self._known[known] = [*self._known[known][-30:], value]


def _something_of_everything(world: World) -> dict[str, list[Any]]:
    """What addresses may name: by the names of their parts."""
    built = world.built(b"plan" * 100)
    job = world.job()
    upload = world.announce(b"not sent").json()["upload_id"]
    model = job["model"]
    named = world.http.put("/v1/names/net:v1", json={"model": model})
    return {
        "job_id": [job["job_id"], built.job["job_id"]],
        "upload_id": [upload],
        "digest": [str(built.digest), model],
        "model": [model, "net:v1"] if named.is_success else [model],
        "reference": ["net:v1"],
        "name": ["net"],
        "target": [{"gpu": "cc-8.9"}],
    }


@contextlib.contextmanager
def farm(folder: Path) -> Iterator[tuple[World, dict[str, str | None]]]:
    """A farm that asks for keys, on SQLite, with one key of each scope."""
    with InspectionPool(processes=2) as pool:
        made = open_farm(
            f"sqlite:///{folder / 'farm.db'}", folder, pool, require_keys=True, max_upload_bytes=_UPLOAD_BYTES
        )
        try:
            schema.upgrade(made.database)
            keys: dict[str, str | None] = {"nobody": None}
            with made.database.transaction() as connection:
                for scope in Scope:
                    _, keys[scope.value] = KeyRepository(connection).create(scope.value, scope)
            with serving(made) as url, client(url, keys["admin"]) as http:
                world = World(made, url, http)
                world.register_workers()
                yield world, keys
        finally:
            made.database.close()


def fuzz(seed: int, seconds: float, limit: int) -> tuple[Counter[str], list[str]]:
    """Counts, and what went wrong."""
    logging.getLogger("schemathesis").setLevel(logging.ERROR)
    with (
        tempfile.TemporaryDirectory(prefix="trtfarm-fuzz-") as folder,
        farm(Path(folder)) as (world, keys),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        asking = Requests(world, keys, seed)
        asking.run(seconds, limit)
        asking.counts["alive"] = world.http.get("/readyz").status_code == 200
        return asking.counts, asking.faults
