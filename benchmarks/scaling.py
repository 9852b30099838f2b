"""Time and memory of the stages that list, load and score a data set, as it grows: 1,000, 10,000, 100,000 photographs.

usage: python -m benchmarks.scaling [--images 1000 10000 100000] [--out benchmarks/out/scaling.json]

Writes a data set of COCO's layout into a temporary folder: 16 different photographs of 16 x 12 pixels, linked under as
many names as asked for, each with a mask, a row of tags and a CAM file. Measured are, each in a process of its own:

- data module: `COCODataModule.setup("fit")`, and the first batch with two loading processes
- evaluate: `tag2mask evaluate` of all CAM files at 15 thresholds
- labels: `tag2mask labels` with the seed alone, in two processes

Memory is the most that any one of the processes of a stage has held. A stage grows linearly where an image takes as
long at every size.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.record import write_record
from tag2mask.data.coco import SPLITS, Row, Split, table_text
from tag2mask.data.datamodules import COCODataModule
from tag2mask.data.transforms import Preprocessing
from tag2mask.io.cams import CAMs, write_cam
from tag2mask.io.images import write_jpeg
from tag2mask.io.labels import write_label

HEIGHT, WIDTH = 12, 16
PATTERNS = 16
RECIPE = {"class_path": "tag2mask.refine.recipes.PseudoLabels", "init_args": {"walk": None, "crf": None}}


def write(root: Path, images: int) -> None:
    """Write a data set of so many photographs in each split, and CAM files of those of train."""
    rng = np.random.default_rng(0)
    patterns = root / "patterns"
    tags = [tuple(sorted(rng.choice(np.arange(1, 81), 3, replace=False).tolist())) for _ in range(PATTERNS)]
    for number, values in enumerate(tags):
        noise = rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
        write_jpeg(patterns / f"{number}.jpg", noise, "")
        label = np.array([0, *values], np.uint8)[rng.integers(0, 4, (HEIGHT, WIDTH))]
        write_label(patterns / f"{number}.png", label)
        cam = rng.random((len(values), HEIGHT // 4, WIDTH // 4))
        write_cam(patterns / f"{number}.npz", CAMs(torch.as_tensor(cam), torch.tensor(values), (HEIGHT, WIDTH)))
    for name in SPLITS:
        split = Split(name, root, root)
        names = [f"COCO_{split.folder}_{number:012d}" for number in range(images)]
        (root / "cams").mkdir(exist_ok=True)
        for folder in (split.photos, split.masks):
            folder.mkdir(parents=True)
        for number, photo in enumerate(names):
            pattern = patterns / str(number % PATTERNS)
            os.link(f"{pattern}.jpg", split.photos / f"{photo}.jpg")
            os.link(f"{pattern}.png", split.masks / f"{photo}.png")
            if name == "train":
                os.link(f"{pattern}.npz", root / "cams" / f"{photo}.npz")
        rows = {photo: Row(tags[n % PATTERNS], HEIGHT, WIDTH, "") for n, photo in enumerate(names)}
        split.table.write_text(table_text(rows))
        split.names.write_text("\n".join([*names, ""]))
    (root / "labels.yaml").write_text(json.dumps({"recipe": RECIPE}))


def load(root: Path) -> None:
    """Set a data module up and take the first batch."""
    small = Preprocessing(long_side=(16, 16), crop_size=16)
    data = COCODataModule(str(root), batch_size=32, num_workers=2, preprocessing=small)
    begun = time.process_time()
    data.setup("fit")
    print(time.process_time() - begun)
    next(iter(data.train_dataloader()))


def measured(command: list[str]) -> tuple[dict[str, Any], str]:
    """Run a command; return its seconds, CPU seconds and MiB, and what it said."""
    begun = time.perf_counter()
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, stdout=said)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            sys.exit(f"{' '.join(command)} ended with status {process.returncode}")
        seconds = time.perf_counter() - begun
        said.seek(0)
        cpu = usage.ru_utime + usage.ru_stime  # of all processes of the stage; other work on the machine adds little
        found = {"seconds": round(seconds, 2), "cpu_seconds": round(cpu, 2), "peak_mb": usage.ru_maxrss // 1024}
        return found, said.read()


def stages(root: Path) -> dict[str, dict[str, Any]]:
    """Measure each stage on a data set."""
    tag2mask = [sys.executable, "-m", "tag2mask"]
    cams, masks = str(root / "cams"), str(root / "masks" / "train2014")
    module, said = measured([sys.executable, "-m", "benchmarks.scaling", "--load", str(root)])
    module["setup_cpu_seconds"] = round(float(said), 2)
    evaluate, _ = measured([*tag2mask, "evaluate", cams, "--masks", masks, "--classes", "coco"])
    command = ["labels", "--config", str(root / "labels.yaml"), "--cams", cams, "--out", str(root / "labels")]
    labels, _ = measured([*tag2mask, *command, "--workers", "2"])
    return {"data module": module, "evaluate": evaluate, "labels": labels}


def main() -> None:
    """Measure, print a table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out/scaling.json"))
    parser.add_argument("--load", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.load:
        load(given.load)
        return
    figures = {}
    for images in given.images:
        with tempfile.TemporaryDirectory() as temporary:
            write(Path(temporary), images)
            figures[images] = stages(Path(temporary))
        for stage, found in figures[images].items():
            print(f"{images:>9,} {stage:<12}", *(f"{key} {value}" for key, value in found.items()), flush=True)
    write_record(given.out, {"images": figures})


if __name__ == "__main__":
    main()
