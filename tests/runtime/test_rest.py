"""Resting ends when the threads of the process have gone to sleep, and not before."""

import threading
import time

from runtime.rest import rest


def test_it_waits_for_a_busy_thread_and_no_longer() -> None:
    end = time.perf_counter() + 0.06

    def spin() -> None:
        while time.perf_counter() < end:
            pass

    thread = threading.Thread(target=spin)
    thread.start()
    rest(5.0)
    assert time.perf_counter() >= end  # whatever else the machine does, the thread was busy until then
    thread.join()


def test_it_gives_up() -> None:
    stop = threading.Event()

    def spin() -> None:
        while not stop.is_set():
            pass

    thread = threading.Thread(target=spin)
    thread.start()
    assert rest(0.05) >= 0.05
    stop.set()
    thread.join()
