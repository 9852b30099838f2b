"""Write a mask and an overlay for each photograph, and say what is in it.

The mask is a palette PNG of the photograph's size, the overlay a JPEG. Each class is named with its
share of the pixels and the mean probability over them.

reads   photographs of any size and mode, and the checkpoint of a segmentation network; no data set.
        Without --checkpoint, a network that comes with tag2mask: cats, cows, dogs, horses, ...
writes  NAME.png and NAME_overlay.jpg into the folder of --out. The same photographs' files are
        replaced when it runs again; nothing else ever is. Photographs that cannot be read are
        skipped and named, and the status is 1

Examples:
  tag2mask segment holiday/cat.jpg
  tag2mask segment holiday/ --checkpoint runs/folder/segmentation/checkpoints/last.ckpt
"""

import argparse
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tqdm import tqdm

from tag2mask.cli.options import Parser
from tag2mask.errors import InputError, OccupiedError, SettingError, UnreachableError
from tag2mask.inference import photographs
from tag2mask.inference.photographs import Shares, printable
from tag2mask.io import locks
from tag2mask.io.files import remove_parts
from tag2mask.io.records import record_of, write_run
from tag2mask.refine.dense_crf import TEST_TIME
from tag2mask.tasks.settings import MaskInference
from tag2mask.utils.progress import progress, warn

CHECKPOINT = "of a segmentation network: .../last.ckpt, or of `tag2mask export` (animals)"
SHIPPED = """network: animals_lite0, which comes with tag2mask and knows cat, cow, dog, horse, person and sheep;
other things may get a wrong name. --checkpoint takes a network of yours"""


def segment(words: list[str]) -> int:
    """Run the verb; return the exit status: 1 where some photographs could not be read."""
    parser = Parser("tag2mask segment", __doc__)
    parser.add_argument("photos", type=Path, nargs="+", metavar="PHOTO|FOLDER", help="photographs, folders of them")
    parser.add_argument("--checkpoint", type=Path, default=photographs.ANIMALS, help=CHECKPOINT)
    parser.add_argument("--out", type=Path, default=Path("segments"), help="folder that receives the files (segments)")
    parser.add_argument("--scales", type=numbers_with_commas, default=(1.0,), help="sizes, such as 0.5,1,1.5,2 (1)")
    parser.add_argument("--flip", action="store_true", help="average with the mirror image")
    parser.add_argument("--crf", action="store_true", help="draw masks to the outlines with a dense CRF; slower")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1; auto: a GPU where there is one (auto)")
    parser.add_argument("--max-side", type=int, help="pixels to which larger photographs are shrunk (as in training)")
    parser.add_argument("--overlay", action=argparse.BooleanOptionalAction, default=True, help="NAME_overlay.jpg")
    parser.add_argument("--overwrite", action="store_true", help="also replace masks of other photographs")
    args = parser.parse_args(words)
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # large photographs are welcome
    photos = photographs.find_photos(args.photos, args.out)
    targets = _targets(args, photos)
    segmenter, config = _segmenter(args)
    if args.checkpoint == photographs.ANIMALS:
        print(SHIPPED)
    locks.take(args.out)
    write_run(args.out, config, finished=False)
    remove_parts(args.out, {path.stem for paths in targets.values() for path in paths})
    damaged = []
    for photo, result in progress(photographs.segment_all(segmenter, targets), len(photos), "photographs"):
        if isinstance(result, InputError):
            warn(f"skipped {printable(photo)}: {printable(result)}")
            damaged.append(printable(photo))
        else:
            tqdm.write(f"{printable(photo)}: {summary(result)}")
    masks = len(photos) - len(damaged)
    write_run(args.out, config, finished=True, files=masks, damaged=damaged)
    print(f"{masks} masks in {printable(args.out)}")
    if damaged:
        warn(f"{len(damaged)} of {len(photos)} photographs were skipped: {', '.join(damaged)}")
    return 1 if damaged else 0


def numbers_with_commas(text: str) -> tuple[float, ...]:
    """Read ``0.5,1,2``; argparse names this function where that fails."""
    return tuple(map(float, text.split(",")))


def _targets(args: argparse.Namespace, photos: Sequence[Path]) -> dict[Path, list[Path]]:
    """The files of each photograph, once it is sure that they replace nothing of somebody else's."""
    targets = photographs.outputs(photos, args.out, args.overlay)
    if args.out.exists() and not args.out.is_dir():
        raise OccupiedError(f"--out {args.out} is a file; name a folder")
    record = record_of(args.out)
    if record and record["config"].get("stage") != "segment":
        raise OccupiedError(f"{args.out} holds the run of another stage; name another folder with --out")
    photographs.check_outputs(targets, args.overwrite)
    renamed = [paths[0].stem for photo, paths in targets.items() if paths[0].stem != photo.stem]
    if renamed:
        warn(f"{len(renamed)} photographs share names; their masks are {printable(renamed[0])}.png and so on")
    return targets


def _segmenter(args: argparse.Namespace) -> tuple[photographs.Segmenter, dict[str, Any]]:
    """The network, and the settings that the masks depend on."""
    from tag2mask.cli.lightning import quiet
    from tag2mask.tasks.checkpoints import file_digest

    quiet()
    if args.max_side is not None and args.max_side < 1:
        raise SettingError(f"--max-side {args.max_side}; expected a number of pixels, such as 1024")
    device = args.device if args.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise UnreachableError(f"--device {device}: {reason}; give cpu, or leave --device out") from None
    inference, crf = MaskInference(args.scales, args.flip), TEST_TIME if args.crf else None
    segmenter = photographs.Segmenter(args.checkpoint, device, inference, crf, args.max_side)
    config = {
        "stage": "segment",
        "checkpoint": str(args.checkpoint),
        "weights": file_digest(args.checkpoint),
        "classes": list(segmenter.class_names),
        "inference": asdict(inference),
        "crf": crf and asdict(crf),
        "preprocessing": asdict(segmenter.preprocessing),
        "device": device,
    }
    return segmenter, config


def summary(shares: Shares) -> str:
    """Say what is in a photograph: ``cat 34.2% (0.91), sofa 5.0% (0.77)``, probabilities in brackets."""
    percent = {name: f"{share:.1%}" if share >= 0.001 else "<0.1%" for name, (share, _) in shares.items()}
    return ", ".join(f"{name} {percent[name]} ({p:.2f})" for name, (_, p) in shares.items()) or "nothing found"
