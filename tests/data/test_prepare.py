import hashlib
import io
import shutil
import tarfile
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from tag2mask.cli.main import main
from tag2mask.data import voc
from tag2mask.data.prepare import fetch
from tag2mask.data.prepare import voc as prepare
from tag2mask.data.prepare.fetch import Archive
from tag2mask.data.prepare.folder import prepare_folder
from tag2mask.data.prepare.voc import derive_aug, prepare_voc, read_sbd
from tag2mask.errors import DamagedError, InputError, MissingError
from tag2mask.io.labels import read_label, write_label
from tag2mask.io.records import digest_of_file
from tests.commands import line
from tests.folders import photograph, tags_file

# PASCAL VOC


def write_sbd(path: Path, mask: np.ndarray) -> None:
    """Write an SBD annotation."""
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"GTcls": {"Segmentation": mask, "CategoriesPresent": np.unique(mask)}}, do_compression=True)


OFFICIAL, OTHERS = np.full((4, 5), 3, np.uint8), np.arange(20, dtype=np.uint8).reshape(4, 5)


@pytest.fixture
def published(devkit: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the devkit and SBD: ``a`` has an official mask, and both have one of SBD's."""
    root = devkit.parent
    (root / "VOCdevkit").mkdir()
    devkit = devkit.rename(root / "VOCdevkit" / "VOC2012")
    for split in ("train", "val", "test"):
        (devkit / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("a\n")
    write_label(devkit / "SegmentationClass" / "a.png", OFFICIAL)
    for name in ("a", "b"):
        write_sbd(root / "SBD" / "cls" / f"{name}.mat", OTHERS)
    monkeypatch.setattr(voc, "packaged_names", lambda split: ["a", "b"])
    return root


def test_read_sbd_gives_back_the_segmentation(tmp_path: Path) -> None:
    write_sbd(tmp_path / "a.mat", OTHERS)
    found = read_sbd(tmp_path / "a.mat")
    np.testing.assert_array_equal(found, OTHERS)
    assert found.dtype == np.uint8


def test_derived_masks_are_the_official_ones_where_there_are_and_sbds_elsewhere(published: Path) -> None:
    devkit = published / "VOCdevkit" / "VOC2012"
    assert derive_aug(devkit, published / "nowhere") == ["b"]
    assert derive_aug(devkit, published / "SBD") == []
    np.testing.assert_array_equal(read_label(devkit / "SegmentationClassAug" / "a.png"), OFFICIAL)
    np.testing.assert_array_equal(read_label(devkit / "SegmentationClassAug" / "b.png"), OTHERS)


def test_prepare_voc_derives_what_is_lacking_and_counts_what_there_is(published: Path) -> None:
    table = prepare_voc(published, download=False)
    rows = {line.split()[0]: line.split()[1:5] for line in table.splitlines()[1:]}
    assert rows["trainaug"] == ["2", "2", "2", "2"]
    assert rows["train"][:4] == ["1", "1", "1", "1"]


def test_prepare_voc_finds_sbd_elsewhere(published: Path) -> None:
    elsewhere = (published / "SBD").rename(published / "benchmark")
    prepare_voc(published, elsewhere, download=False)
    assert (published / "VOCdevkit" / "VOC2012" / "SegmentationClassAug" / "b.png").is_file()


def test_prepare_voc_downloads_nothing_that_is_there(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "_download", lambda *_, **__: pytest.fail("asked the network"))
    assert "trainaug" in prepare_voc(published)


def test_without_download_what_is_missing_is_named_with_the_archive_that_has_it(
    published: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (published / "SBD" / "cls" / "b.mat").unlink()
    with pytest.raises(MissingError, match=r"no whole .*benchmark\.tgz.*--no-download.*https://"):
        prepare_voc(published, download=False)
    (published / "VOCdevkit" / "VOC2012" / "Annotations" / "a.xml").unlink()
    with pytest.raises(MissingError, match=r"no whole .*VOCtrainval_11-May-2012\.tar.*--no-download.*https://"):
        prepare_voc(published, download=False)
    assert "1 annotations of train, 1 annotations of val, 1 annotations of trainaug" in capsys.readouterr().err


def test_a_name_of_a_list_that_is_in_no_archive_is_counted(archives: Path, tmp_path: Path) -> None:
    archives.rename(tmp_path / "data")
    devkit = tmp_path / "data" / "VOCdevkit" / "VOC2012"
    (devkit / "ImageSets" / "Segmentation").mkdir(parents=True)
    (devkit / "ImageSets" / "Segmentation" / "val.txt").write_text("a\nghost\n")
    with pytest.raises(MissingError, match="1 images of val, 1 annotations of val, 1 masks of val"):
        prepare_voc(tmp_path / "data", download=False)


# Fetching VOC and SBD


def packed(path: Path, content: dict[str, bytes]) -> Archive:
    """Write an archive, and say what is published of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz" if path.suffix == ".tgz" else "w") as tar:
        for name, data in content.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return Archive(path.as_uri(), digest_of_file(path, "md5"), path.stat().st_size)


@pytest.fixture
def archives(published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The published folder as two archives on a site; the folder itself is gone."""
    voc_files = [path for path in sorted((published / "VOCdevkit").rglob("*")) if path.is_file()]
    sbd_files = sorted((published / "SBD" / "cls").iterdir())
    site = tmp_path / "site"
    base = "benchmark_RELEASE/dataset"
    cls = {f"{base}/cls/{path.name}": path.read_bytes() for path in sbd_files} | {f"{base}/img/a.jpg": b"large"}
    devkit = {path.relative_to(published).as_posix(): path.read_bytes() for path in voc_files}
    monkeypatch.setattr(prepare, "VOC", packed(site / "VOCtrainval_11-May-2012.tar", devkit))
    monkeypatch.setattr(prepare, "SBD", packed(site / "benchmark.tgz", cls))
    monkeypatch.setattr(voc, "SPLITS", dict.fromkeys(voc.SPLITS, 1))
    shutil.rmtree(published / "VOCdevkit")
    shutil.rmtree(published / "SBD")
    return site


def parts(folder: Path) -> list[Path]:
    return [path for path in folder.rglob(".*") if path.name.startswith(".")]


@pytest.mark.parametrize(
    ("words", "place", "sbd"),
    [
        (["--root", "data"], "data/VOCdevkit/VOC2012", "data/SBD"),
        (["--root", "other/VOC2012"], "other/VOC2012", "other/VOC2012/SBD"),
        (["--devkit", "other"], "other", "other/SBD"),
        (["--devkit", "data/VOCdevkit/VOC2012"], "data/VOCdevkit/VOC2012", "data/SBD"),
    ],
)
def test_voc_is_fetched_to_where_it_is_named(
    words: list[str], place: str, sbd: str, archives: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["prepare", "voc", *words]) == 0
    devkit = tmp_path / place
    assert {path.name for path in (devkit / "JPEGImages").iterdir()} == {"a.jpg", "b.jpg"}
    assert {path.name for path in (devkit / "SegmentationClassAug").iterdir()} == {"a.png", "b.png"}
    assert (tmp_path / sbd / "cls" / "b.mat").is_file()
    assert not list(tmp_path.rglob("img"))
    assert parts(tmp_path) == []
    shutil.rmtree(archives)
    assert main(["prepare", "voc", *words]) == 0


@pytest.mark.parametrize("harm", ["cut short", "another file"])
@pytest.mark.parametrize("name", ["VOCtrainval_11-May-2012.tar", "benchmark.tgz"])
def test_an_archive_that_is_not_whole_is_told_and_fetched_again(
    name: str, harm: str, archives: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "data"
    root.mkdir()
    whole = (archives / name).read_bytes()
    (root / name).write_bytes(whole[: len(whole) // 2] if harm == "cut short" else b"<html>")
    assert main(["prepare", "voc", "--root", str(root), "--no-download"]) == 2
    assert not (root / "VOCdevkit" / "VOC2012" / "JPEGImages").exists()
    capsys.readouterr()
    assert main(["prepare", "voc", "--root", str(root)]) == 0
    assert f"{root / name} is cut short or another file" in capsys.readouterr().err
    assert (root / name).read_bytes() == whole


def test_a_published_archive_of_another_checksum_is_refused(
    archives: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "VOC", prepare.VOC._replace(md5="0" * 32))
    root = tmp_path / "data"
    for _ in range(2):
        assert main(["prepare", "voc", "--root", str(root)]) == 2
        assert f"cannot be fetched (the MD5 of what came is not {'0' * 32})" in line(capsys)
        assert not root.exists()  # nothing was written


def test_an_archive_put_there_by_hand_needs_no_network(archives: Path, tmp_path: Path) -> None:
    archives.rename(tmp_path / "data")
    assert main(["prepare", "voc", "--root", str(tmp_path / "data"), "--no-download"]) == 0


@pytest.mark.parametrize("kind", ["above", "absolute", "link", "hard link"])
def test_nothing_is_unpacked_outside_its_folder(kind: str, tmp_path: Path) -> None:
    outside, path = tmp_path / "outside", tmp_path / "in" / "a.tar"
    outside.mkdir()
    path.parent.mkdir()
    (outside / "mine").write_text("mine")
    entries = {
        "above": [("../../outside/mine", tarfile.REGTYPE, "")],
        "absolute": [(str(outside / "mine"), tarfile.REGTYPE, "")],
        "link": [("out", tarfile.SYMTYPE, str(outside)), ("out/mine", tarfile.REGTYPE, "")],
        "hard link": [("out", tarfile.LNKTYPE, "../../outside/mine"), ("out", tarfile.REGTYPE, "")],
    }[kind]
    with tarfile.open(path, "w") as tar:
        for name, type_, target in entries:
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname, entry.size = type_, target, 4 * (type_ == tarfile.REGTYPE)
            tar.addfile(entry, io.BytesIO(b"evil"))
    with suppress(DamagedError), fetch.unpacked(path):  # an absolute name is taken as one within
        pass
    assert (outside / "mine").read_text() == "mine"


@pytest.mark.parametrize("moved", [0, 1, 3])
def test_killed_while_unpacking_it_goes_on_and_photographs_appear_last(
    moved: int, archives: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, done = tmp_path / "data", []
    real = fetch.put

    def killed(source: Path, target: Path) -> None:
        if len(done) == moved:
            raise KeyboardInterrupt
        done.append(target.name)
        real(source, target)

    monkeypatch.setattr(prepare, "put", killed)
    assert main(["prepare", "voc", "--root", str(root)]) == 130
    assert "JPEGImages" not in done
    assert not (root / "VOCdevkit" / "VOC2012" / "JPEGImages").exists()
    (root / ".VOCtrainval_11-May-2012.tar.unpacked" / "VOCdevkit").mkdir(parents=True)  # as SIGKILL leaves it
    monkeypatch.setattr(prepare, "put", real)
    (archives / "VOCtrainval_11-May-2012.tar").unlink()
    assert main(["prepare", "voc", "--root", str(root)]) == 0
    assert parts(root) == []


def test_a_folder_half_unpacked_by_another_program_is_mended_and_what_stands_is_kept(
    archives: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    devkit = tmp_path / "data" / "VOCdevkit" / "VOC2012"
    assert main(["prepare", "voc", "--root", str(tmp_path / "data")]) == 0
    whole = (devkit / "JPEGImages" / "a.jpg").read_bytes()
    (devkit / "JPEGImages" / "b.jpg").unlink()
    (devkit / "JPEGImages" / "a.jpg").write_bytes(whole[:100])  # where the other program was killed
    (devkit / "Annotations" / "a.xml").write_text((devkit / "Annotations" / "a.xml").read_text() + "<!-- mine -->")
    assert main(["prepare", "voc", "--devkit", str(devkit)]) == 0
    assert f"missing in {devkit}: 1 images of trainaug" in capsys.readouterr().err
    assert (devkit / "JPEGImages" / "a.jpg").read_bytes() == whole
    assert (devkit / "JPEGImages" / "b.jpg").is_file()
    assert "mine" in (devkit / "Annotations" / "a.xml").read_text()


@pytest.mark.parametrize("name", ["VOC", "SBD"])
def test_a_refused_download_is_one_line_that_names_the_way_round(
    name: str, archives: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = getattr(prepare, name)._replace(address="http://127.0.0.1:9/voc.tar")
    monkeypatch.setattr(prepare, name, archive)
    assert main(["prepare", "voc", "--root", str(tmp_path / "data")]) == 2
    told = line(capsys)
    assert told.startswith("tag2mask: http://127.0.0.1:9/voc.tar cannot be fetched (")
    assert told.endswith(f"or fetch it by hand and put it into {tmp_path / 'data'}")


def test_training_on_tags_needs_no_masks_of_sbd(
    archives: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "SBD", prepare.SBD._replace(address="http://127.0.0.1:9/benchmark.tgz"))
    assert main(["prepare", "voc", "--root", str(tmp_path / "data"), "--tags"]) == 0
    assert "masks of trainaug are missing: training on tags needs none" in capsys.readouterr().err


class Server(BaseHTTPRequestHandler):
    """Serves one file, and breaks off in the middle of the first answer."""

    content = b""
    asked: ClassVar[list[str | None]] = []
    ranges = True

    def do_GET(self) -> None:
        wanted = self.headers["Range"]
        self.asked.append(wanted)
        start = int(wanted[len("bytes=") : -1]) if wanted and self.ranges else 0
        self.send_response(206 if wanted and self.ranges else 200)
        self.send_header("Content-Length", str(len(self.content) - start))
        self.end_headers()
        self.wfile.write(self.content[start : len(self.content) // 2 if len(self.asked) == 1 else None])

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("ranges", [True, False])
def test_a_download_goes_on_where_the_connection_broke_off(
    ranges: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = np.random.default_rng(0).bytes(100_000)
    monkeypatch.setattr(Server, "content", content)
    monkeypatch.setattr(Server, "asked", [])
    monkeypatch.setattr(Server, "ranges", ranges)
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/it.tar"
        archive = Archive(address, hashlib.md5(content).hexdigest(), len(content))
        with pytest.raises(InputError, match=r"cannot be fetched \(.*broke"):
            fetch.obtain(archive, tmp_path)
        assert not (tmp_path / "it.tar").exists()
        assert fetch.obtain(archive, tmp_path) == tmp_path / "it.tar"
        server.shutdown()
    assert Server.asked == [None, "bytes=50000-"]
    assert (tmp_path / "it.tar").read_bytes() == content
    assert parts(tmp_path) == []


def test_an_sbd_file_of_something_else_is_named(tmp_path: Path) -> None:
    savemat(tmp_path / "a.mat", {"other": np.zeros(3)})
    with pytest.raises(InputError, match=r"a\.mat cannot be read as an SBD annotation"):
        read_sbd(tmp_path / "a.mat")


@pytest.mark.parametrize("damage", ["emptied", "flipped"])
def test_a_damaged_sbd_file_is_named(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    write_sbd(path, np.random.default_rng(0).integers(0, 21, (40, 50), dtype=np.uint8))
    whole = path.read_bytes()
    path.write_bytes(b"" if damage == "emptied" else whole[:500] + bytes([whole[500] ^ 255]) + whole[501:])
    with pytest.raises(InputError, match=r"a\.mat"):
        read_sbd(path)


# One's own folder


def test_prepare_folder_counts_what_it_finds(own: Path) -> None:
    report = prepare_folder(own)
    assert "3 photographs, 2 tagged, 1 with a mask" in report
    assert [line.split()[:3] for line in report.splitlines()[1:3]] == [["1", "cat", "1"], ["2", "dog", "2"]]
    assert "0 with an empty field of tags (none of the classes), 1 without a line in tags.csv (unknown)" in report


def test_prepare_folder_names_every_fault(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_label(own / "masks" / "a.png", np.full((40, 50), 9))
    (own / "images" / "plain.jpeg").write_bytes(b"not a photograph")
    with pytest.raises(InputError, match="2 thing"):
        prepare_folder(own)
    told = capsys.readouterr().out
    assert "a.png holds the value 9" in told
    assert "plain.jpeg cannot be read" in told


def test_prepare_folder_names_a_tag_without_a_photograph(own: Path) -> None:
    tags_file(own, "name,tags\na,dog\nghost,cat\n")
    with pytest.raises(InputError, match="'ghost'"):
        prepare_folder(own)


@pytest.mark.parametrize("where", ["tags.csv", "val.txt"])
def test_prepare_folder_names_a_missing_photograph_beside_a_list_of_training(where: str, own: Path) -> None:
    (own / "train.txt").write_text("a\n")
    if where == "tags.csv":
        tags_file(own, "name,tags\na,dog\nghost,cat\n")
    else:
        (own / "val.txt").write_text("a\nghost\n")
    with pytest.raises(InputError, match="'ghost'"):
        prepare_folder(own)


def test_prepare_folder_tells_an_empty_field_from_a_missing_line(own: Path) -> None:
    tags_file(own, "name,tags\na,dog\nmy cat,\n")
    assert "1 with an empty field of tags (none of the classes), 1 without a line" in prepare_folder(own)


def test_prepare_folder_counts_what_is_not_read(own: Path) -> None:
    for path in ("images/x.HEIC", "images/y.heic", "images/._a.jpg", "masks/b.tif", "._notes.txt"):
        (own / path).write_bytes(b"x")
    (own / "images" / "sub").mkdir()
    report = prepare_folder(own)
    assert "not read in images: 2 .heic, 1 .txt, 1 folder(s) (read are .jpg" in report
    assert "not read in masks: 1 .tif (read are .png)" in report
    assert "._" not in report


def test_prepare_folder_reads_no_notes_as_a_list_and_says_so(own: Path) -> None:
    (own / "README.txt").write_bytes("schöne Bilder\n".encode("latin-1"))
    (own / "mine.txt").write_text("a.JPG\nplain\n")
    (own / "train.txt").write_text("a\n")
    assert "not read: README.txt, mine.txt (a list NAME.txt is read where NAME is given as a split)" in prepare_folder(
        own
    )


def test_prepare_folder_asks_about_classes_that_may_be_one(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tags_file(own, "name,tags\na,dog\nmy cat,cat Dog\nplain,Dog\n")
    with pytest.raises(InputError, match="1 thing"):
        prepare_folder(own)
    assert "'Dog' (2 photographs) and 'dog' (1 photographs) differ only in case" in capsys.readouterr().out


def drawn(root: Path, count: int, value: int = 1) -> Path:
    """Photographs tagged cat and dog in turn, with masks that show the tag; the first class is ``value``."""
    lines = []
    for number in range(count):
        photograph(root / "images" / f"{number:03}.jpg")
        write_label(root / "masks" / f"{number:03}.png", np.full((40, 50), value if number % 2 else 3 - value))
        lines.append(f"{number:03},{'cat' if number % 2 else 'dog'}")
    tags_file(root, "\n".join(["name,tags", *lines]))
    return root


def test_prepare_folder_names_masks_of_black_and_white(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = drawn(tmp_path / "own", 4)
    for path in (root / "masks").iterdir():
        write_label(path, np.array([[0, 255]]).repeat(40, 0).repeat(25, 1))
    with pytest.raises(InputError, match="1 thing"):
        prepare_folder(root)
    assert "masks hold only 0 and 255" in capsys.readouterr().out


def test_prepare_folder_compares_masks_with_tags(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = drawn(tmp_path / "own", 4)
    assert "mask" not in prepare_folder(root).split("with a mask")[1]
    (root / "classes.txt").write_text("dog\ncat\n")
    with pytest.raises(InputError, match="1 thing"):
        prepare_folder(root)
    told = capsys.readouterr().out
    assert "4 of 4 masks show a class that their photograph's tags lack, the first of 000: tags dog; mask" in told
    assert "000.png cat; the values of masks are 1 dog, 2 cat: write classes.txt in the order" in told


def test_prepare_folder_tells_of_a_few_masks_that_differ(tmp_path: Path) -> None:
    root = drawn(tmp_path / "own", 8)
    write_label(root / "masks" / "000.png", np.full((40, 50), 1))
    report = prepare_folder(root)
    assert "1 of 8 masks show a class that the tags lack, the first of 000: tags dog; mask" in report
    assert "1 of 8 masks have no pixel of a class that is tagged, the first of 000" in report


def test_photographs_of_more_than_8_bits_are_said_to_be_scaled(own: Path) -> None:
    Image.fromarray(np.full((40, 50), 2000, np.uint16)).save(own / "images" / "deep.png")
    assert "1 photographs have more than 8 bits a value, the first deep: each is scaled" in prepare_folder(own)
