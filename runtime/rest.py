"""Between two measurements: the threads of an inference spin on after it, on cores that the next one needs."""

from __future__ import annotations

import time

_LOOK_S = 0.004
_BUSY = 0.25
"""Of a core. A spinning thread takes all of one."""

MOST_S = 0.3


def rest(most_s: float = MOST_S) -> float:
    """Sleep until the threads of this process do; the seconds that took.

    onnxruntime's wait for work for 50 ms after a run before they sleep (1.31.1 on Linux, process time in steps of
    10 ms): whatever runs in that time, in this process or another, shares its cores with them.
    """
    begin = time.perf_counter()
    while (now := time.perf_counter()) - begin < most_s:
        used = time.process_time()
        time.sleep(_LOOK_S)
        if time.process_time() - used < _BUSY * (time.perf_counter() - now):
            break
    return time.perf_counter() - begin
