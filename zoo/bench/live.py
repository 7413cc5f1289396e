"""A run on the terminal: a bar with the time left, and the table, which fills in row by row. On stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from zoo.bench.columns import lines
from zoo.bench.record import Record
from zoo.bench.table import terminal


@dataclass(slots=True)
class Live:
    """What ``zoo.bench.run.bench`` calls with its progress; of nothing where stderr is no terminal."""

    bar: Any = None
    task: Any = None
    screen: Any = None

    def progress(self, what: str, done: int, total: int) -> None:
        """Files are made, accuracy is measured."""
        self._advance(what, done, total)

    def show(self, record: Record, done: int, total: int) -> None:
        """A round of a row is over."""
        self._advance("measuring", done, total)
        if self.screen:
            from rich.console import Group
            from rich.table import Table

            heads, rows, right = terminal(record, width=self.screen.console.width)
            table = Table(header_style="bold")
            for head in heads:
                table.add_column(head, justify="right" if head in right else "left", no_wrap=True)
            measured = [any(row["latency_ms"] for row in line.values()) for line in lines(record)]
            # What does not fit the screen comes with the whole table in the end.
            height = max(5, self.screen.console.height - 8)
            for cells in [cells for cells, told in zip(rows, measured, strict=True) if told][-height:]:
                table.add_row(*cells)
            self.screen.update(Group(table, self.bar))

    def note(self, text: str) -> None:
        """What is worth knowing, and stands in no row."""
        print(f"zoo: note: {text}", file=sys.stderr)

    def _advance(self, what: str, done: int, total: int) -> None:
        if self.bar:
            if self.bar.tasks[0].description != what and done == 0:
                self.bar.reset(self.task)  # the time left is of this kind of work alone
            self.bar.update(self.task, description=what, completed=done, total=total)


@contextmanager
def live() -> Iterator[Live]:
    """The display, for as long as the run takes."""
    if not sys.stderr.isatty():
        yield Live()
        return
    from rich.console import Console
    from rich.live import Live as Screen
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    elapsed, left = TimeElapsedColumn(), TimeRemainingColumn()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), elapsed, TextColumn("left"), left)
    bar = Progress(*columns)
    with Screen(bar, console=Console(stderr=True, markup=False, emoji=False), transient=True) as screen:
        yield Live(bar, bar.add_task("looking", total=None), screen)
