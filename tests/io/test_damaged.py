"""Whatever is wrong with a file, its reader ends in one error that names it, soon, and without much memory."""

import errno
import gzip
import io
import random
import struct
import subprocess
import sys
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from benchmarks.faults.readers import READERS, Read, bad_end, jpeg, mutant, sbd
from tag2mask.cli.archive import check_archive
from tag2mask.cli.settings import check_yaml
from tag2mask.data import folder
from tag2mask.data.prepare.folder import prepare_folder
from tag2mask.data.prepare.voc import read_sbd
from tag2mask.errors import DamagedError, InputError, MissingError, SpaceError
from tag2mask.io.cams import read_cam
from tag2mask.io.files import decoding, read_json
from tag2mask.io.images import read_image, read_size
from tag2mask.io.labels import read_label
from tag2mask.io.provenance import read_inputs
from tests.folders import photograph


def read_config(path: Path) -> None:
    check_yaml(["--config", str(path)])


def raised(error: BaseException) -> BaseException:
    """What `decoding` makes of an error."""
    try:
        with decoding(Path("a.x"), "a thing", "mend it"):
            raise error
    except BaseException as found:
        return found


@pytest.mark.parametrize("kind", [struct.error, KeyError, RecursionError, OSError, DamagedError])
def test_whatever_a_decoder_raises_is_one_error(kind: type[Exception]) -> None:
    reason = "'x' is missing" if kind is KeyError else "x"
    assert str(raised(kind("x"))) == f"a.x cannot be read as a thing ({reason}); mend it"
    assert isinstance(raised(kind("x")), DamagedError)


def test_what_says_the_file_already_passes_and_so_does_ctrl_c() -> None:
    said, other = SpaceError("a.x is too large"), KeyboardInterrupt()
    assert raised(said) is said
    assert raised(other) is other
    assert isinstance(raised(FileNotFoundError()), MissingError)
    full = OSError(errno.ENOSPC, "No space left on device")
    assert raised(full) is full


# Mutants


@pytest.mark.parametrize(("name", "make", "read"), READERS, ids=lambda value: getattr(value, "__name__", value))
def test_a_mutant_is_refused_in_one_error_or_can_be_true(
    name: str, make: Callable[[Path], None], read: Read, tmp_path: Path
) -> None:
    path = tmp_path / name
    make(path)
    rng, whole = random.Random(21), path.read_bytes()
    assert bad_end(read, path) is None
    read(path)
    for _ in range(100):
        path.write_bytes(mutant(whole, rng))
        assert bad_end(read, path) is None, path.read_bytes()


# One by one


def test_sbd_is_read_as_scipy_does(tmp_path: Path) -> None:
    for name in ("plain.mat", "packed.mat"):
        sbd(tmp_path / name)
        expected = loadmat(tmp_path / name)["GTcls"]["Segmentation"][0, 0]
        np.testing.assert_array_equal(read_sbd(tmp_path / name), expected)


@pytest.mark.parametrize("label", [np.full((3, 4), 21), np.zeros((2, 3, 4)), np.zeros((0, 4)), np.full((3, 4), -1.0)])
def test_an_impossible_sbd_label_is_refused(label: np.ndarray, tmp_path: Path) -> None:
    savemat(tmp_path / "a.mat", {"GTcls": {"Segmentation": label}})
    with pytest.raises(DamagedError, match=r"a\.mat cannot be read as an SBD annotation \(an array"):
        read_sbd(tmp_path / "a.mat")


def spoilt_cam(path: Path, **arrays: np.ndarray) -> Path:
    whole = {"cam": np.ones((1, 5, 7), np.float16), "classes": np.array([1]), "size": np.array([20, 28])}
    np.savez_compressed(path, **(whole | arrays))
    return path


@pytest.mark.parametrize(
    ("arrays", "fault"),
    [
        ({"size": np.array([60_000, 60_000])}, "expected at most its size"),
        ({"size": np.array([4, 28])}, "expected at most its size"),
        ({"cam": np.ones((1, 0, 7))}, "expected whole numbers above 0"),
        ({"cam": np.ones((1, 5, 7), np.uint8)}, "maps of uint8"),
        ({"classes": np.array(["cat"])}, "classes of <U3"),
        ({"cam": np.zeros((150, 999, 999), np.float16)}, "more than 250,000,000"),
        ({"size": np.array([12_000, 12_000])}, "scores at the size of the photograph"),
    ],
)
def test_a_cam_file_that_declares_too_much_or_too_little_is_refused(
    arrays: dict[str, np.ndarray], fault: str, tmp_path: Path
) -> None:
    with pytest.raises(DamagedError, match=rf"a\.npz cannot be read as a CAM file \(.*{fault}"):
        read_cam(spoilt_cam(tmp_path / "a.npz", **arrays))


def png(width: int, height: int, *chunks: tuple[bytes, bytes], pixels: bytes = b"") -> bytes:
    """Return a PNG of grey pixels with chunks before them."""
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = [(b"IHDR", head), *chunks, (b"IDAT", zlib.compress(pixels)), (b"IEND", b"")]
    body = ((len(data), kind + data, zlib.crc32(kind + data)) for kind, data in parts)
    whole = (struct.pack(">I", length) + data + struct.pack(">I", checksum) for length, data, checksum in body)
    return b"\x89PNG\r\n\x1a\n" + b"".join(whole)


BOMB = zlib.compress(b"a" * 100_000_000)
PICTURES = {
    "57 bytes that declare 20,000 x 9,000": png(20_000, 9_000),
    "no pixels": png(200, 90),
    "zTXt": png(2, 2, (b"zTXt", b"a\0\0" + BOMB), pixels=b"\0aa" * 2),
    "iCCP": png(2, 2, (b"iCCP", b"a\0\0" + BOMB), pixels=b"\0aa" * 2),
    "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n",
    "text": b"a web page",
    "nothing": b"",
}


@pytest.mark.parametrize("kind", PICTURES)
@pytest.mark.parametrize("read", [read_image, read_label])
def test_a_picture_that_cannot_be_is_one_error(read: Read, kind: str, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PICTURES[kind])
    with pytest.raises(InputError, match=r"a\.png"):
        read(tmp_path / "a.png")


def test_a_flipped_bit_in_exif_is_one_error(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    jpeg(path)
    whole = path.read_bytes()
    for at in range(whole.index(b"Exif"), whole.index(b"Exif") + 80):
        for bit in range(8):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :])
            try:
                read_size(path)
                read_image(path)
            except DamagedError as error:
                assert "a.jpg cannot be read as a photograph" in str(error)  # noqa: PT017


def test_prepare_folder_names_every_bad_photograph(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = ["name,tags", "good,dog", *(f"{number},cat" for number in range(len(PICTURES)))]
    (tmp_path / "tags.csv").write_text("\n".join(lines))
    photograph(tmp_path / "images" / "good.png")
    for number, content in enumerate(PICTURES.values()):
        (tmp_path / "images" / f"{number}.png").write_bytes(content)
    with pytest.raises(DamagedError, match=rf"{len(PICTURES)} thing\(s\) to mend"):
        prepare_folder(tmp_path)
    assert len(capsys.readouterr().out.splitlines()) == len(PICTURES)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("a: &a [b]\n" + "".join(f"c{n}: *a\n" for n in range(11)), "more than 10 aliases"),
        ("a: &a [x, x]\nb: &b [*a, *a, *a, *a]\nc: &c [*b, *b, *b, *b]\nd: [*c, *c, *c, *c]\n", "more than 10 aliases"),
        ("[" * 100_000, "more than 100,000"),
        ("a: " + "[" * 50 + "]" * 50, "30 levels"),
        ("# " + "a" * 200_000, "more than 100,000"),
        ("cams: 2020-99-99", "month must be in 1..12"),
        ("a: \x07", "control characters are not allowed"),
        ("a: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
    ],
)
def test_a_configuration_that_grows_or_is_none_is_refused(content: str, fault: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(content + ("]" if content == "[" * 100_000 else ""))
    with pytest.raises(DamagedError, match=rf"a\.yaml cannot be read as YAML \(.*{fault}"):
        read_config(tmp_path / "a.yaml")


@pytest.mark.parametrize("text", ["[" * 100_000, "9" * 10_000, '{"a": \ud800}'.encode("utf-16", "surrogatepass")])
def test_json_that_cannot_be_is_one_error(text: str | bytes, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DamagedError, match=r"a\.json cannot be read as JSON"):
        read_json(tmp_path / "a.json")


def test_a_field_of_any_length_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "inputs.csv").write_text(f"name,made_from\na,{'x' * 200_000}\n")
    (tmp_path / "tags.csv").write_text(f"name,tags\na,{'x' * 200_000}\n")
    (tmp_path / "head.csv").write_text(f"name,tags,{'x' * 200_000}")
    tables = tmp_path / "tags.csv", tmp_path / "head.csv"
    for read, path in ((read_inputs, tmp_path), *((folder.read_tags, table) for table in tables)):
        with pytest.raises(DamagedError, match="cannot be read as a table"):
            read(path)


def packed(path: Path, *members: tuple[tarfile.TarInfo, Any]) -> Path:
    with gzip.open(path, "wb") as file, tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for member, content in members:
            tar.addfile(member, content)
    return path


class Zeros(io.RawIOBase):
    """A file of zeros without end."""

    def read(self, size: int = -1) -> bytes:
        return bytes(size)


@pytest.mark.slow
def test_an_archive_that_grows_is_refused(tmp_path: Path) -> None:
    entry = tarfile.TarInfo("results/VOC2012/Segmentation/comp6_test_cls/a.png")
    entry.size = 2_000_000_000
    path = packed(tmp_path / "a.tgz", (entry, Zeros()))
    assert path.stat().st_size < 10_000_000
    program = (
        "import pathlib, resource, sys; from tag2mask.cli.archive import check_archive; "
        "resource.setrlimit(resource.RLIMIT_AS, (10**9, 10**9)); check_archive(pathlib.Path(sys.argv[1]), ['a'])"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=False)
    assert "a.tgz cannot be read as a .tgz (it unpacks to too many bytes)" in done.stderr


@pytest.mark.parametrize("kind", PICTURES)
def test_a_bad_mask_in_an_archive_is_named(kind: str, tmp_path: Path) -> None:
    entry = tarfile.TarInfo("results/VOC2012/Segmentation/comp6_test_cls/a.png")
    entry.size = len(PICTURES[kind])
    path = packed(tmp_path / "a.tgz", (entry, io.BytesIO(PICTURES[kind])))
    with pytest.raises(InputError, match=r"would be refused: a\.png "):
        check_archive(path, ["a"])


@pytest.mark.parametrize(
    ("error", "expected", "told"),
    [
        (PermissionError(13, "Permission denied"), MissingError, "kept back by the system .*Permission denied"),
        (IsADirectoryError(21, "Is a directory"), MissingError, "kept back by the system"),
        (OSError(22, "Invalid argument"), DamagedError, "cannot be read as a CAM file"),
        (MemoryError(), SpaceError, "does not fit into memory, or is damaged; shrink it"),
    ],
)
def test_a_file_is_not_called_damaged_for_what_the_system_does(
    error: Exception, expected: type[Exception], told: str, tmp_path: Path
) -> None:
    with pytest.raises(expected, match=told) as raised, decoding(tmp_path / "a.npz", "a CAM file", "delete it"):
        raise error
    assert ("delete it" in str(raised.value)) == (expected is not MissingError)
