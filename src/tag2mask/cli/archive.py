"""The archive of masks that the PASCAL VOC evaluation server takes: written, and checked.

The server wants, in a .tgz, ``results/VOC2012/Segmentation/comp6_test_cls/<id>.png`` for each of the 1,456 ids of
``test``: palette PNGs of the photographs' sizes with values 0 to 20 and no void.
"""

import gzip
import io
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image, UnidentifiedImageError

from tag2mask import classes
from tag2mask.cli.options import Parser
from tag2mask.data.voc import packaged_names, read_ids
from tag2mask.errors import InputError
from tag2mask.io.files import atomic
from tag2mask.io.labels import label_png, read_label

FOLDER = "results/VOC2012/Segmentation/comp6_test_cls"
HIGHEST = len(classes.VOC) - 1
DESCRIPTION = """Write or check the archive that the PASCAL VOC evaluation server takes.

write   reads a folder of label PNGs, those of VOC's test; writes the .tgz of --out, checks it
check   reads an archive as the server would, and names what it would refuse; writes nothing"""
EXAMPLE = """examples
  tag2mask archive write runs/voc/segmentation_resnet50/masks/test
  tag2mask archive check results.tgz

`tag2mask archive write --help` lists its options."""


def archive(words: list[str]) -> int:
    """Run the verb."""
    parser = Parser("tag2mask archive", description=DESCRIPTION, epilog=EXAMPLE)
    which = parser.add_subparsers(dest="what", required=True, metavar="write|check")
    write = which.add_parser("write", help="pack the masks of VOC's test, then check them")
    write.add_argument("labels", type=Path, help="folder of label PNGs, such as runs/voc/.../masks/test")
    write.add_argument("--out", type=Path, default=Path("results.tgz"), help="archive to write (results.tgz)")
    check = which.add_parser("check", help="check an archive")
    check.add_argument("archive", type=Path)
    for each in (write, check):
        each.add_argument("--photos", type=Path, help="VOC's JPEGImages, to compare sizes with")
        each.add_argument("--list", type=Path, help="ids, one a line (the 1,456 of VOC 2012 test)")
    given = parser.parse_args(words)
    names = _names(given.list)
    if given.what == "write":
        write_archive(given.labels, names, given.out)
    path = given.out if given.what == "write" else given.archive
    print(f"{path}: {check_archive(path, names, given.photos)}")
    return 0


def _names(listed: Path | None) -> list[str]:
    if listed is None:
        return packaged_names("test")
    if not listed.is_file():
        raise InputError(f"no list {listed}; expected ids, one a line")
    names = read_ids(listed)
    if not names:
        raise InputError(f"{listed} is empty; expected ids, one a line")
    return names


def write_archive(labels: Path, names: Sequence[str], out: Path) -> None:
    """Pack the label PNGs ``names`` of a folder; the same masks give the same archive, byte for byte.

    Raises:
        InputError: masks are missing, or one holds a value above 20, such as 255.
    """
    missing = [name for name in names if not (labels / f"{name}.png").is_file()]
    if missing:
        raise InputError(
            f"{len(missing)} of {len(names)} masks are not in {labels}, the first {missing[0]}.png; make them with "
            "`tag2mask predict` and --data.init_args.predict_split test"
        )
    with (
        atomic(out) as file,
        gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for name in names:
            content = _encoded(labels / f"{name}.png")
            entry = tarfile.TarInfo(f"{FOLDER}/{name}.png")
            entry.size, entry.mode = len(content), 0o644
            tar.addfile(entry, io.BytesIO(content))


def _encoded(path: Path) -> bytes:
    """A mask as palette PNG, whatever it was written as."""
    label = read_label(path)
    if label.max(initial=0) > HIGHEST:
        raise InputError(f"{path} holds the value {label.max()}; the server takes 0 to {HIGHEST}, no void")
    return label_png(label)


def check_archive(path: Path, names: Sequence[str], photos: Path | None = None) -> str:
    """Check an archive; return what was checked.

    Args:
        path: of the .tgz.
        names: ids that must be there, and no others.
        photos: folder of the photographs ``<id>.jpg`` whose sizes the masks must have.

    Raises:
        InputError: with all that is wrong.
    """
    if photos is not None and not photos.is_dir():
        raise InputError(f"no folder {photos}; name VOC's JPEGImages with --photos")
    wanted, seen, faults = set(names), set[str](), []
    for entry, content in _members(path):
        place = PurePosixPath(entry)
        if str(place.parent) != FOLDER or place.suffix != ".png" or place.stem not in wanted:
            faults.append(f"{entry} does not belong there")
        elif place.stem in seen:
            faults.append(f"{entry} is there twice")
        else:
            seen.add(place.stem)
            faults += [f"{place.name} {fault}" for fault in _faults(content, place.stem, photos)]
    missing = [name for name in names if name not in seen]
    if missing:
        faults.insert(0, f"{len(missing)} of {len(names)} masks are missing, the first {missing[0]}.png")
    if faults:
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise InputError(
            f"{path} would be refused: {'; '.join(faults[:3])}{more}; expected {len(names)} palette PNGs in {FOLDER}, "
            "write it again with `tag2mask archive write`"
        )
    sizes = ", sizes of the photographs" if photos else "; sizes not compared, for want of --photos"
    return f"{len(names)} masks, none missing, none too many, palette PNGs, values 0 to {HIGHEST}{sizes}"


def _members(path: Path) -> Iterator[tuple[str, bytes]]:
    """Names and contents of what is in an archive, other than folders."""
    if not path.is_file():
        raise InputError(f"no archive {path}; write one with `tag2mask archive write`")
    try:
        with tarfile.open(path, "r:gz") as tar:
            for entry in tar:
                if not entry.isdir():
                    file = tar.extractfile(entry) if entry.isfile() else None
                    yield entry.name, file.read() if file else b""
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path} is not a whole .tgz ({error}); write it with `tag2mask archive write`") from None


def _faults(content: bytes, name: str, photos: Path | None) -> Iterator[str]:
    """What is wrong with one mask."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            form, mode, size, values = image.format, image.mode, image.size, np.unique(np.asarray(image))
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        yield f"cannot be read ({error})"
        return
    if form != "PNG" or mode != "P":
        yield f"is a {mode} {form}, not a palette PNG"
    elif values.max(initial=0) > HIGHEST:
        yield f"holds the value {values.max()}"
    if photos is not None:
        expected = _photo_size(photos / f"{name}.jpg")
        if size != expected:
            yield f"is {size[0]} x {size[1]} pixels, its photograph {expected[0]} x {expected[1]}"


def _photo_size(path: Path) -> tuple[int, int]:
    try:
        with Image.open(path) as image:
            return image.size
    except (UnidentifiedImageError, OSError) as error:
        raise InputError(f"{path} cannot be read as a photograph ({error}); name VOC's JPEGImages") from None
