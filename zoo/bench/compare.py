"""Two records of `zoo bench`: what got slower, bigger or less accurate than noise explains, for people and for CI."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

from runtime.errors import InvalidInput
from zoo.bench.record import Record, Row, identity

MARGIN = 0.05
"""A median may change by this much for reasons that its interval does not know: another build, another hour."""

_WIDER = 2  # times the margin in a noisy run, and again where a row was not settled
_FILE, _MEMORY = 0.01, 0.10  # growth of a file and of the peak of memory that is none yet
_SHARE = 0.01  # of a network that may move to another provider
_POINTS, _PICTURES = 0.1, 2  # accuracy that may be lost: points, and pictures that may fall to the other side

_NEEDED = frozenset(
    "name source precision device batch threads input bytes parameters top1 top5 accuracy latency_ms ratio_to_fp32 "
    "peak_memory_mib device_memory_mib provider provider_share weights problem".split()
)
_MACHINE: dict[str, tuple[str, ...]] = {
    "cpu": ("cpu", "architecture", "cores_usable"),
    "cuda": ("gpu", "cpu", "architecture", "cores_usable"),
}
"""What must be the same for the times of a device to be compared."""
_CONDITIONS = ("platform", "affinity", "governor", "gpu", "gpu_driver")

Kind = Literal[
    "slower", "faster", "slower beside fp32", "faster beside fp32", "file", "memory", "device memory", "parameters",
    "top-1", "top-5", "provider", "input", "weights", "gone", "problem", "mended", "new",
]  # fmt: skip
COLUMNS = ("", "model", "source", "precision", "device", "batch", "threads", "what", "old", "new", "change", "because")


@dataclass(frozen=True, slots=True)
class Change:
    """One figure of one row that is no longer what it was. old, new: as shown. change: of new over old, less one.

    worse: whether it is a regression. because: why it counts, or what has to be known of it.
    """

    name: str
    source: str
    precision: str
    device: str
    batch: int
    threads: int
    what: Kind
    old: str
    new: str
    change: float | None
    worse: bool
    because: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """conditions: what differs between the runs, to be said first. drift: median of new over old of all times, by
    device, where those can be compared at all. matched: rows in both. changes: regressions first.
    """

    conditions: tuple[str, ...]
    drift: dict[str, float]
    matched: int
    margin: float
    changes: tuple[Change, ...]

    @property
    def exit_code(self) -> int:
        """1 if anything got worse, 0 otherwise."""
        return int(any(change.worse for change in self.changes))


def compare(old: Record, new: Record, *, margin: float = MARGIN, subset: bool = False) -> Comparison:
    """What changed from the old record to the new one, by rows of one name, source, precision, device, batch, threads.

    margin: part of the median that a time may change by; wider where a run was noisy or a row not settled. A time
    has changed when it did by more and the intervals of the medians do not touch. Times of another machine are not
    compared, the ratios to fp32 are then. subset: the new record was not asked for every row, none is missed.

    Raises InvalidInput for a negative margin, and for a record whose rows lack a part.
    """
    if not margin >= 0:
        raise InvalidInput(f"the margin must be 0 or more, not {margin}")
    for row in (*old["rows"], *new["rows"]):
        if missing := sorted(_NEEDED - row.keys()):
            raise InvalidInput(f"a row of a record has no {missing[0]}: measure again")
    before, after = ({identity(row): row for row in record["rows"]} for record in (old, new))
    shared = [key for key in before if key in after]
    comparable = {device: _same_machine(old, new, device) for device in {key[3] for key in shared}}
    noisy = any(record["noise"].get("noisy") for record in (old, new))
    images = min((record["settings"].get("images") or 0 for record in (old, new)), default=0)
    same_pictures = _pictures(old) == _pictures(new)
    changes: list[Change] = []
    for key in shared:
        a, b = before[key], after[key]
        changes += _state(a, b)
        if a["input"] != b["input"] or a["problem"] or b["problem"]:
            continue
        changes += _times(a, b, margin, noisy=noisy, of="latency_ms" if comparable[key[3]] else "ratio_to_fp32")
        changes += _sizes(a, b, memory=comparable[key[3]])
        changes += _accuracies(a, b, images) if same_pictures else []
    if not subset:
        changes += [
            _change(before[key], "gone", ("measured", ""), None, True, "no such row in the new record")
            for key in before
            if key not in after and not before[key]["problem"]
        ]
    changes += [_change(after[key], "new", ("", "measured"), None, False, "") for key in after if key not in before]
    return Comparison(
        conditions=tuple(_conditions(old, new, comparable)),
        drift=_drift([(before[key], after[key]) for key in shared if comparable[key[3]]]),
        matched=len(shared),
        margin=margin,
        changes=tuple(sorted(changes, key=lambda change: not change.worse)),
    )


def told(found: Comparison) -> list[str]:
    """The comparison in sentences: what differs between the runs first, the verdict last."""
    lines = list(found.conditions)
    for device, drift in found.drift.items():
        lines.append(f"{device}: all rows together take {drift:.3f} of the old time (median of the rows)")
        if abs(drift - 1) > found.margin:
            lines.append(f"{device}: that is more than the margin: the machine itself, or a version, rather than a row")
    lines.append(
        f"a time has changed where the intervals of the medians do not touch and the medians are more than "
        f"{100 * found.margin:g} % apart, {_WIDER} times that in a noisy run and again in a row that was not settled"
    )
    worse = sum(change.worse for change in found.changes)
    lines.append(f"{found.matched} rows in both records, {worse} regression{'' if worse == 1 else 's'}")
    return lines


def cells(found: Comparison) -> list[tuple[str, ...]]:
    """The changes as text, for COLUMNS."""
    return [
        (
            "worse" if each.worse else "", each.name, each.source, each.precision, each.device, str(each.batch),
            str(each.threads), each.what, each.old, each.new,
            "" if each.change is None else f"{100 * each.change:+.1f} %", each.because,
        )
        for each in found.changes
    ]  # fmt: skip


# ---- the runs


def _same_machine(old: Record, new: Record, device: str) -> bool:
    keys = _MACHINE.get(device, _MACHINE["cuda"])
    return all(old["machine"].get(key) == new["machine"].get(key) for key in keys)


def _pictures(record: Record) -> tuple[Any, Any]:
    return record["settings"].get("data"), record["settings"].get("images")


def _conditions(old: Record, new: Record, comparable: dict[str, bool]) -> list[str]:
    """What differs between the runs."""
    machines, lines = (old["machine"], new["machine"]), []
    others = [device for device, same in comparable.items() if not same]
    for key in dict.fromkeys((*_MACHINE["cpu"], *_CONDITIONS)):
        a, b = (machine.get(key) for machine in machines)
        if a != b:
            lines.append(f"{key}: {a} then, {b} now")
    if others:
        lines.append(
            f"another machine: times and memory of {' and '.join(sorted(others))} rows are not compared, only sizes, "
            "accuracies and the ratios to fp32"
        )
    a, b = (record["settings"].get("threads") for record in (old, new))
    lines += [f"threads: {a} then, {b} now: rows are compared at the same number only"] if a != b else []
    a, b = (machine.get("versions") or {} for machine in machines)
    lines += [f"{name}: {a.get(name)} then, {b.get(name)} now" for name in {**a, **b} if a.get(name) != b.get(name)]
    if _pictures(old) != _pictures(new):
        lines.append("other pictures: accuracies are not compared")
    lines += [
        f"the {when} run was noisy ({'; '.join(record['noise'].get('reasons') or ['no reason given'])})"
        for when, record in (("old", old), ("new", new))
        if record["noise"].get("noisy")
    ]
    lines += [
        f"the {when} record is unfinished"
        for when, record in (("old", old), ("new", new))
        if not record.get("finished")
    ]
    return lines


def _drift(pairs: Sequence[tuple[Row, Row]]) -> dict[str, float]:
    """By device, the median of new over old of all rows that were timed in both."""
    ratios: dict[str, list[float]] = {}
    for a, b in pairs:
        if a["latency_ms"] and b["latency_ms"]:
            ratios.setdefault(a["device"], []).append(b["latency_ms"]["median"] / a["latency_ms"]["median"])
    return {device: median(values) for device, values in ratios.items()}


# ---- one row


def _change(row: Row, what: Kind, shown: tuple[str, str], change: float | None, worse: bool, because: str) -> Change:
    return Change(*identity(row), what, *shown, change, worse, because)


def _both(a: Row, b: Row, show: Callable[[Row], str]) -> tuple[str, str]:
    return show(a), show(b)


def _state(a: Row, b: Row) -> list[Change]:
    """Whether it still runs, where, and on what."""
    found = []
    if b["problem"] and not a["problem"]:
        found.append(_change(b, "problem", ("measured", ""), None, True, str(b["problem"])))
    elif a["problem"] and not b["problem"]:
        found.append(_change(b, "mended", ("", "measured"), None, False, str(a["problem"])))
    elif not a["problem"] and a["provider"] != b["provider"]:
        found.append(_change(b, "provider", (a["provider"], b["provider"]), None, True, "another one runs it"))
    elif None not in (a["provider_share"], b["provider_share"]) and b["provider_share"] < a["provider_share"] - _SHARE:
        shares = _both(a, b, lambda row: f"{100 * row['provider_share']:.0f} %")
        found.append(_change(b, "provider", shares, None, True, f"{b['provider']} runs less of it"))
    if a["input"] != b["input"]:
        sizes = _both(a, b, lambda row: "x".join(map(str, row["input"])))
        found.append(_change(b, "input", sizes, None, False, "another input: nothing else is compared"))
    if a["weights"] != b["weights"]:
        found.append(_change(b, "weights", _both(a, b, lambda row: str(row["weights"])), None, False, "other weights"))
    return found


def _times(a: Row, b: Row, margin: float, *, noisy: bool, of: str) -> list[Change]:
    """Whether the interval of the time, or of the ratio to fp32, moved away from the old, and by more than the margin.

    of: the key of the figure.
    """
    old, new = a[of], b[of]
    if not old or not new:
        return []
    settled = all((row["latency_ms"] or {}).get("settled", True) for row in (a, b))
    wider = margin * (_WIDER if noisy else 1) * (1 if settled else _WIDER)
    kinds: tuple[Kind, Kind] = ("slower", "faster")
    if of == "ratio_to_fp32":
        kinds = ("slower beside fp32", "faster beside fp32")
    unit = " ms" if of == "latency_ms" else ""
    apart = new["low"] > old["high"] or new["high"] < old["low"]
    change = new["median"] / old["median"] - 1
    if not apart or abs(change) <= wider:
        return []
    reasons = ["intervals apart", *(["noisy run"] if noisy else []), *([] if settled else ["not settled"])]
    texts = _both(old, new, lambda each: f"{each['median']:.3g} ({each['low']:.3g} to {each['high']:.3g}){unit}")
    because = f"{', '.join(reasons)}: beyond {100 * wider:g} %"
    return [_change(b, kinds[0] if change > 0 else kinds[1], texts, change, change > 0, because)]


def _sizes(a: Row, b: Row, *, memory: bool) -> list[Change]:
    found = []
    figures: list[tuple[Kind, str, float, str]] = [("file", "bytes", _FILE, ""), ("parameters", "parameters", 0, "")]
    if memory:
        figures += [
            ("memory", "peak_memory_mib", _MEMORY, " MiB"),
            ("device memory", "device_memory_mib", _MEMORY, " MiB"),
        ]
    for what, key, allowed, unit in figures:
        if a[key] and b[key] and abs(b[key] / a[key] - 1) > allowed:
            texts, change = (f"{a[key]:,.0f}{unit}", f"{b[key]:,.0f}{unit}"), b[key] / a[key] - 1
            found.append(_change(b, what, texts, change, change > 0, f"beyond {100 * allowed:g} %"))
    return found


def _accuracies(a: Row, b: Row, images: int) -> list[Change]:
    """Measured ones, on the same pictures."""
    allowed = max(_POINTS, 100 * _PICTURES / images if images else 0)
    pairs: list[tuple[Kind, Any, Any]] = [("top-1", a["top1"], b["top1"]), ("top-5", a["top5"], b["top5"])]
    return [
        _change(b, what, (f"{was:.2f} %", f"{now:.2f} %"), None, now < was, f"beyond {allowed:g} points")
        for what, was, now in pairs
        if a["accuracy"] == b["accuracy"] == "measured" and was is not None and now is not None
        and abs(now - was) > allowed + 1e-9
    ]  # fmt: skip
