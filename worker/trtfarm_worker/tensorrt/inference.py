"""trtexec's measuring loop, in Python.

One execution context has three CUDA streams and a queue of two inferences: the next is enqueued before
the last is waited for. Times are CUDA events against one start event; ``enqueue`` is host time.
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple

from trtfarm.contract.benchmark import BenchmarkOptions
from trtfarm.errors import TrtFarmError
from trtfarm_worker.tensorrt.buffers import Buffers
from trtfarm_worker.tensorrt.cuda import Cuda

_QUEUE_DEPTH = 2
_EVENTS = ("in_start", "in_end", "compute_start", "compute_end", "out_start", "out_end")


class Sample(NamedTuple):
    """One inference, milliseconds since the start event; ``enqueue``: its host time."""

    in_start: float
    in_end: float
    compute_start: float
    compute_end: float
    out_start: float
    out_end: float
    enqueue_start: float
    enqueue_end: float

    @property
    def h2d(self) -> float:
        return self.in_end - self.in_start

    @property
    def compute(self) -> float:
        return self.compute_end - self.compute_start

    @property
    def d2h(self) -> float:
        return self.out_end - self.out_start

    @property
    def latency(self) -> float:
        return self.h2d + self.compute + self.d2h


class EnqueueError(TrtFarmError):
    """TensorRT refused to run the engine; the job's log tells why."""

    code = "ENQUEUE_REFUSED"


class Lane:
    """One context with its streams, events and, if asked for, its CUDA graph."""

    def __init__(self, cuda: Cuda, context: Any, buffers: Buffers, options: BenchmarkOptions) -> None:
        self._cuda, self._context, self._buffers, self._options = cuda, context, buffers, options
        self._streams = [cuda("StreamCreateWithFlags", 1) for _ in range(3)]  # non-blocking
        flag = 0 if options.spin_wait else 1  # cudaEventDefault, cudaEventBlockingSync
        self._slots = [
            {name: cuda("EventCreateWithFlags", flag) for name in _EVENTS} for _ in range(_QUEUE_DEPTH)
        ]
        self._pending: list[tuple[float, float] | None] = [None] * _QUEUE_DEPTH
        self._turn = 0
        self._graph = self._capture() if options.cuda_graph else None
        self._compute = self._launcher()

    @property
    def stream(self) -> Any:
        return self._streams[1]

    def follow(self, start: Any) -> None:
        """Nothing of this lane runs before the start event."""
        for stream in self._streams:
            self._cuda("StreamWaitEvent", stream, start, 0)

    def turn(self, start: Any, zero: float) -> Sample | None:
        """Waits for the inference two turns ago, then enqueues the next."""
        slot = self._turn % _QUEUE_DEPTH
        self._turn += 1
        finished = self._collect(slot, start)
        self._enqueue(slot, zero)
        return finished

    def drain(self, start: Any) -> list[Sample]:
        """The inferences still under way, oldest first."""
        slots = [(self._turn + offset) % _QUEUE_DEPTH for offset in range(_QUEUE_DEPTH)]
        return [sample for slot in slots if (sample := self._collect(slot, start)) is not None]

    def close(self) -> None:
        for stream in self._streams:
            self._cuda("StreamSynchronize", stream)
        if self._graph is not None:
            self._cuda("GraphExecDestroy", self._graph)
        for events in self._slots:
            for event in events.values():
                self._cuda("EventDestroy", event)
        for stream in self._streams:
            self._cuda("StreamDestroy", stream)

    def _enqueue(self, slot: int, zero: float) -> None:
        cuda, events = self._cuda, self._slots[slot]
        into, compute, out = self._streams
        if self._options.transfers:
            cuda("EventRecord", events["in_start"], into)
            for device, host, size in self._buffers.inputs:
                cuda.copy_async(device, host, size, into)
            cuda("EventRecord", events["in_end"], into)
            cuda("StreamWaitEvent", compute, events["in_end"], 0)
        cuda("EventRecord", events["compute_start"], compute)
        before = time.perf_counter()
        self._compute()
        after = time.perf_counter()
        cuda("EventRecord", events["compute_end"], compute)
        if self._options.transfers:
            cuda("StreamWaitEvent", out, events["compute_end"], 0)
            cuda("EventRecord", events["out_start"], out)
            for device, host, size in self._buffers.outputs:
                cuda.copy_async(host, device, size, out)
            cuda("EventRecord", events["out_end"], out)
        self._pending[slot] = ((before - zero) * 1000, (after - zero) * 1000)

    def _collect(self, slot: int, start: Any) -> Sample | None:
        enqueue, self._pending[slot] = self._pending[slot], None
        if enqueue is None:
            return None
        cuda, events = self._cuda, self._slots[slot]
        last = "out_end" if self._options.transfers else "compute_end"
        cuda("EventSynchronize", events[last])
        begin = float(cuda("EventElapsedTime", start, events["compute_start"]))
        end = begin + float(cuda("EventElapsedTime", events["compute_start"], events["compute_end"]))
        if not self._options.transfers:
            return Sample(begin, begin, begin, end, end, end, *enqueue)
        at = {name: float(cuda("EventElapsedTime", start, events[name])) for name in _EVENTS}
        return Sample(at["in_start"], at["in_end"], begin, end, at["out_start"], at["out_end"], *enqueue)

    def _launcher(self) -> Any:
        stream = self._streams[1]
        if self._graph is not None:
            graph = self._graph
            return lambda: self._cuda("GraphLaunch", graph, stream)
        return self._execute

    def _execute(self) -> None:
        if not self._context.execute_async_v3(int(self.stream)):
            raise EnqueueError(
                hint="With several streams, TensorRT 8.6 needs --preview=+profileSharing0806 at build time."
            )

    def _capture(self) -> Any:
        cuda, stream = self._cuda, self._streams[1]
        self._execute()  # its allocations must not be captured
        cuda("StreamSynchronize", stream)
        cuda("StreamBeginCapture", stream, cuda.api.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal)
        self._execute()
        graph = cuda("StreamEndCapture", stream)
        executable = cuda("GraphInstantiate", graph, 0)
        cuda("GraphDestroy", graph)
        return executable


def measure(cuda: Cuda, lanes: list[Lane], options: BenchmarkOptions, on_warm: Any) -> list[Sample]:
    """Runs the lanes in turn until both the duration and the iterations are reached.

    Returns the samples after the warm-up, by start; ``on_warm()`` is called when that has passed.
    """
    start = cuda("EventCreateWithFlags", 0)
    zero = time.perf_counter()
    cuda("EventRecord", start, lanes[0].stream)
    for lane in lanes:
        lane.follow(start)
    samples: list[Sample] = []
    newest, kept, warm = 0.0, 0, False
    end = options.warm_up_ms + 1000 * options.duration_seconds
    while kept < options.iterations or newest < end:
        for lane in lanes:
            sample = lane.turn(start, zero)
            if sample is None:
                continue
            samples.append(sample)
            newest = sample.compute_start
            if newest >= options.warm_up_ms:
                kept += 1
                if not warm:
                    warm = True
                    on_warm()
    for lane in lanes:
        samples += lane.drain(start)
    cuda("EventDestroy", start)
    samples.sort(key=lambda sample: sample.in_start)
    first = next(i for i, sample in enumerate(samples) if sample.compute_start >= options.warm_up_ms)
    return samples[first:]
