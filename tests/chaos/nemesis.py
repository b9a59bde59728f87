"""Does the faults that were planned, each at its time, and heals what it has broken."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from redis import Redis
from redis.exceptions import RedisError

from tests.acceptance.farms import RedisProcess
from tests.acceptance.processes import tensorrt_children
from tests.chaos.farm import ChaosFarm, Gpu
from tests.chaos.parts import Part, eventually
from tests.chaos.plan import Fault, PlannedFault
from tests.chaos.proxy import Mode, Proxy
from tests.chaos.servers import Postgres
from trtfarm.ring import LOOK_TASK, celery_app

_AT_ONCE = 8  # faults may overlap
_VICTIM_SECONDS = 10.0  # how long to look for one
_RESTART_SECONDS = 5.0
_MESSAGES = 20
CHILD = "tests.chaos.child"


@dataclass
class Servers:
    postgres: Postgres
    postgres_proxy: Proxy
    redis: RedisProcess
    redis_proxy: Proxy
    queues: Sequence[str]


class Nemesis:
    """``done``: fault → how often it was done; ``missed``: there was no victim for it."""

    def __init__(
        self,
        farm: ChaosFarm,
        servers: Servers | None,
        apis: Sequence[Part],
        workers: Sequence[Part],
        gpus: Sequence[Gpu] = (),
    ) -> None:
        self._farm, self._servers, self._apis, self._workers, self._gpus = farm, servers, apis, workers, gpus
        self.done: Counter[Fault] = Counter()
        self.missed: Counter[Fault] = Counter()
        self.errors: list[str] = []
        self._lock = threading.Lock()
        self._one_at_a_time = {"postgres": threading.Lock(), "redis": threading.Lock()}
        self._stopped = threading.Event()

    def run(self, planned: Sequence[PlannedFault]) -> None:
        """Blocks until all were done, or ``stop``."""
        began_at = time.monotonic()
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for each in planned:
                if self._stopped.wait(max(0.0, began_at + each.at_seconds - time.monotonic())):
                    break
                pool.submit(self._do, each)

    def stop(self) -> None:
        self._stopped.set()

    def heal(self) -> None:
        """What had no victim yet gets none, and what was hit last gets the time to start again."""
        if self._servers is not None:
            self._servers.postgres_proxy.cuts = 0
        self._stopped.wait(_RESTART_SECONDS)

    def _do(self, planned: PlannedFault) -> None:
        try:
            did = self._how(planned)(planned)
        except Exception as error:
            self.errors.append(f"{planned.fault}: {error!r}")
            return
        with self._lock:
            (self.done if did else self.missed)[planned.fault] += 1

    def _how(self, planned: PlannedFault) -> Callable[[PlannedFault], bool]:
        return {
            Fault.KILL_CHILD: self._kill_child,
            Fault.PAUSE_CHILD: self._pause_child,
            Fault.KILL_WORKER: lambda each: self._signal(self._workers, each, signal.SIGKILL),
            Fault.TERM_WORKER: lambda each: self._signal(self._workers, each, signal.SIGTERM),
            Fault.KILL_API: lambda each: self._signal(self._apis, each, signal.SIGKILL),
            Fault.KILL_FARM: lambda each: self._signal(self._apis, each, signal.SIGKILL),
            Fault.PAUSE_WORKER: lambda each: self._pause(self._workers, each),
            Fault.PAUSE_FARM: lambda each: self._pause(self._apis, each),
            Fault.RIVAL: self._rival,
            Fault.REDIS_FLUSH: self._redis_flush,
            Fault.REDIS_RESTART: self._redis_restart,
            Fault.REDIS_BLACK_HOLE: lambda each: self._network("redis", Mode.BLACK_HOLE, each),
            Fault.REDIS_RESET: lambda each: self._network("redis", Mode.RESET, each),
            Fault.RINGS: self._rings,
            Fault.POSTGRES_STOP: self._postgres_stop,
            Fault.POSTGRES_RESET: lambda each: self._network("postgres", Mode.RESET, each),
            Fault.POSTGRES_BLACK_HOLE: lambda each: self._network("postgres", Mode.BLACK_HOLE, each),
            Fault.POSTGRES_SLOW: self._postgres_slow,
            Fault.CUT_COMMIT: self._cut_commit,
        }[planned.fault]

    # --- processes ---

    def _signal(self, parts: Sequence[Part], planned: PlannedFault, number: signal.Signals) -> bool:
        part = parts[planned.victim % len(parts)]
        return eventually(lambda: part.signal(number), _VICTIM_SECONDS)

    def _pause(self, parts: Sequence[Part], planned: PlannedFault) -> bool:
        part = parts[planned.victim % len(parts)]
        if not eventually(lambda: part.signal(signal.SIGSTOP), _VICTIM_SECONDS):
            return False
        self._stopped.wait(planned.seconds)
        part.signal(signal.SIGCONT)
        return True

    def _children(self) -> list[int]:
        pids = [part.pid for part in (self._workers or self._apis)]
        return [child for pid in pids if pid for child in tensorrt_children(pid, CHILD)]

    def _kill_child(self, planned: PlannedFault) -> bool:
        def killed() -> bool:
            children = self._children()
            with contextlib.suppress(ProcessLookupError):
                if children:
                    os.kill(children[planned.victim % len(children)], signal.SIGKILL)
                    return True
            return False

        return eventually(killed, _VICTIM_SECONDS)

    def _pause_child(self, planned: PlannedFault) -> bool:
        children = self._children()
        if not children:
            return False
        child = children[planned.victim % len(children)]
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGSTOP)
            self._stopped.wait(planned.seconds)
            os.kill(child, signal.SIGCONT)
            return True
        return False

    def _rival(self, planned: PlannedFault) -> bool:
        gpu = self._gpus[planned.victim % len(self._gpus)]
        rival = self._farm.worker(f"rival-{planned.victim}", gpu)
        rival.start()
        self._stopped.wait(planned.seconds)
        rival.stop()
        return True

    # --- servers ---

    @property
    def _there(self) -> Servers:
        assert self._servers is not None
        return self._servers

    def _network(self, which: str, mode: Mode, planned: PlannedFault) -> bool:
        proxy = self._there.redis_proxy if which == "redis" else self._there.postgres_proxy
        with self._one_at_a_time[which], proxy.being(mode):
            self._stopped.wait(planned.seconds)
        return True

    def _redis_flush(self, _: PlannedFault) -> bool:
        try:
            self._there.redis.flush()
        except RedisError:
            return False  # it is down
        return True

    def _redis_restart(self, planned: PlannedFault) -> bool:
        with self._one_at_a_time["redis"]:
            self._there.redis.stop()
            self._stopped.wait(planned.seconds)
            self._there.redis.start()
        return True

    def _rings(self, planned: PlannedFault) -> bool:
        """Rings that nobody asked for, many times, and those that wait in another order."""
        draw = random.Random(planned.victim)
        app = celery_app(self._there.redis.url)
        try:
            for queue in draw.choices(self._there.queues, k=_MESSAGES):
                app.send_task(LOOK_TASK, queue=queue, ignore_result=True, retry=False)
            with Redis.from_url(self._there.redis.url) as client:
                for queue in self._there.queues:
                    key = f"trtfarm:{queue}"
                    messages = client.lrange(key, 0, -1)
                    if messages:
                        twice = [*messages, *messages][: 10 * _MESSAGES]
                        draw.shuffle(twice)
                        client.delete(key)
                        client.rpush(key, *twice)
        except Exception:  # Celery's own, of a Redis that is down
            return False
        finally:
            app.close()
        return True

    def _postgres_stop(self, planned: PlannedFault) -> bool:
        with self._one_at_a_time["postgres"]:
            self._there.postgres.stop_at_once()
            self._stopped.wait(planned.seconds)
            self._there.postgres.start()
        return True

    def _postgres_slow(self, planned: PlannedFault) -> bool:
        with self._one_at_a_time["postgres"]:
            self._there.postgres_proxy.latency_seconds = 0.1
            self._stopped.wait(planned.seconds)
            self._there.postgres_proxy.latency_seconds = 0
        return True

    def _cut_commit(self, _: PlannedFault) -> bool:
        proxy, before = self._there.postgres_proxy, self._there.postgres_proxy.cut
        proxy.cuts += 1
        return eventually(lambda: proxy.cut > before, _VICTIM_SECONDS)
