"""What people see: tables on stdout, progress on stderr, frameworks kept quiet."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

if TYPE_CHECKING:
    from rich.console import Console

Item = TypeVar("Item")


def print_json(data: Any) -> None:
    """One JSON document on stdout."""
    print(json.dumps(data, indent=2, ensure_ascii=False))


def print_table(title: str | None, columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: set[str]) -> None:
    """A table on stdout under its title; the columns in ``right`` are aligned to the right, as numbers are."""
    from rich.console import Console
    from rich.table import Table

    table = Table(header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    if title:
        print(title)  # not as rich's title, which is wrapped to the width of the table
    # A file or a pipe has no width: let no column be cut there.
    Console(width=None if sys.stdout.isatty() else 160, markup=False, emoji=False).print(table)


def track(items: Iterable[Item], *, what: str, total: int) -> Iterator[Item]:
    """The items, with a progress bar on stderr when that is a terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=_stderr(), transient=True, disable=not sys.stderr.isatty()) as progress:
        yield from progress.track(items, total=total, description=what)


@contextmanager
def steps(names: Sequence[str], *, what: str, verbose: bool) -> Iterator[Callable[[str], None]]:
    """A function to call with each step as it begins, shown as progress on stderr.

    Meanwhile whatever frameworks write, from Python or C++, goes nowhere unless ``verbose``.
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    with _quiet(verbose) as stream:
        columns = (TextColumn(what), BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        hidden = verbose or not stream.isatty()
        with Progress(*columns, console=_stderr(stream), transient=True, disable=hidden) as progress:
            task = progress.add_task("start", total=len(names))

            def begin(name: str) -> None:
                progress.update(task, description=name, completed=list(names).index(name))

            yield begin


@contextmanager
def advance(*, verbose: bool) -> Iterator[Callable[[str, int, int], None]]:
    """A function to call with what is being done, how much of it is done and how much there is: a bar on stderr."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    with _quiet(verbose) as stream:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        hidden = verbose or not stream.isatty()
        with Progress(*columns, console=_stderr(stream), transient=True, disable=hidden) as progress:
            task = progress.add_task("start", total=None)
            yield lambda what, done, total: progress.update(task, description=what, completed=done, total=total)


@contextmanager
def _quiet(verbose: bool) -> Iterator[TextIO]:
    """Point stdout and stderr, as file descriptors, at a scratch file; gives the real stderr.

    When verbose both show on stderr: even then stdout is for data alone.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    try:
        with tempfile.TemporaryFile() as scratch, os.fdopen(os.dup(kept[1]), "w", buffering=1) as stream:
            sink = kept[1] if verbose else scratch.fileno()
            os.dup2(sink, 1)
            os.dup2(sink, 2)
            # A notebook's or a test's own sys.stderr does not write to descriptor 2.
            with os.fdopen(os.dup(sink), "w", buffering=1) as text, redirect_stdout(text), redirect_stderr(text):
                yield stream
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, copy in zip((1, 2), kept, strict=True):
            os.dup2(copy, number)
            os.close(copy)


def _stderr(stream: TextIO | None = None) -> Console:
    from rich.console import Console

    return Console(file=stream, stderr=stream is None, markup=False, emoji=False)
