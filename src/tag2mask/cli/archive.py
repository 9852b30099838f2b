"""Write or check the archive that the PASCAL VOC evaluation server takes.

write   reads a folder of label PNGs, those of VOC's test; writes the .tgz of --out, checks it
check   reads an archive as the server would, and names what it would refuse; writes nothing

The server wants results/VOC2012/Segmentation/comp6_test_cls/<id>.png for each of the 1,456 ids of
test: palette PNGs of the photographs' sizes with values 0 to 20 and no void.

Examples:
  tag2mask archive write runs/voc/segmentation_resnet50/masks/test
  tag2mask archive check results.tgz

`tag2mask archive write --help` lists its options.
"""

import gzip
import io
import tarfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tag2mask import classes
from tag2mask.cli.options import Parser
from tag2mask.data.voc import packaged_names, read_ids
from tag2mask.errors import DamagedError, InputError, MismatchError, MissingError
from tag2mask.io.files import atomic, decoding
from tag2mask.io.images import FORMATS, read_size
from tag2mask.io.labels import label_png, read_label

FOLDER = "results/VOC2012/Segmentation/comp6_test_cls"
HIGHEST = len(classes.VOC) - 1
MOST = 250_000_000  # bytes, unpacked; the masks of VOC's test have 20 MB
MOST_PIXELS = 4_000_000  # of a mask; those of VOC have 250,000 at most


def archive(words: list[str]) -> None:
    """Run the verb."""
    parser = Parser("tag2mask archive", __doc__)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="write|check")
    write = verbs.add_parser("write", help="pack the masks of VOC's test, then check them")
    write.add_argument("labels", type=Path, help="folder of label PNGs, such as runs/voc/.../masks/test")
    write.add_argument("--out", type=Path, default=Path("results.tgz"), help="archive to write (results.tgz)")
    check = verbs.add_parser("check", help="check an archive")
    check.add_argument("out", metavar="archive", type=Path)
    for each in (write, check):
        each.add_argument("--photos", type=Path, help="VOC's JPEGImages, to compare sizes with")
        each.add_argument("--list", type=Path, help="ids, one a line (the 1,456 of VOC 2012 test)")
    args = parser.parse_args(words)
    names = packaged_names("test") if args.list is None else read_ids(args.list)
    if not names:
        raise DamagedError(f"{args.list} is empty; expected ids, one a line")
    if args.verb == "write":
        write_archive(args.labels, names, args.out)
    print(f"{args.out}: {check_archive(args.out, names, args.photos)}")


def write_archive(labels: Path, names: Sequence[str], out: Path) -> None:
    """Pack the label PNGs ``names`` of a folder; the same masks give the same archive, byte for byte.

    ``MissingError`` where masks are missing, ``MismatchError`` where one holds a value above 20, such as 255.
    """
    gone = [f"{name}.png" for name in names if not (labels / f"{name}.png").is_file()]
    if gone:
        remedy = "`tag2mask predict` with --data.init_args.predict_split test makes them"
        raise MissingError(f"{len(gone)} of {len(names)} masks are not in {labels}, the first {gone[0]}; {remedy}")
    with (
        atomic(out) as file,
        gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for name in names:
            path = labels / f"{name}.png"
            label = read_label(path)
            if label.max(initial=0) > HIGHEST:
                raise MismatchError(f"{path} holds the value {label.max()}; the server takes 0 to {HIGHEST}, no void")
            content = label_png(label)  # a palette PNG, whatever the file is
            entry = tarfile.TarInfo(f"{FOLDER}/{name}.png")
            entry.size, entry.mode = len(content), 0o644
            tar.addfile(entry, io.BytesIO(content))


def check_archive(path: Path, names: Sequence[str], photos: Path | None = None) -> str:
    """Check that a .tgz holds the masks ``names`` and no others; return what was checked.

    With ``photos``, a folder of ``<id>.jpg``, sizes are compared too. ``MismatchError`` names the first three faults.
    """
    with (
        decoding(path, "a .tgz", "write it with `tag2mask archive write`"),
        gzip.open(path) as packed,
        tarfile.open(fileobj=_Limited(packed, MOST), mode="r|") as tar,  # type: ignore[call-overload]
    ):
        entries = ((entry, tar.extractfile(entry) if entry.isfile() else None) for entry in tar if not entry.isdir())
        files = [(entry.name.removeprefix("./"), file.read() if file else b"") for entry, file in entries]
    expected = {f"{FOLDER}/{name}.png": f"{name}.png" for name in names}
    counts = Counter(entry for entry, _ in files)
    missing = [name for entry, name in expected.items() if entry not in counts]
    faults = [f"{len(missing)} of {len(names)} masks are missing, the first {missing[0]}"] if missing else []
    faults += [f"{entry} does not belong there" for entry in counts if entry not in expected]
    faults += [f"{entry} is there twice" for entry, count in counts.items() if count > 1]
    faults += filter(None, (_fault(content, Path(entry), photos) for entry, content in files if entry in expected))
    if faults:
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        remedy = f"expected {len(names)} palette PNGs in {FOLDER}; write it with `tag2mask archive write`"
        raise MismatchError(f"{path} would be refused: {'; '.join(faults[:3])}{more}; {remedy}")
    sizes = ", sizes of the photographs" if photos else "; sizes not compared, for want of --photos"
    return f"{len(names)} masks, none missing, none too many, palette PNGs, values 0 to {HIGHEST}{sizes}"


class _Limited:
    """A file of which more than ``most`` bytes are a ``ValueError``: a few packed bytes may unpack to any number."""

    def __init__(self, file: Any, most: int) -> None:
        self.file, self.left = file, most

    def read(self, size: int) -> bytes:
        self.left -= size
        if self.left < 0:
            raise ValueError("it unpacks to too many bytes")
        content: bytes = self.file.read(size)
        return content


def _fault(content: bytes, path: Path, photos: Path | None) -> str | None:
    """The first fault of a mask, with its name; None where it is as the server wants it."""
    try:
        with decoding(path, "a mask", "write it again"), Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:
                raise ValueError(f"{image.width} x {image.height} pixels")
            kind, mode, size, highest = image.format, image.mode, image.size, np.asarray(image).max(initial=0)
    except InputError as error:
        return f"{path.name} {str(error).removeprefix(str(path)).split(';')[0].strip()}"
    if kind != "PNG" or mode != "P":
        return f"{path.name} is a {mode} {kind}, not a palette PNG"
    if highest > HIGHEST:
        return f"{path.name} holds the value {highest}"
    height, width = size[::-1] if photos is None else read_size(photos / f"{path.stem}.jpg")
    fault = f"{path.name} is {size[0]} x {size[1]} pixels, its photograph {width} x {height}"
    return None if size == (width, height) else fault
