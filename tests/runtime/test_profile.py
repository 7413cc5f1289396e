"""Where the time goes: every operator that ran, once."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from runtime.profile import node_times


def test_every_operator_is_there_with_its_time(tiny: Callable[..., Path], tmp_path: Path) -> None:
    file = tiny()
    before = sorted(tmp_path.iterdir())
    times = node_times(file, np.zeros((1, 3, 8, 8), np.float32), runs=4)
    kinds = [time.operator for time in times]
    assert kinds.count("Conv") == 1
    assert any(kind in ("Gemm", "FusedGemm") for kind in kinds)
    assert all(time.milliseconds > 0 and time.provider == "CPUExecutionProvider" for time in times)
    assert len({time.name for time in times}) == len(times)
    assert kinds.index("Conv") < [kind in ("Gemm", "FusedGemm") for kind in kinds].index(True)
    assert sorted(tmp_path.iterdir()) == before
