"""CAM files.

Shape letters in this file: K classes of one image, h x w its CAM.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from tag2mask import classes
from tag2mask.errors import InputError
from tag2mask.io.files import atomic

ONE_BY_ROUNDING = 1.001
"""The largest value of a CAM that float16 may make of 1."""


class CAM(NamedTuple):
    """The class activation maps of one photograph.

    Attributes:
        cam: one map a class, in [0, 1], (K, h, w); it covers the whole photograph.
        classes: mask value of each map (1 is the first class), (K,).
        size: height and width of the photograph in pixels, (2,).
    """

    cam: np.ndarray
    classes: np.ndarray
    size: np.ndarray


def write_cam(path: Path, cam: CAM) -> None:
    """Write a CAM file: ``.npz`` without pickle, the maps as float16."""
    with atomic(path) as file:
        np.savez_compressed(
            file,
            cam=np.asarray(cam.cam, np.float16),
            classes=np.asarray(cam.classes, np.int16),
            size=np.asarray(cam.size, np.int32),
        )


def read_cam(path: Path) -> CAM:
    """Read a CAM file.

    Raises:
        InputError: it is missing, cut short or something else; a value is not finite or outside [0, 1]; a class is none
            of 1 to 254 or stands twice.
    """
    try:
        with np.load(path, allow_pickle=False) as data:
            cam = CAM(data["cam"], data["classes"], data["size"])
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; make it with `tag2mask predict`") from None
    except Exception as error:  # numpy, zipfile and zlib raise a dozen kinds for a damaged file
        raise InputError(
            f"{path} is not a whole CAM file ({error}); delete it and run `tag2mask predict` again"
        ) from None
    if cam.cam.ndim != 3 or cam.classes.shape != cam.cam.shape[:1] or cam.size.shape != (2,):
        raise InputError(
            f"{path} holds cam {cam.cam.shape}, classes {cam.classes.shape}, size {cam.size.shape}; "
            "expected (K, h, w), (K,), (2,); run `tag2mask predict` again"
        )
    _check_cam(cam, path)
    return cam


def _check_cam(cam: CAM, path: Path) -> None:
    again = "make it again with `tag2mask predict`"
    if 0 in cam.cam.shape[1:] or not all(np.issubdtype(x.dtype, np.integer) for x in cam[1:]) or cam.size.min() < 1:
        raise InputError(
            f"{path} holds maps of {cam.cam.shape[1]} x {cam.cam.shape[2]}, classes of {cam.classes.dtype}, a size of "
            f"{cam.size.tolist()}; expected sides of at least 1 and whole numbers: {again}"
        )
    low, high = cam.cam.min(initial=0), cam.cam.max(initial=0)  # a value that is no number comes out of both
    if not (low >= 1 - ONE_BY_ROUNDING and high <= ONE_BY_ROUNDING):
        raise InputError(f"{path} holds values from {low} to {high}; expected numbers in [0, 1]: {again}")
    values = cam.classes.tolist()
    if len(set(values)) < len(values) or not all(0 < value < classes.IGNORE for value in values):
        raise InputError(f"{path} is of the classes {values}; expected mask values 1 to 254, each once: {again}")
