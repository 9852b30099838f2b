"""Ways to spoil a file."""

from pathlib import Path


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def a_text(path: Path) -> None:
    path.write_bytes(b"not what it was")


def missing(path: Path) -> None:
    path.unlink()


SPOILERS = [cut_short, emptied, a_text, missing]
