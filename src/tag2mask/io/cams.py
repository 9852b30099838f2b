"""The CAMs of a photograph, and the files that hold them.

Shape letters in this file: K classes of one photograph, h x w its CAM.
"""

import io
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tag2mask.classes import IGNORE
from tag2mask.io.files import MEGABYTE, atomic, decoding
from tag2mask.io.images import most_pixels

MOST = 250 * MEGABYTE  # of an array
MOST_VALUES = 150_000_000  # of classes at the size of the photograph, in a short file: labels and scores are made there


class CAMs(NamedTuple):
    """The class activation maps of one photograph, in memory and in files; each map covers the whole photograph."""

    cam: Tensor  # one map for each class, in [0, 1], (K, h, w)
    classes: Tensor  # mask value of each map (1 is the first class), (K,)
    size: tuple[int, int]  # height and width of the photograph, in pixels


def write_cam(path: Path, cams: CAMs) -> None:
    """Write a CAM file: ``.npz`` without pickle, the maps as float16."""
    cam, classes = (torch.as_tensor(values).cpu().numpy() for values in (cams.cam, cams.classes))
    size = np.asarray(cams.size, np.int32)
    with atomic(path) as file:
        np.savez_compressed(file, cam=cam.astype(np.float16), classes=classes.astype(np.int16), size=size)


def read_cam(path: Path) -> CAMs:
    """Read a CAM file; the maps are float16.

    It is a ``DamagedError`` where the file is cut short or another one, a value is not in [0, 1], or a class is not one
    of 1 to 254 or stands twice.
    """
    with decoding(path, "a CAM file", "delete it and run `tag2mask predict` again"), zipfile.ZipFile(path) as archive:
        cam, classes, size = (_array(archive, name) for name in ("cam", "classes", "size"))
        if fault := _fault(cam, classes, size):
            raise ValueError(fault)
        if (values := (1 + len(cam)) * int(size[0]) * int(size[1])) > max(MOST_VALUES, 20 * path.stat().st_size):
            raise ValueError(f"{values:,} scores at the size of the photograph, more than a file of this length has")
    return CAMs(torch.from_numpy(cam), torch.from_numpy(classes.astype(np.int64)), (int(size[0]), int(size[1])))


def _array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """Read an array of an ``.npz`` file whole, by which its checksum is compared, once its size is known."""
    member = archive.getinfo(f"{name}.npy")
    if member.file_size > MOST:
        raise ValueError(f"{name} of {member.file_size:,} bytes, more than {MOST:,}")
    array: np.ndarray = np.lib.format.read_array(io.BytesIO(archive.read(member)), allow_pickle=False)
    return array


def _fault(cam: np.ndarray, classes: np.ndarray, size: np.ndarray) -> str | None:
    """Say what is wrong with the content of a CAM file."""
    if cam.ndim != 3 or classes.shape != cam.shape[:1] or size.shape != (2,):
        return f"cam {cam.shape}, classes {classes.shape}, size {size.shape}, expected (K, h, w), (K,), (2,)"
    if 0 in cam.shape[1:] or not all(np.issubdtype(x.dtype, np.integer) for x in (classes, size)) or size.min() < 1:
        return f"maps {cam.shape[1:]}, classes of {classes.dtype}, size {size.tolist()}, expected whole numbers above 0"
    height, width = size.tolist()
    if cam.shape[1] > height or cam.shape[2] > width or height * width > most_pixels() or max(height, width) > 65535:
        return f"maps {cam.shape[1:]} of a photograph of {height} x {width}, expected at most its size"
    if cam.dtype.kind != "f":
        return f"maps of {cam.dtype}, expected numbers with fractions"
    low, high = cam.min(initial=0), cam.max(initial=0)  # a value that is not a number comes out of both
    if not (low >= -1e-3 and high <= 1 + 1e-3):  # float16 rounds
        return f"values from {low} to {high}, expected numbers in [0, 1]"
    values = classes.tolist()
    if len(set(values)) < len(values) or not all(0 < value < IGNORE for value in values):
        return f"classes {values}, expected mask values 1 to 254, each once"
    return None
