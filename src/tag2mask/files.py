"""The files that the stages pass to each other: CAM files, label PNGs and ``run.json``.

Every file is written beside its place and then moved over it, so that a killed process leaves the old file or none.
Shape letters in this file: K classes of one image, H x W the photograph, h x w its CAM.
"""

import hashlib
import io
import json
import os
import platform
import subprocess
import sys
import unicodedata
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageOps, PngImagePlugin, UnidentifiedImageError

from tag2mask import __version__, classes
from tag2mask.errors import InputError

RUN_FILE = "run.json"
STEPS = "steps"
"""Folder, within a folder of labels, of the label maps after each step before the last: ``steps/<step>``."""
RUN_LENGTHS = 3
"""What zlib calls Z_RLE: of repeated pixels it finds those side by side alone."""
PHOTO_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


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


def read_text(path: Path) -> str:
    """Read a text, without its byte-order mark; ``InputError`` where it is not UTF-8."""
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from None


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
    """Read a CAM file; ``InputError`` where it is missing, cut short or something else."""
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
    return cam


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


def read_image(path: Path) -> np.ndarray:
    """Read a photograph of any mode as RGB, (H, W, 3) uint8, turned as its EXIF orientation says."""
    try:
        with Image.open(path) as image:
            upright: Image.Image = image
            ImageOps.exif_transpose(upright, in_place=True)
            return rgb(upright)
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


def find_photo(folder: Path, name: str) -> Path | None:
    """Return the photograph of that name in a folder, whatever its ending; None where there is none."""
    for ending in PHOTO_ENDINGS:
        for path in (folder / f"{name}{ending}", folder / f"{name}{ending.upper()}"):
            if path.is_file():
                return path
    return None


def near_photo(folder: Path, name: str) -> str:
    """Say which file may be meant by the name of a photograph that is not there; empty where none is near.

    Args:
        folder: where it was looked for; folders in it are looked into.
        name: with or without ending.
    """
    stem = Path(name).stem if Path(name).suffix.lower() in PHOTO_ENDINGS else name
    for path in _listing(folder):
        if _plain(path.name) != _plain(name) and _plain(path.stem) != _plain(stem):
            continue
        if path.suffix.lower() not in PHOTO_ENDINGS:
            return (
                f"; {path} is there, but {path.suffix or 'a file without ending'} is not read: save it as JPEG or PNG"
            )
        if path.parent != folder:
            return f"; {path} is there: name its folder, or move it"
        if unicodedata.normalize("NFC", path.stem) == unicodedata.normalize("NFC", stem) and path.stem != stem:
            return f"; {path} is there in another Unicode form of that name: rename one as the other"
        return f"; {path} is there: rename one as the other"
    return ""


@lru_cache(4)  # every name of a list may be missing
def _listing(folder: Path) -> tuple[Path, ...]:
    return tuple(sorted(path for pattern in ("*", "*/*") for path in folder.glob(pattern) if path.is_file()))


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def rgb(image: Image.Image) -> np.ndarray:
    """Return the pixels of a picture of any mode as RGB, (H, W, 3) uint8."""
    if image.mode.startswith(("I", "F")):  # Pillow would cut these off at 255
        image = _eight_bits(np.asarray(image, np.float64))
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))  # no copy more than needed


def _eight_bits(values: np.ndarray) -> Image.Image:
    """Scale grey values of 16 bits, or of any larger range, to 8 bits; smaller ones stay."""
    top = 255 if values.max() <= 255 else max(65535.0, values.max())
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
