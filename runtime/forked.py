"""Life after ``os.fork()``: the threads of an engine stay behind, and a session waits for them for ever.

A child of a process that has models open must neither run nor destroy the sessions it inherits. So it keeps each of
them untouched to its end, and opens the file anew when it first runs it. What opens a session holds ``OPENING``: a
fork waits for it, so that no child inherits onnxruntime's own locks taken.
"""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

from runtime.errors import InferenceFailed

OPENING = threading.RLock()
"""Held while a session is opened."""

Run = Callable[..., Any]
Owner = TypeVar("Owner")

_OWNERS: weakref.WeakKeyDictionary[Any, list[Callable[[Any], object]]] = weakref.WeakKeyDictionary()


def guard(owner: Owner, reopen: Callable[[Owner], Run], name: str = "run") -> None:
    """Let a forked child open the file again on the first call of ``owner.run``, or of another attribute ``name``.

    What the attribute belongs to in the parent is never touched there.
    reopen: called with the owner, by one thread, once; gives the function that runs the file from then on, or raises
        (``cannot`` has the words). A plain function: a bound method would keep the owner alive.
    """

    def replace(owner: Owner) -> None:
        never_destroy(getattr(owner, name))
        setattr(owner, name, _first_run(owner, reopen, name))

    on_fork(owner, replace)


def on_fork(owner: Owner, function: Callable[[Owner], object]) -> None:
    """Call ``function(owner)`` in every child that is forked while the owner lives, before anything else runs there."""
    _OWNERS.setdefault(owner, []).append(function)


def release(owner: object) -> None:
    """The owner is closed: nothing is done about it in a child."""
    _OWNERS.pop(owner, None)


def never_destroy(thing: object) -> None:
    """Keep it to the end of the process, and past the end of Python, whose clean-up would wait for its threads.

    ``on_fork(session, never_destroy)`` is what every session needs that can be dropped in a child.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def cannot(what: str) -> InferenceFailed:
    """For an engine whose device does not come along into a forked process."""
    return InferenceFailed(
        f"{what}: was opened before this process was forked, which its device does not survive: open it in the child, "
        'or start processes with multiprocessing.get_context("spawn")'
    )


def _first_run(owner: Owner, reopen: Callable[[Owner], Run], name: str) -> Run:
    lock = threading.Lock()
    opened: list[Run] = []

    def run(*args: Any, **options: Any) -> Any:
        with lock:
            if not opened:
                opened.append(reopen(owner))
                if owner in _OWNERS:  # else closed meanwhile
                    setattr(owner, name, opened[0])
        return opened[0](*args, **options)

    return run


def _in_child() -> None:
    OPENING._at_fork_reinit()  # type: ignore[attr-defined]  # no other thread held it: the fork waited for that
    for owner, functions in list(_OWNERS.items()):
        for function in functions:
            function(owner)


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(before=OPENING.acquire, after_in_parent=OPENING.release, after_in_child=_in_child)
