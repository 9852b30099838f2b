"""A twentieth of `make faults` with the seed of the day, and that it finds what ends badly."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.faults import kills
from benchmarks.faults.readers import bad_end, jpeg
from tag2mask.errors import DamagedError
from tag2mask.io.images import read_image


@pytest.mark.slow
def test_a_twentieth_ends_well(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.faults", "--share", "0.05", "--out", str(tmp_path / "faults.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    print(done.stdout)  # the seed of the day
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]


def test_bad_ends_of_readers_are_found(tmp_path: Path) -> None:
    def refuse(text: str) -> object:
        raise DamagedError(text)

    def fail(path: Path) -> object:
        raise ValueError(path)

    path = tmp_path / "a.jpg"
    jpeg(path)
    assert bad_end(read_image, path) is None
    assert bad_end(lambda path: refuse(f"{path} is damaged"), path) is None
    assert "does not name the file" in str(bad_end(lambda _: refuse("it is damaged"), path))
    assert "does not name the file" in str(bad_end(lambda path: refuse(f"{path}\nTraceback"), path))
    assert "ValueError" in str(bad_end(fail, path))
    assert "accepted" in str(bad_end(lambda _: np.zeros(3, np.int32), path))


def test_bad_ends_of_commands_are_found(tmp_path: Path) -> None:
    def stage(*words: str) -> kills.Stage:
        return kills.Stage("x", words, 1, kills.files_digest)

    (tmp_path / "a.png").write_bytes(b"x")
    good = kills.files_digest(tmp_path)
    assert kills._ends(stage("--version"), tmp_path, good, "x") is None
    assert "status 2" in str(kills._ends(stage("nothing"), tmp_path, good, "x"))
    assert "other files" in str(kills._ends(stage("--version"), tmp_path, "another", "x"))
    (tmp_path / ".a.png.1.part").touch()
    assert "is left" in str(kills._ends(stage("--version"), tmp_path, good, "x"))
    assert "small disk: status 0" in str(kills.on_small_disk(stage("--version"), tmp_path, "another"))
