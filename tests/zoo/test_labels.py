from __future__ import annotations

from pathlib import Path

import pytest

from runtime.errors import InvalidInput
from zoo.labels import read


@pytest.mark.parametrize(
    ("name", "text", "names", "ids"),
    [
        ("a.txt", "cat\ndog\n", ("cat", "dog"), None),
        ("a.txt", "cat\r\ndog\r\n\r\n", ("cat", "dog"), None),
        ("a.txt", "n1\tcat\nn2\tgreat dane\n", ("cat", "great dane"), ("n1", "n2")),
        ("a.json", '["cat", "dog"]', ("cat", "dog"), None),
        ("a.txt", "été\n猫\n", ("été", "猫"), None),
    ],
)
def test_forms(tmp_path: Path, name: str, text: str, names: tuple[str, ...], ids: tuple[str, ...] | None) -> None:
    path = tmp_path / name
    path.write_bytes(text.encode())
    labels = read(path)
    assert (labels.names, labels.ids) == (names, ids)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.txt", b""),
        ("a.txt", b"cat\n\ndog\n"),
        ("a.txt", b"\xff\xfe\x00"),
        ("a.json", b"{}"),
        ("a.json", b"[1]"),
        ("a.json", b"["),
    ],
)
def test_bad_files(tmp_path: Path, name: str, data: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(InvalidInput, match=name.replace(".", r"\.")):
        read(path)


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="not a readable label file"):
        read(tmp_path / "none.txt")
