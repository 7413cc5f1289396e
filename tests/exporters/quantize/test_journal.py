"""What a search keeps: given back, bounded, and never trusted when damaged."""

from pathlib import Path

import numpy as np

from exporters.quantize.journal import Journal


def test_what_was_found_comes_back(tmp_path: Path) -> None:
    asked = []

    def compute() -> dict[str, np.ndarray]:
        asked.append(1)
        return {"a/b::c": np.arange(3.0), "file": np.array(2)}

    for _ in range(2):  # another run
        found = Journal(tmp_path, "subject").remember("name", compute)
        assert sorted(found) == ["a/b::c", "file"]
        np.testing.assert_array_equal(found["a/b::c"], [0, 1, 2])
    assert len(asked) == 1
    Journal(tmp_path, "subject").remember("other name", compute)
    Journal(tmp_path, "other subject").remember("name", compute)
    Journal(None, "subject").remember("name", compute)
    assert len(asked) == 4
    Journal(tmp_path, "subject").close()
    assert len(list(tmp_path.iterdir())) == 1


def test_damage_is_worked_out_again(tmp_path: Path) -> None:
    for damage in (b"", b"PK nothing", None):
        Journal(tmp_path, "subject").remember("name", lambda: {"x": np.zeros(1000)})
        (file,) = next(tmp_path.iterdir()).iterdir()
        file.write_bytes(file.read_bytes()[:200] if damage is None else damage)
        found = Journal(tmp_path, "subject").remember("name", lambda: {"x": np.ones(2)})
        assert found["x"].tolist() == [1, 1]
        Journal(tmp_path, "subject").close()


def test_a_place_that_cannot_be_written_to_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    found = Journal(tmp_path / "file", "subject").remember("name", lambda: {"x": np.ones(2)})
    assert found["x"].tolist() == [1, 1]


def test_old_searches_go(tmp_path: Path) -> None:
    for number in range(20):
        Journal(tmp_path, str(number)).remember("name", lambda: {"x": np.ones(2)})
    assert len(list(tmp_path.iterdir())) == 16
    asked: list[int] = []
    Journal(tmp_path, "19").remember("name", lambda: asked.append(1) or {})  # type: ignore[func-returns-value]
    assert not asked


def test_parts_keep_names_apart(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "one")
    found = [
        float(some.remember("x", lambda at=at: {"value": np.array(at)})["value"])
        for at, some in enumerate((journal, journal.part("a"), journal.part("b"), journal.part("a"), journal))
    ]
    assert found == [0, 1, 2, 1, 0]
    journal.part("a").close()
    assert not any(tmp_path.iterdir()), "a part is the same search"
