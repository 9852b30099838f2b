"""Files are written whole or not at all; JSON that cannot be read is named."""

import errno
import os
from pathlib import Path

import pytest

from tag2mask.cli.main import mendable
from tag2mask.errors import DamagedError, MissingError
from tag2mask.io.files import atomic, read_json, remove_parts


def test_atomic_leaves_the_old_file_where_the_block_fails(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail() -> None:
        with atomic(path) as file:
            file.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_full_disk_says_where(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left") as raised, atomic(tmp_path / "x.png"):
        raise OSError(errno.ENOSPC, "No space left on device")  # as `write` does, without a path
    assert str(tmp_path / "x.png") in str(mendable(raised.value))
    assert not list(tmp_path.iterdir())


def test_atomic_replaces_the_old_file_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with atomic(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_atomic_makes_the_folder(tmp_path: Path) -> None:
    with atomic(tmp_path / "a" / "b" / "c.txt") as file:
        file.write(b"x")
    assert (tmp_path / "a" / "b" / "c.txt").read_text() == "x"


def test_only_half_written_files_of_the_names_are_removed(tmp_path: Path) -> None:
    for name in (".a.b.png.17.part", ".c.png.17.part", "a.b.png"):
        (tmp_path / name).touch()
    remove_parts(tmp_path, {"a.b"})
    assert sorted(os.listdir(tmp_path)) == [".c.png.17.part", "a.b.png"]


@pytest.mark.parametrize("text", ["", "{", "[1,"])
def test_damaged_json_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DamagedError, match=r"a\.json cannot be read as JSON"):
        read_json(tmp_path / "a.json")


def test_missing_json_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"a\.json does not exist"):
        read_json(tmp_path / "a.json")
