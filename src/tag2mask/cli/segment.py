"""The verb ``segment``: masks and overlays for one's own photographs."""

import argparse
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tqdm import tqdm

from tag2mask.cli.options import Parser
from tag2mask.errors import InputError
from tag2mask.inference.segmenter import (
    Found,
    Segmenter,
    check_outputs,
    find_photos,
    output_names,
    outputs,
    segment_all,
    shown,
)
from tag2mask.io.files import read_json, remove_parts
from tag2mask.io.records import RUN_FILE, write_run
from tag2mask.refine.dense_crf import TEST_TIME
from tag2mask.tasks.segmentation import MaskInference
from tag2mask.utils.progress import progress

DESCRIPTION = """Write a mask (palette PNG of the photograph's size) and an overlay (JPEG) for each photograph, and
say what was found: each class with its share of the pixels and the mean probability over them.

reads   photographs of any size and mode, and the checkpoint of a segmentation network; no data set
writes  NAME.png and NAME_overlay.jpg into the folder of --out. The same photographs' files are
        replaced when it runs again; nothing else ever is. Photographs that cannot be read are
        skipped and named, and the status is 1"""
EXAMPLE = """example
  tag2mask segment holiday/ --checkpoint runs/folder/segmentation/checkpoints/last.ckpt"""


def segment(words: list[str]) -> int:
    """Run the verb; return the exit status: 1 where some photographs could not be read."""
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # large photographs are welcome
    given = parse(words)
    photos = find_photos(given.photos, given.out)
    targets = _targets(given, photos)
    segmenter, config = _segmenter(given)
    write_run(given.out, config, finished=False)
    remove_parts(given.out, {path.stem for paths in targets for path in paths})
    faults = [
        photo
        for photo, fault in _told(progress(segment_all(segmenter, photos, targets), len(photos), "photographs"))
        if fault
    ]
    masks = len(photos) - len(faults)
    damaged = [shown(photo) for photo in faults]
    write_run(given.out, config, finished=True, files=masks, damaged=damaged)
    print(f"{masks} masks in {shown(given.out)}")
    if faults:
        told = f"{len(faults)} of {len(photos)} photographs were skipped: {', '.join(damaged)}"
        print(f"tag2mask: {told}", file=sys.stderr)
    return 1 if faults else 0


def parse(words: list[str]) -> argparse.Namespace:
    """Read the words of the verb."""
    parser = Parser("tag2mask segment", description=DESCRIPTION, epilog=EXAMPLE)
    parser.add_argument("photos", type=Path, nargs="+", metavar="PHOTO|FOLDER", help="photographs, folders of them")
    parser.add_argument("--checkpoint", type=Path, required=True, help="of a segmentation network: .../last.ckpt")
    parser.add_argument("--out", type=Path, default=Path("segments"), help="folder that receives the files (segments)")
    parser.add_argument("--scales", type=_numbers, default=(1.0,), help="relative sizes, such as 0.5,1,1.5,2 (1)")
    parser.add_argument("--flip", action="store_true", help="average with the mirror image")
    parser.add_argument("--crf", action="store_true", help="draw masks to the outlines with a dense CRF; slower")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1; auto: a GPU where there is one (auto)")
    parser.add_argument(
        "--max-side",
        type=int,
        help="larger photographs are shrunk to this for the network, in pixels (that of its training)",
    )
    parser.add_argument("--overlay", action=argparse.BooleanOptionalAction, default=True, help="NAME_overlay.jpg")
    parser.add_argument("--overwrite", action="store_true", help="also replace masks of other photographs")
    return parser.parse_args(words)


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(word) for word in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}; expected numbers with commas between, such as 0.5,1,2") from None


def _targets(given: argparse.Namespace, photos: Sequence[Path]) -> list[list[Path]]:
    """The files of each photograph, once it is sure that they replace nothing of somebody else's."""
    names = output_names(photos)
    targets = [outputs(given.out, name, given.overlay) for name in names]
    if given.out.exists() and not given.out.is_dir():
        raise InputError(f"--out {given.out} is a file; name a folder")
    record = given.out / RUN_FILE
    if record.is_file() and read_json(record).get("config", {}).get("stage") != "segment":
        raise InputError(f"{given.out} holds the run of another stage; name another folder with --out")
    check_outputs(photos, targets, given.overwrite)
    renamed = [name for photo, name in zip(photos, names, strict=True) if name != photo.stem]
    if renamed:
        print(
            f"tag2mask: {len(renamed)} photographs share names; their masks are {shown(renamed[0])}.png and so on",
            file=sys.stderr,
        )
    return targets


def _segmenter(given: argparse.Namespace) -> tuple[Segmenter, dict[str, Any]]:
    """The network, and the settings that the masks depend on."""
    from tag2mask.cli.lightning import quiet
    from tag2mask.tasks.checkpoints import check_file, file_digest

    quiet()
    if given.max_side is not None and given.max_side < 1:
        raise InputError(f"--max-side {given.max_side}; expected a number of pixels, such as 1024")
    inference = MaskInference(given.scales, given.flip)
    device = _device(given.device)
    check_file(given.checkpoint, "segmentation")
    segmenter = Segmenter(given.checkpoint, device, inference, TEST_TIME if given.crf else None, given.max_side)
    config = {
        "stage": "segment",
        "checkpoint": str(given.checkpoint),
        "weights": file_digest(given.checkpoint),
        "classes": list(segmenter.class_names),
        "inference": asdict(inference),
        "crf": segmenter.crf and asdict(segmenter.crf),
        "preprocessing": asdict(segmenter.how),
        "device": device,
    }
    return segmenter, config


def _device(name: str) -> str:
    """Check that there is such a device."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise InputError(f"--device {name}: {reason}; give cpu, or leave --device out") from None
    return name


def _told(done: Iterable[tuple[Path, Found | InputError]]) -> Iterator[tuple[Path, bool]]:
    """Say what was found in each photograph as it is done, and what could not be read."""
    for photo, found in done:
        fault = isinstance(found, InputError)
        if isinstance(found, InputError):
            tqdm.write(f"tag2mask: skipped {shown(photo)}: {shown(found)}", file=sys.stderr)
        else:
            tqdm.write(f"{shown(photo)}: {summary(found)}")
        yield photo, fault


def summary(found: Found) -> str:
    """What was found, in words: ``cat 34.2% (0.91), sofa 5.0% (0.77)``, probabilities in brackets."""
    parts = [f"{name} {_percent(share)} ({chance:.2f})" for name, (share, chance) in found.shares.items()]
    return ", ".join(parts) or "nothing found"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%" if share >= 0.001 else "<0.1%"
