"""The files that the stages pass to each other: CAM files, label PNGs and ``run.json``.

Every file is written beside its place and then moved over it, so that a killed process leaves the old file or none.
Shape letters in this file: K classes of one image, H x W the photograph, h x w its CAM.
"""

import hashlib
import io
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageOps, PngImagePlugin, UnidentifiedImageError

from tag2mask import __version__, classes, listing
from tag2mask.errors import InputError

RUN_FILE = "run.json"
STEPS = "steps"
"""Folder, within a folder of labels, of the label maps after each step before the last: ``steps/<step>``."""
RUN_LENGTHS = 3
"""What zlib calls Z_RLE: of repeated pixels it finds those side by side alone."""
ONE_BY_ROUNDING = 1.001
"""The largest value of a CAM that float16 may make of 1."""
TO_ONE_CLASS = (
    "import sys, pathlib, numpy as np; from PIL import Image; [Image.fromarray(np.minimum(Image.open(path), 1))"
    '.save(path) for path in pathlib.Path(sys.argv[1]).glob("[!.]*.[pP][nN][gG]")]'
)
"""A program that writes 1 over every value above 0 in the masks of a folder."""


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


@contextmanager
def atomic(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes the place of ``path`` when the block ends well, and vanishes when it does not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(part, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def remove_parts(folder: Path, names: Collection[str]) -> None:
    """Delete what killed processes left half-written in ``folder``, of files called ``names`` without their endings."""
    for part in folder.glob(".*.part"):
        if part.name[1:].rsplit(".", 3)[0] in names:
            part.unlink(missing_ok=True)


def write_json(path: Path, data: Any) -> None:
    """Write ``data`` as indented JSON; tuples become lists and paths text."""
    text = json.dumps(data, indent=2, ensure_ascii=False, default=str)
    with atomic(path) as file:
        file.write(text.encode(errors="backslashreplace") + b"\n")  # names of files may be any bytes


def read_json(path: Path) -> Any:
    """Read a JSON file; ``InputError`` where it is missing or damaged."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except (ValueError, OSError) as error:
        raise InputError(f"{path} is not a JSON file ({error}); delete it and make it again") from error


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


def write_label(path: Path, label: np.ndarray, note: str | None = None) -> None:
    """Write a label map (H, W) of mask values as a palette PNG, with a ``note`` for `read_note`."""
    content = label_png(label, note)
    with atomic(path) as file:
        file.write(content)


def label_png(label: np.ndarray, note: str | None = None) -> bytes:
    """Return the content of the file that `write_label` writes."""
    image = Image.fromarray(np.asarray(label, np.uint8), mode="P")
    image.putpalette(classes.palette().tobytes())
    text = PngImagePlugin.PngInfo()
    if note is not None:
        text.add_itxt("Comment", note)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", pnginfo=text)
    return buffer.getvalue()


def read_label(path: Path) -> np.ndarray:
    """Read a label map, (H, W) uint8: the values of a palette or grey PNG."""
    try:
        with Image.open(path) as image:
            if image.mode not in ("P", "L", "1"):
                raise InputError(
                    f"{path} is a {image.mode} picture; a mask holds class numbers: save it as a palette or grey PNG"
                )
            return np.array(image, dtype=np.uint8)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; a mask of that name was expected") from None
    except Image.DecompressionBombError:
        raise _too_large(path) from None
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise InputError(f"{path} cannot be read as a mask ({error}); replace it") from None


def require_classes(masks: Sequence[Path]) -> None:
    """Refuse masks that hold the values 0 and 255 alone, all over: 255 is ``IGNORE``, so they are of no class.

    Opens masks until one of them shows a class: most often the first.

    Raises:
        InputError: with the command that makes masks of one class of them.
    """
    ignored = False
    for path in masks:
        values = np.unique(read_label(path))
        if np.setdiff1d(values, (classes.BACKGROUND, classes.IGNORE)).size:
            return
        ignored = ignored or classes.IGNORE in values
    if ignored:
        command = shlex.join([sys.executable, "-c", TO_ONE_CLASS, str(masks[0].parent)])
        raise InputError(
            f"the masks in {masks[0].parent} hold only 0 and 255, which are the background and what is ignored: no "
            f"class; if 255 stands for one class, this writes 1 in its place: {command}"
        )


def read_image(path: Path) -> np.ndarray:
    """Read a photograph of any mode as RGB, (H, W, 3) uint8, turned as its EXIF orientation says; see `rgb`."""
    try:
        with Image.open(path) as image:
            deep = any(";16" in str(tile[-1]) for tile in getattr(image, "tile", ()))
            upright: Image.Image = image
            ImageOps.exif_transpose(upright, in_place=True)
            pixels = rgb(upright)
            if deep and not upright.mode.startswith("I") and 0 < pixels.max() < 16:
                raise InputError("colours of 12 bits in 16, of which 4 could be read: save it with 8 bits")
            return pixels
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; put the photograph there or take its name off the list") from None
    except Image.DecompressionBombError:
        raise _too_large(path) from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read as a photograph ({error}); replace it or take its name off the list"
        ) from None


def read_size(path: Path) -> tuple[int, int]:
    """Read height and width of a picture as `read_image` turns it, from the head of its file alone."""
    try:
        with Image.open(path) as image:
            return (image.width, image.height) if _turned(image) else (image.height, image.width)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; put the photograph there or take its name off the list") from None
    except Image.DecompressionBombError:
        raise _too_large(path) from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read as a picture ({error}); replace it or take its name off the list"
        ) from None


def _too_large(path: Path) -> InputError:
    limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)  # where Pillow refuses
    return InputError(f"{path} has more than {limit:,} pixels, the limit; shrink it, and its mask with it")


def _turned(image: Image.Image) -> bool:
    """Whether the EXIF orientation of a picture exchanges its height and width."""
    return image.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)


def sizes_hint(photo: Path, size: Iterable[int], other: Iterable[int]) -> str:
    """Say what to do where something of a photograph has another size: its EXIF orientation may be why.

    Args:
        photo: the photograph.
        size: its height and width, as `read_image` turns it.
        other: those of the mask or CAM.
    """
    try:
        with Image.open(photo) as image:
            turned = tuple(other) == tuple(size)[::-1] and _turned(image)
    except OSError:
        turned = False
    if turned:
        return "the photograph is turned by its EXIF orientation, the other is not: turn that, or remove the EXIF tag"
    return "they must be of one size"


def is_deep(path: Path) -> bool:
    """Say whether a picture has grey values of more than 8 bits, or floats, which `rgb` scales; False where unread."""
    try:
        with Image.open(path) as image:
            return image.mode.startswith(("I", "F"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return False


def find_photo(folder: Path, name: str) -> Path | None:
    """Return the photograph of that name in a folder, whatever its ending; None where there is none.

    Lists the folder each time; for many names `listing.photos_in` lists it once.
    """
    wanted, photos = listing.unified(name), listing.paths_in(folder, listing.PHOTO_ENDINGS)
    return next((path for path in photos if listing.unified(path.stem) == wanted), None)


def rgb(image: Image.Image) -> np.ndarray:
    """Return the pixels of a picture of any mode as RGB, (H, W, 3) uint8.

    Grey values of more than 8 bits are scaled by the range that their maximum tells: up to 255 they stay, up to 4095
    they are 12 bits in 16, else 16 bits or more. Those of a float picture that are at most 1 are in [0, 1].

    Raises:
        InputError: a value is not finite, or far below zero.
    """
    if image.mode.startswith(("I", "F")):  # Pillow would cut these off at 255
        image = _eight_bits(np.asarray(image, np.float64), whole=image.mode != "F")
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))  # no copy more than needed


def _eight_bits(values: np.ndarray, whole: bool) -> Image.Image:
    """Scale grey values to 8 bits, by the rule of `rgb`."""
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all() or low < -high / 100:
        raise InputError(f"grey values from {low:g} to {high:g}: save it with values from 0 to 255")
    top = next((top for top in (*([] if whole else [1]), 255, 4095, 65535) if high <= top), high)
    return Image.fromarray((values.clip(0) / top * 255).round().astype(np.uint8))


def write_picture(path: Path, picture: np.ndarray, fast: bool = False) -> None:
    """Write an RGB array (H, W, 3) uint8 as PNG; ``fast`` in half to a third of the time, of about the same size."""
    how = {"compress_type": RUN_LENGTHS} if fast else {}
    with atomic(path) as file:
        Image.fromarray(picture).save(file, format="PNG", **how)


def write_jpeg(path: Path, picture: np.ndarray, note: str) -> None:
    """Write an RGB array (H, W, 3) uint8 as JPEG, with a ``note`` for `read_note`."""
    with atomic(path) as file:
        Image.fromarray(picture).save(file, format="JPEG", quality=90, comment=note.encode())


def read_note(path: Path) -> str | None:
    """Return the note that a picture of ours holds, None where there is none."""
    try:
        with Image.open(path) as image:
            note = image.info.get("Comment", image.info.get("comment"))
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
    return note.decode(errors="replace") if isinstance(note, bytes) else note


def commit() -> str:
    """Return the commit of the source tree that runs, with ``+changes`` where files differ from it, or ``unknown``."""
    folder = Path(__file__).parent

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=20, check=True
        )
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)  # not a copy that lies in somebody else's repository
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "--", str(folder)) else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that numbers depend on."""
    names = ("torch", "torchvision", "lightning", "timm", "albumentations", "numpy", "opencv-python-headless")
    found = {"tag2mask": __version__, "python": platform.python_version()}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def write_run(folder: Path, config: dict[str, Any], **facts: Any) -> None:
    """Write ``run.json`` into ``folder``: the configuration, the command, commit, versions, time and ``facts``."""
    record = {
        "config": config,
        "command": " ".join(sys.argv),
        "commit": commit(),
        "versions": versions(),
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        **facts,
    }
    write_json(Path(folder) / RUN_FILE, record)


def digest(path: Path, kind: str = "sha256") -> str:
    """Return the digest of a file, in hexadecimal digits."""
    found = hashlib.new(kind)
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            found.update(block)
    return found.hexdigest()


def made_with(folder: Path) -> str | None:
    """Return a digest of the configuration that the outputs in ``folder`` were made with; None where nothing says."""
    path = Path(folder) / RUN_FILE
    if not path.is_file():
        return None
    config = read_json(path).get("config", {})
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


def same_run(folder: Path, config: dict[str, Any], overwrite: bool = False) -> bool:
    """Say whether the outputs in ``folder`` were made with ``config``, so that the work can be taken up there.

    Returns:
        False where the folder has no ``run.json`` (nothing was begun) or where ``overwrite`` is set.

    Raises:
        InputError: they were made with another configuration.
    """
    path = Path(folder) / RUN_FILE
    if overwrite or not path.exists():
        return False
    record = read_json(path)
    if not isinstance(record, dict):
        raise InputError(f"{path} is not the record of a run; delete it, and what is beside it if you do not know it")
    before = record.get("config")
    now = json.loads(json.dumps(config, default=str))
    if before != now:
        raise InputError(
            f"{folder} was made with another configuration ({first_difference(before, now)}); give --overwrite to "
            "replace it, or name another folder"
        )
    return True


def first_difference(before: Any, now: Any, name: str = "") -> str:
    """Name the first place where two configurations differ, as ``trainer.max_epochs: 15, now 20``."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in [*before, *(k for k in now if k not in before)]:
            if before.get(key) != now.get(key):
                return first_difference(before.get(key), now.get(key), f"{name}.{key}".strip("."))
    return f"{name or 'it'}: {before!r}, now {now!r}"
