"""A whole run: the files, their accuracy, the rounds, and the record; interrupted, it goes on where it was."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import tempfile
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from runtime.errors import DeviceUnavailable, EdgeZooError, InvalidInput
from zoo.bench import measure as measuring
from zoo.bench.child import Child
from zoo.bench.files import File, Progress, floats, sha256, smaller
from zoo.bench.kept import Kept
from zoo.bench.machine import Watch, describe, load
from zoo.bench.measure import Group, Plan
from zoo.bench.record import SCHEMA, Record, Row
from zoo.bench.results import FLOAT, Line, row, with_ratios
from zoo.bench.rows import Subject, subjects
from zoo.bench.worker import Spec
from zoo.spec import Framework


@dataclass(frozen=True, slots=True)
class Options:
    """What to measure and how. Names, sources and quick: of ``rows.subjects``. weights: of ``files.floats``.

    threads: None for all usable cores. data: labelled pictures for accuracy and for int8; table: a CSV of labels.
    budget_s, rounds: of ``measure.Plan``. fresh: do not go on with an interrupted run.
    """

    names: Sequence[str] = ()
    precisions: Sequence[str] = (FLOAT,)
    devices: Sequence[str] = ("cpu",)
    batches: Sequence[int] = (1,)
    threads: int | None = None
    sources: Sequence[Framework] = ()
    quick: bool = False
    weights: str = "auto"
    data: Path | None = None
    table: Path | None = None
    budget_s: float = 6.0
    rounds: int = 4
    fresh: bool = False

    @property
    def plan(self) -> Plan:
        """How the rows are measured."""
        return Plan(self.budget_s, self.rounds, self.threads, patience=1 if self.quick else 2)


Show = Callable[[Record, int, int], None]
"""Called with the record so far, the rounds of rows that are done, and how many there are, as well as is known."""


def bench(
    options: Options, *, cache: Path | None, progress: Progress, show: Show, note: Callable[[str], None]
) -> Record:
    """Measure, and give the record. cache: where files and an interrupted run are kept; None for nowhere.

    Raises UnknownName or InvalidInput for what cannot be measured, and DeviceUnavailable for a device that cannot be
    used; a network that cannot be exported or run is a row with its problem.
    """
    from runtime.machine import usable_cores

    _check(options)
    before = load()  # making the files is work of our own
    found = subjects(options.names, sources=options.sources, quick=options.quick)
    with contextlib.ExitStack() as stack:
        folder = cache or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        threads = options.threads or usable_cores()
        lines = _lines(options, found, folder, threads, progress)
        kept = Kept(folder / f"unfinished-{_subject(options, lines)}.json", fresh=options.fresh)
        raws = kept.raws
        for line in lines:
            raws.setdefault(line.key, measuring.empty())
        images = 0
        if options.data is not None:
            lines, images = _measured(options, lines, kept, progress, note)
        watch = Watch([(device, name) for device in options.devices for name in options.precisions], threads)
        watch.load_before = before

        rows: dict[str, Row] = {}

        def record(finished: bool) -> Record:
            told = with_ratios([rows[line.key] for line in lines])
            reasons = watch.reasons(told)
            return {
                "schema": SCHEMA,
                "date": datetime.datetime.fromtimestamp(watch.started, datetime.UTC).isoformat(timespec="seconds"),
                "finished": finished,
                "machine": describe(watch),
                "settings": {
                    "threads": threads, "budget_s": options.budget_s, "rounds": options.rounds,
                    "data": options.data.name if options.data else None, "images": images or None,
                },
                "noise": {"noisy": bool(reasons), "reasons": reasons},
                "rows": told,
            }  # fmt: skip

        def fill(keys: Collection[str]) -> None:
            rows.update({line.key: row(line, raws[line.key], watch.peaks) for line in lines if line.key in keys})

        watch.probe()
        groups, done = _groups(lines), 0
        fill(raws.keys())
        show(record(False), 0, measuring.remaining(groups, raws, options.plan))
        for group in measuring.measure(groups, raws, options.plan, each_round=watch.probe):
            kept.save()
            fill(dict(group).keys())
            done += len(group)
            show(record(False), done, done + measuring.remaining(groups, raws, options.plan))
        fill(raws.keys())  # the last round may have found a higher peak
        kept.forget()
        return record(True)


def _check(options: Options) -> None:
    from runtime.engines import why_unavailable

    for device in options.devices:
        if reason := why_unavailable(device):
            raise DeviceUnavailable(f"device {device!r} cannot be used: {reason}; or leave it out (see `zoo doctor`)")
    if min(options.batches) < 1 or options.budget_s <= 0 or options.rounds < 1:
        raise InvalidInput("--batch, --budget and --rounds are numbers above 0")
    if options.threads is not None and options.threads < 1:
        raise InvalidInput(f"--threads {options.threads}: give 1 or more, or leave it out to use all usable cores")
    if options.data is not None and not options.data.exists():
        raise InvalidInput(f"{options.data}: no such file or folder")


def _lines(options: Options, found: Sequence[Subject], folder: Path, threads: int, progress: Progress) -> list[Line]:
    """Every row, with its file made."""
    whole = floats(found, folder, options.weights, progress)
    wanted = [
        (subject, device, batch, precision)
        for subject in found
        for device in options.devices
        for batch in options.batches
        # A file of the user's that is int8 has no float32 to offer.
        for precision in (options.precisions if whole[subject].precision == FLOAT else (whole[subject].precision,))
    ]
    made: dict[tuple[Subject, str, str], File] = {}
    lines = []
    with Child("zoo.bench.make") as maker:
        for number, (subject, device, batch, precision) in enumerate(wanted):
            file, key = whole[subject], (subject, precision, device)
            if precision != file.precision and key not in made:
                progress(f"{precision} of {subject.name}", number, len(wanted))
                # What untrained weights answer says nothing: no search for the ranges that keep it.
                data = options.data if file.weights != "none" else None
                made[key] = smaller(file, folder, precision, device, data, options.table, maker)
            lines.append(Line(subject, made.get(key, file), precision, device, batch, threads))
    return lines


def _groups(lines: Sequence[Line]) -> list[Group]:
    """Rows to measure side by side: the precisions of one network on one device, in one batch."""
    groups: dict[tuple[Any, ...], list[tuple[str, Spec]]] = {}
    for line in lines:
        if line.file.problem is None:
            spec = Spec(str(line.file.path), line.device, line.batch, line.threads)
            place = (line.subject, line.device, line.batch)
            groups.setdefault(place, []).append((line.key, spec))
    return list(groups.values())


def _measured(
    options: Options, lines: Sequence[Line], kept: Kept, progress: Progress, note: Callable[[str], None]
) -> tuple[list[Line], int]:
    """The lines with the accuracy of each file, and on how many pictures at most; what cannot be is a note."""
    from zoo.bench.accuracy import accuracy

    done: list[Line] = []
    for number, line in enumerate(lines):
        progress(f"accuracy of {line.subject.name} {line.precision}", number, len(lines))
        key = str(line.file.path)
        if line.file.problem is None and key not in kept.accuracies:
            try:
                kept.accuracies[key] = accuracy(
                    line.file, options.data, options.table, line.device, hold_out="int8" in options.precisions
                )
            except EdgeZooError as error:
                kept.accuracies[key] = None
                note(f"accuracy of {line.subject.name} ({line.precision}) not measured: {error}")
            kept.save()
        told = kept.accuracies.get(key)
        done.append(replace(line, accuracy=told and (told[0], told[1])))
    return done, int(max((told[2] for told in kept.accuracies.values() if told), default=0))


def _subject(options: Options, lines: Sequence[Line]) -> str:
    """Everything that samples depend on: a run goes on only with its own."""
    from runtime.machine import report

    machine = report()
    files = {line.key: sha256(line.file.path) if line.file.problem is None else "" for line in lines}
    told = [files, asdict(options.plan), str(options.data), machine.cpu, machine.cores_usable, machine.onnxruntimes]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]
