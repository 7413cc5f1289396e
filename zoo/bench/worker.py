"""One model in a process of its own: it loads, waits for turns, measures them, and says what it took.

``python -m zoo.bench.worker SPEC``. Between turns it sleeps: nothing of it runs while others are measured. It imports
what an app would: the runtime, numpy and onnxruntime.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from runtime.rest import rest
from zoo.bench.child import Answer, serve

_SETTLE_S = 0.02
"""Of each turn, not counted: threads wake up, and the caches held another model."""

_WARM_UP_S = 1.0  # at most, of the first turn
_STABLE = 0.05  # between the medians of two windows of runs: warm
_WINDOW = 5
_MOST_RUNS = 2000  # of a turn
_KEPT = 300  # of a turn's samples, evenly spaced


@dataclass(frozen=True, slots=True)
class Spec:
    """What a worker runs. threads: None for all usable cores."""

    file: str
    device: str = "cpu"
    batch: int = 1
    threads: int | None = None

    def to_json(self) -> str:
        """The argument of a worker."""
        return json.dumps(asdict(self))


class Runner:
    """A loaded model, its input, and one run of it: with all copies, and where it can be told apart, without."""

    def __init__(self, spec: Spec) -> None:
        from runtime.engines import ENGINES, engine_for, open_session

        start = time.perf_counter()
        self.session = open_session(spec.file, device=spec.device, threads=spec.threads)
        self.load_ms = 1000 * (time.perf_counter() - start)
        self.provider = ENGINES[engine_for(spec.device, None)].provider
        given = self.session.get_inputs()[0]
        self.shape = shape_of(given.shape, spec.batch)
        self.feed = {given.name: picture(self.shape, given.type)}
        self.bare = self.bound(given.name, spec.device) if spec.device != "cpu" else None
        self.warm = False
        start = time.perf_counter()
        self.run()
        self.first_ms = 1000 * (time.perf_counter() - start)

    def run(self) -> None:
        """From an array in memory to the scores in memory."""
        self.session.run(None, self.feed)

    def turn(self, seconds: float) -> Answer:
        """Samples of one turn, for what share of it threads waited for a core, and how much memory it ever took."""
        once = ready(self.run, warm=self.warm)
        start, before = time.perf_counter(), waits()
        samples = take(self.run, seconds, once)
        taken, after = time.perf_counter() - start, waits()
        bare = take(self.bare, seconds / 2, ready(self.bare, warm=self.warm)) if self.bare else None
        self.warm = True
        rest()  # the next turn is another process's
        waited = None if before is None or after is None else max(0.0, after - before) / taken
        return {"samples": samples, "waited": waited, "bare": bare, "memory": peak_memory()}

    def bound(self, name: str, device: str) -> Callable[[], None]:
        """A run whose input ``name`` lies on the device, and whose scores stay there."""
        from runtime.machine import load_onnxruntime

        ort, binding = load_onnxruntime(), self.session.io_binding()
        binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(self.feed[name], device, 0))
        for output in self.session.get_outputs():
            binding.bind_output(output.name, device)

        def bare() -> None:
            self.session.run_with_iobinding(binding)
            binding.synchronize_outputs()

        return bare


def shape_of(declared: list[Any], batch: int) -> tuple[int, ...]:
    """The input's shape for so many pictures. Raises InvalidInput where the file says otherwise."""
    from runtime.errors import InvalidInput

    first, *rest = declared
    if isinstance(first, int) and first != batch:
        raise InvalidInput(f"takes {first} pictures at a time, not {batch}: export it with --batch dynamic")
    if not rest or not all(isinstance(axis, int) and axis > 0 for axis in rest):
        raise InvalidInput(f"input of shape {declared}: has free axes: export it with --input-size")
    return batch, *rest


def picture(shape: tuple[int, ...], kind: str) -> Any:
    """Noise of an input's type: uint8 from 0 to 255, floats around 0 as normalised pictures are."""
    random = np.random.default_rng(0)
    if kind == "tensor(uint8)":
        return random.integers(0, 256, shape, dtype=np.uint8)
    return random.standard_normal(shape).astype(np.float16 if kind == "tensor(float16)" else np.float32)


def ready(run: Callable[[], None], *, warm: bool) -> float:
    """Run without counting until it is warm, or if it was before, until its threads are awake; one run's ms."""
    if not warm:
        return _settle(run)
    begin = time.perf_counter()
    while (once := _timed(run)) and time.perf_counter() - begin < _SETTLE_S:
        pass
    return once


def take(run: Callable[[], None], seconds: float, once_ms: float) -> list[float]:
    """Milliseconds of runs that together take about ``seconds``, at least one. once_ms: what one takes."""
    runs = int(min(_MOST_RUNS, max(1, seconds * 1000 / once_ms)))
    samples, end = [], time.perf_counter() + seconds
    for _ in range(runs):
        samples.append(_timed(run))
        if time.perf_counter() > end:
            break
    if len(samples) <= _KEPT:
        return samples
    return [samples[index] for index in np.linspace(0, len(samples) - 1, _KEPT).round().astype(int)]


def _settle(run: Callable[[], None]) -> float:
    """Run until two windows of runs agree; the median of the last."""
    end, taken = time.perf_counter() + _WARM_UP_S, [_timed(run)]
    while time.perf_counter() < end:
        taken.append(_timed(run))
        if len(taken) >= 2 * _WINDOW:
            before, after = np.median(taken[-2 * _WINDOW : -_WINDOW]), np.median(taken[-_WINDOW:])
            if abs(before - after) <= _STABLE * after:
                break
    return float(np.median(taken[-_WINDOW:]))


def _timed(run: Callable[[], None]) -> float:
    start = time.perf_counter()
    run()
    return 1000 * (time.perf_counter() - start)


def waits(tasks: Path = Path("/proc/self/task")) -> float | None:
    """Seconds that this process's threads were ready to run and had no core: others had it. None where nobody tells."""
    try:
        return sum(int((task / "schedstat").read_text().split()[1]) for task in tasks.iterdir()) / 1e9
    except (OSError, IndexError, ValueError):
        return None


def peak_memory() -> int | None:
    """Bytes of memory this process held at most, None where the system does not tell.

    Not ``ru_maxrss``: on Linux that begins with what the process that started this one held.
    """
    try:
        status = Path("/proc/self/status").read_text().splitlines()
        return next((1024 * int(line.split()[1]) for line in status if line.startswith("VmHWM")), None)
    except OSError:
        pass
    if sys.platform == "win32":
        return None
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most


def share_on(spec: Spec, provider: str) -> float:
    """The share of the kernels' time that this provider really ran, from onnxruntime's own profile."""
    from runtime.engines import open_session
    from runtime.profile import node_times

    given = open_session(spec.file, device=spec.device, threads=spec.threads).get_inputs()[0]
    pixels = picture(shape_of(given.shape, spec.batch), given.type)
    times = node_times(spec.file, pixels, device=spec.device, threads=spec.threads, runs=3)
    whole = sum(node.milliseconds for node in times)
    return sum(node.milliseconds for node in times if node.provider == provider) / whole if whole else 1.0


def main() -> int:
    """Serve one spec: {"turn": seconds}, or {"share": true}."""
    spec = Spec(**json.loads(sys.argv[1]))
    runner: list[Runner] = []

    def ready() -> Answer:
        runner.append(made := Runner(spec))
        rest()
        return {
            "load_ms": made.load_ms, "first_ms": made.first_ms, "provider": made.provider,
            "input": list(made.shape[1:]), "memory": peak_memory(),
        }  # fmt: skip

    def answer(asked: Answer) -> Answer:
        if "share" in asked:
            return {"share": share_on(spec, runner[0].provider)}
        return runner[0].turn(asked["turn"])

    return serve(answer, first=ready)


if __name__ == "__main__":
    sys.exit(main())
