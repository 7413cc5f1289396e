from __future__ import annotations

from pathlib import Path

import pytest

from runtime.errors import InvalidInput
from zoo.picture_files import pictures


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_a_folder_is_the_pictures_below_it_sorted(tmp_path: Path) -> None:
    touch(tmp_path / "b" / "two.JPG", tmp_path / "a.png", tmp_path / "b" / "c" / "one.webp")
    touch(
        tmp_path / "notes.txt", tmp_path / ".hidden.png", tmp_path / ".cache" / "small.png", tmp_path / "b" / "x.onnx"
    )
    found = [str(tmp_path / name) for name in ("a.png", "b/c/one.webp", "b/two.JPG")]
    assert pictures([str(tmp_path)]) == found
    # What is named is taken as it is, where it stands.
    assert pictures(["z.bin", str(tmp_path), "-"]) == ["z.bin", *found, "-"]


def test_links_in_circles_are_harmless_and_a_linked_folder_is_found_once(tmp_path: Path) -> None:
    touch(tmp_path / "real" / "a.png", tmp_path / "elsewhere" / "b.png")
    root = tmp_path / "root"
    root.mkdir()
    (root / "loop").symlink_to(root)
    (root / "deep").mkdir()
    (root / "deep" / "up").symlink_to(tmp_path / "root")
    (root / "a_link").symlink_to(tmp_path / "elsewhere")
    (root / "another").symlink_to(tmp_path / "elsewhere")
    (root / "picture.png").symlink_to(tmp_path / "real" / "a.png")
    assert pictures([str(root)]) == [str(root / "a_link" / "b.png"), str(root / "picture.png")]


def test_a_folder_without_pictures_is_said(tmp_path: Path) -> None:
    touch(tmp_path / "notes.txt")
    with pytest.raises(InvalidInput, match=r"no pictures in this folder \(\.avif"):
        pictures([str(tmp_path)])
