"""The requirements can be had as wheels for each Python that we name; nothing is installed, the index is asked."""

import re
import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest

PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
SETUP = ConfigParser()
SETUP.read("setup.cfg")
REQUIREMENTS = {
    "pinned": Path("requirements.txt").read_text(),
    "ranges": SETUP["options"]["install_requires"] + SETUP["options.extras_require"]["lite"],
}


def resolved(requirements: str, python: str) -> list[str]:
    """The versions that uv finds, wheels alone; skips the test where the index cannot be asked."""
    uv = shutil.which("uv", path=Path(sys.executable).parent) or shutil.which("uv")
    if uv is None:
        pytest.skip("uv is not installed")
    command = [uv, "pip", "compile", "-", "--no-header", "--no-annotate", "--only-binary", ":all:"]
    command += ["--python-version", python, "--python-platform", "x86_64-manylinux_2_28", "--no-python-downloads"]
    done = subprocess.run(command, input=requirements, capture_output=True, text=True, check=False)
    if done.returncode and "No solution found" not in done.stderr:
        pytest.skip(f"the index cannot be asked: {done.stderr.strip()[-200:]}")
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("which", REQUIREMENTS)
def test_wheels_are_there_for_each_python(which: str, python: str) -> None:
    found = {line.split("==")[0] for line in resolved(REQUIREMENTS[which], python)}
    assert {"torch", "torchvision", "lightning", "timm", "albumentations", "jsonargparse"} <= found


@pytest.mark.slow
def test_a_package_without_wheels_is_found_out() -> None:
    with pytest.raises(AssertionError, match="pydensecrf2==1.1 has no usable wheels"):
        resolved("pydensecrf2==1.1", "3.12")


def test_every_place_names_the_same_pythons() -> None:
    first, last = PYTHONS[0], PYTHONS[-1]
    assert re.findall(r"Python :: ([\d.]+)", SETUP["metadata"]["classifiers"]) == list(PYTHONS)
    assert SETUP["options"]["python_requires"] == f">={first}, <3.{int(last.split('.')[1]) + 1}"
    makefile = Path("Makefile").read_text()
    assert f"({first.replace('.', ', ')}) <= v <= ({last.replace('.', ', ')})" in makefile
    for text in (makefile, Path("README.md").read_text()):
        assert f"{first} to {last}" in text


def test_pins_lie_in_the_ranges() -> None:
    from packaging.requirements import Requirement

    pins = [Requirement(line) for line in REQUIREMENTS["pinned"].splitlines() if line and not line.startswith("#")]
    for required in map(Requirement, SETUP["options"]["install_requires"].strip().splitlines()):
        versions = [next(iter(pin.specifier)).version for pin in pins if pin.name == required.name]
        assert versions, required.name
        assert all(required.specifier.contains(version) for version in versions), required
