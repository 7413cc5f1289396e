"""What a record was measured on and how, in words: for the head of a page or of a Markdown table."""

from __future__ import annotations

from typing import Any

from zoo.bench.columns import DEVICES
from zoo.bench.record import Record


def facts(record: Record) -> list[tuple[str, str]]:
    """Names and texts: machine, versions, date, protocol. What the record does not know is left out."""
    machine, settings = record["machine"], record["settings"]
    cores = f"{machine['cores_usable']} of {machine['cores_logical']} cores"
    memory = f"{machine['memory_bytes'] / 2**30:.1f} GiB of memory" if machine["memory_bytes"] else None
    pairs = [
        ("Date", record["date"]),
        ("CPU", _joined(machine["cpu"], machine["architecture"], cores, memory)),
        ("CPU extensions", " ".join(machine["flags"] or [])),
        ("GPU", _joined(machine["gpu"], machine["gpu_driver"] and f"driver {machine['gpu_driver']}")),
        ("Platform", machine["platform"]),
        ("Versions", ", ".join(f"{name} {version}" for name, version in machine["versions"].items())),
        ("Frequency governor", machine["governor"] or "not known"),
        ("State", _state(machine)),
        ("Measured peak", ", ".join(_peak(peak) for peak in machine["peak_gflops"] or [])),
        ("Protocol", _protocol(settings)),
        ("Accuracy", _accuracy(settings)),
    ]
    return [(name, text) for name, text in pairs if text]


def summary(record: Record) -> str:
    """What it was measured on, with what and when, in one line: a picture goes where its page does not."""
    machine, rows = record["machine"], record["rows"]
    devices = {row["device"] for row in rows}
    return _joined(
        machine["cpu"] if devices != {"cuda"} else None,
        machine["gpu"] if "cuda" in devices else None,
        f"{record['settings']['threads']} threads" if record["settings"]["threads"] and devices != {"cuda"} else None,
        *sorted({row["engine"] for row in rows if row["engine"]}),
        record["date"][:10],
        "a noisy run" if record["noise"]["noisy"] else None,
    )


def _joined(*parts: str | None) -> str:
    return ", ".join(part for part in parts if part)


def _state(machine: dict[str, Any]) -> str:
    before, after, steal = machine["load_before"], machine["load_after"], machine["steal_percent"]
    return _joined(
        None if before is None else f"load average {before:.1f} before",
        None if after is None else f"{after:.1f} after",
        None if steal is None else f"{steal:.1f} % of the time taken by other guests",
        f"bound to cores {_ranges(machine['affinity'])}" if machine["affinity"] else None,
    )


def _ranges(numbers: list[int]) -> str:
    """0, 1, 2, 5 as 0-2, 5."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def _peak(peak: dict[str, Any]) -> str:
    device = DEVICES.get(peak["device"], peak["device"])
    threads = f" on {peak['threads']} threads" if peak["device"] == "cpu" and peak["threads"] else ""
    return f"{peak['gflops']:,.0f} GFLOP/s {peak['precision']} {device}{threads}"


def _protocol(settings: dict[str, Any]) -> str:
    budget = f", at most {settings['budget_s']:g} s a row" if settings["budget_s"] else ""
    return (
        f"each row in a process of its own, {settings['threads']} threads, {settings['rounds']} interleaved rounds"
        f"{budget}; the time is the median of one run of the whole batch, ± half its 95 % interval"
    )


def _accuracy(settings: dict[str, Any]) -> str:
    if not settings["data"]:
        return "not measured"
    return f"measured on {settings['images']:,} pictures" if settings["images"] else "measured"
