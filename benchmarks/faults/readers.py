"""Small files of every kind that is read, their readers, mutants of them, and whether an accepted value can be true."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pycocotools import mask
from safetensors.torch import save_file
from scipy.io import savemat

from tag2mask import classes
from tag2mask.cli.archive import write_archive
from tag2mask.cli.settings import check_yaml
from tag2mask.data import coco, folder, voc
from tag2mask.data.prepare import instances
from tag2mask.data.prepare.voc import read_sbd
from tag2mask.errors import InputError
from tag2mask.io import folders, provenance
from tag2mask.io.cams import CAMs, read_cam, write_cam
from tag2mask.io.files import read_json
from tag2mask.io.images import read_grey, read_image, read_size
from tag2mask.io.labels import read_label, write_label
from tag2mask.io.records import record_of
from tag2mask.io.regions import read_regions
from tag2mask.tasks import checkpoints

Make = Callable[[Path], None]
Read = Callable[[Path], Any]


def cam(path: Path) -> None:
    """Write a CAM file."""
    maps = torch.from_numpy(np.random.default_rng(0).random((2, 8, 10), np.float32))
    write_cam(path, CAMs(maps, torch.tensor([1, 3]), (32, 40)))


def sbd(path: Path) -> None:
    """Write an annotation of SBD."""
    label = np.random.default_rng(0).choice([0, 5, 15, 255], (32, 40)).astype(np.uint8)
    savemat(path, {"GTcls": {"Boundaries": np.zeros(3), "Segmentation": label}}, do_compression=path.stem == "packed")


def jpeg(path: Path) -> None:
    """Write a photograph with EXIF."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "text"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8)).save(path, "JPEG", exif=exif)


def label(path: Path) -> None:
    """Write a label PNG."""
    write_label(path, np.random.default_rng(0).integers(0, 5, (30, 40)), "note")


def grey(path: Path) -> None:
    """Write an edge map."""
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (30, 40), np.uint8)).save(path, "PNG")


def tags(path: Path) -> None:
    """Write a table of tags."""
    path.write_text('name,tags\ncat_01,cat dog\nbeach.jpg,"dog;sofa bed"\nx,\n')


def table(path: Path) -> None:
    """Write a table of COCO's tags."""
    path.write_text("name,tags,height,width,mask\nCOCO_a,person;cat,6,8,12ab\nCOCO_b,,6,8,0\n")


def inputs(path: Path) -> None:
    """Write what files were made from."""
    path.write_text('name,made_from\na,"cat;dog, 36344 bytes"\nb,x\n')


def names(path: Path) -> None:
    """Write a list of names."""
    path.write_text("cat_01\nbeach\nx\n")


def record(path: Path) -> None:
    """Write the record of a run."""
    path.write_text(json.dumps({"config": {"classes": ["a", "b"], "x": [1, 2.5, None]}, "seed": 3}))


def config(path: Path) -> None:
    """Write a configuration."""
    path.write_text("trainer: {max_epochs: 3, callbacks: [a, b]}\ndata:\n  root: x # c\n  seed: 1e-3\n")


def xml(path: Path) -> None:
    """Write an annotation of VOC."""
    objects = "".join(f"<object><name>{name}</name><part><name>head</name></part></object>" for name in ("cat", "dog"))
    path.write_text(f"<annotation>{objects}</annotation>")


def code(shape: tuple[int, int] = (6, 8)) -> dict[str, Any]:
    """Return a run-length code."""
    packed = mask.encode(np.asfortranarray(np.random.default_rng(1).random(shape) > 0.5).astype(np.uint8))
    return {"size": list(packed["size"]), "counts": packed["counts"].decode()}


def scenes(path: Path) -> None:
    """Write annotations of COCO."""
    common = {"image_id": 1, "iscrowd": 0, "area": 12.0}
    objects = [{**common, "category_id": 17, "segmentation": code()}]
    objects += [{**common, "category_id": 18, "segmentation": [[0, 0, 4, 0, 4, 3, 0, 3]]}]
    kinds = [{"id": value, "name": name} for value, name in enumerate(classes.COCO) if value]
    photos = [{"id": 1, "file_name": "a.jpg", "height": 6, "width": 8}]
    path.write_text(json.dumps({"categories": kinds, "images": photos, "annotations": objects}))


def regions(path: Path) -> None:
    """Write regions as run-length codes."""
    path.write_text(json.dumps([{"segmentation": code(), "area": 3}] * 2))


def checkpoint(path: Path) -> None:
    """Write a checkpoint."""
    ours = {"task": "cam", "classes": ["cat", "dog"], "version": "1", "preprocessing": {"crop_size": 32}}
    state = {"weight": torch.arange(24.0).reshape(2, 3, 4), "bias": torch.ones(2)}
    torch.save({"tag2mask": ours, "state_dict": state, "epoch": 1, "global_step": 5, "loops": {}}, path)


def weights(path: Path) -> None:
    """Write small weights."""
    facts = {"task": "segmentation", "classes": ["cat"], "preprocessing": {}, "backbone": {"name": "resnet18"}}
    facts["inference"] = {"scales": [1.0], "flip": False}
    save_file({"weight": torch.arange(24.0).reshape(2, 3, 4).half()}, path, {"tag2mask": json.dumps(facts)})


def archive(path: Path) -> None:
    """Write an archive for VOC's server."""
    folder = path.parent / "labels"
    for name in ("a", "b"):
        label(folder / f"{name}.png")
    write_archive(folder, ["a", "b"], path)


def read_archive(path: Path) -> object:
    """Read an archive as `tag2mask archive check` does."""
    from tag2mask.cli.archive import check_archive

    return check_archive(path, ["a", "b"])


def read_config(path: Path) -> None:
    """Read a configuration as the command line does before anything is built."""
    check_yaml(["--config", str(path)])


def read_inputs(path: Path) -> object:
    """Read what files were made from."""
    return provenance.read_inputs(path.parent)


def read_run(path: Path) -> object:
    """Read the record of a run."""
    return record_of(path.parent)


def read_codes(path: Path) -> object:
    """Read regions."""
    return read_regions(path.parent, path.stem, (6, 8))


READERS: list[tuple[str, Make, Read]] = [
    ("a.npz", cam, read_cam),
    ("a.mat", sbd, read_sbd),
    ("packed.mat", sbd, read_sbd),
    ("a.jpg", jpeg, read_image),
    ("a.jpg", jpeg, read_size),
    ("a.png", label, read_label),
    ("a.png", grey, read_grey),
    ("tags.csv", tags, folder.read_tags),
    ("tags.csv", table, coco.read_table),
    ("inputs.csv", inputs, read_inputs),
    ("list.txt", names, folders.read_list),
    ("classes.txt", names, folders.read_classes),
    ("a.json", record, read_json),
    ("run.json", record, read_run),
    ("a.yaml", config, read_config),
    ("a.xml", xml, voc.read_tags),
    ("instances.json", scenes, instances.read_scenes),
    ("a.json", regions, read_codes),
    ("a.ckpt", checkpoint, checkpoints.check_file),
    ("a.safetensors", weights, checkpoints.check_file),
    ("results.tgz", archive, read_archive),
]
"""File name, what writes a sound one, and what reads it."""


def mutant(content: bytes, rng: random.Random) -> bytes:
    """Flip a bit, cut, insert, exchange or overwrite."""
    at, new, much = rng.randrange(len(content)), bytes(rng.choices(range(256), k=rng.randint(1, 8))), rng.random() < 0.3
    new = rng.choice([b"\xff", b"\0"]) * 50 if much else new
    flipped = content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :]
    before, after = content[:at], content[at:]
    return rng.choice([flipped, before, before + new + after, before + new + after[len(new) :]])


def sane(value: Any) -> bool:
    """Whether what a reader accepted can be true."""
    if isinstance(value, CAMs):
        cam, classes, size = value
        in_range = bool(((cam >= -1e-3) & (cam <= 1.001)).all()) and 0 < classes.min() <= classes.max() < 255
        return in_range and 1 <= cam.shape[1] <= size[0] and 1 <= cam.shape[2] <= size[1]
    if isinstance(value, np.ndarray):
        return value.dtype in (np.uint8, np.float32) and value.size > 0
    if isinstance(value, dict) and "state_dict" in value:
        finite = all(torch.isfinite(each).all() for each in value["state_dict"].values())
        return finite and 0 < len(value["tag2mask"]["classes"]) < 255
    if isinstance(value, list | dict) and all(isinstance(name, str) for name in value):
        return all("\0" not in name and "/" not in name for name in value)
    return True


def bad_end(read: Read, path: Path) -> str | None:
    """Read a file; return what was wrong with the end of that, None where it is accepted or refused in one line."""
    try:
        value = read(path)
    except InputError as error:
        text = str(error)
        named = str(path) in text or path.name in text or str(path.parent) in text
        return None if named and "\n" not in text else f"the error does not name the file in one line: {text[:200]}"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:200]}"
    return None if sane(value) else f"accepted: {str(value)[:200]}"
