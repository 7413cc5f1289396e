"""The cache's place: the user's word, else the system's convention."""

from pathlib import Path

import pytest

from exporters.cache import folder


def test_where_things_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEZOO_CACHE", "")
    assert folder("searches") is None
    monkeypatch.setenv("EDGEZOO_CACHE", str(tmp_path))
    assert folder("searches") == tmp_path / "searches"
    monkeypatch.delenv("EDGEZOO_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert folder("bench") == tmp_path / "edgezoo" / "bench"
