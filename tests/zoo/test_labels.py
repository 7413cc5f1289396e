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
        ("labels.txt", "0 cat\n1 great dane\n", ("cat", "great dane"), None),
        ("a.txt", "0\n1\n2\n", ("0", "1", "2"), None),
        ("a.txt", "7 up\n1 cola\n", ("7 up", "1 cola"), None),
        ("a.json", '{"0": "cat", "1": "dog"}', ("cat", "dog"), None),
        ("a.json", '{"dog": 1, "cat": 0}', ("cat", "dog"), None),
        ("a.json", '{"1": ["n2", "dog"], "0": ["n1", "cat"]}', ("cat", "dog"), ("n1", "n2")),
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
        ("a.json", b'{"cat": 0, "dog": 2}'),
        ("a.json", b'{"cat": 0, "dog": 0}'),
        ("a.json", b'{"0": "cat", "2": "dog"}'),
        ("a.json", b'"cat"'),
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
