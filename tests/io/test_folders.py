import unicodedata
from pathlib import Path

import pytest

from tag2mask.classes import VOC, is_background
from tag2mask.errors import DamagedError, MismatchError, MissingError
from tag2mask.io import folders
from tests.folders import photograph

NFC, NFD = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


def empty(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"")
    return folder


def test_endings_count_without_regard_to_case_and_dot_files_do_not(tmp_path: Path) -> None:
    empty(tmp_path, "a.JPG", "b.Jpg", "c.jpeg", "d.TIFF", "._a.JPG", ".hidden.png", "e.gif", "f")
    (tmp_path / "g.jpg").mkdir()
    assert [path.name for path in folders.paths_in(tmp_path, folders.PHOTO_ENDINGS)] == [
        *("a.JPG", "b.Jpg", "c.jpeg", "d.TIFF")
    ]


def test_masks_are_found_whatever_the_case_of_their_ending(tmp_path: Path) -> None:
    empty(tmp_path, "a.png", "b.PNG", "c.tif", "._a.png")
    assert folders.masks_in(tmp_path) == {"a": tmp_path / "a.png", "b": tmp_path / "b.PNG"}


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    empty(tmp_path, "a.png", "a.PNG")
    with pytest.raises(MismatchError, match=r"a\.PNG and a\.png in .* share a name; rename one"):
        folders.masks_in(tmp_path)


def test_a_name_is_the_same_in_both_unicode_forms(tmp_path: Path) -> None:
    photograph(tmp_path / f"{NFD}.jpg")
    (tmp_path / "list.txt").write_text(f"{NFC}.JPG\n{NFD}\n", encoding="utf-8")
    assert NFC != NFD
    assert folders.read_list(tmp_path / "list.txt") == list(folders.photos_in(tmp_path)) == [NFC]


def test_a_folder_that_is_not_there_holds_nothing(tmp_path: Path) -> None:
    assert folders.photos_in(tmp_path / "none") == {}
    assert folders.unread(tmp_path / "none", folders.PHOTO_ENDINGS) is None


def test_what_is_not_read_is_counted(tmp_path: Path) -> None:
    empty(tmp_path, "a.jpg", "b.HEIC", "c.heic", "d.gif", "._e.gif")
    (tmp_path / "sub").mkdir()
    assert folders.unread(tmp_path, folders.PHOTO_ENDINGS) == "1 .gif, 2 .heic, 1 folder(s)"


def test_a_list_holds_a_name_a_line_each_once(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("\ufeffmy cat.JPG\n\n # a\nb.v2\nb.v2.png\n", encoding="utf-8")
    assert folders.read_list(tmp_path / "list.txt") == ["my cat", "# a", "b.v2"]


@pytest.mark.parametrize("read", [folders.read_list, folders.read_classes])
def test_a_text_that_is_not_utf8_is_named(read: object, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("bär\n".encode("latin-1"))
    with pytest.raises(DamagedError, match=r"a\.txt is not UTF-8 text .*; save it as UTF-8"):
        read(tmp_path / "a.txt")  # type: ignore[operator]


def test_a_list_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"a\.txt does not exist; expected a list"):
        folders.read_list(tmp_path / "a.txt")


SPELLINGS = ["background", "Background", "BACKGROUND", "__background__", "_background_", "back ground", "0: background"]


@pytest.mark.parametrize("name", SPELLINGS)
def test_any_spelling_of_background_is_the_background(name: str, tmp_path: Path) -> None:
    assert is_background(name)
    path = tmp_path / "classes.txt"
    path.write_text(f"\n{name}\ncat\ndog\n")
    assert folders.read_classes(path) == ("cat", "dog")
    path.write_text(f"cat\n{name}\ndog\n")
    with pytest.raises(DamagedError, match=name):
        folders.read_classes(path)


def test_no_class_is_the_background() -> None:
    assert [name for name in VOC if is_background(name)] == ["background"]


@pytest.mark.parametrize(
    ("file", "name", "hint"),
    [
        ("cat.heic", "cat", "cat.heic is there, but .heic is not read: save it as JPEG or PNG"),
        ("cat.heic", "cat.heic", "cat.heic is there, but .heic is not read"),
        ("Cat.jpg", "cat", "Cat.jpg is there: rename one as the other"),
        ("cat.jpg", "cat.png", "cat.jpg is there: rename one as the other"),
        ("more/cat.jpg", "cat", "more/cat.jpg is there: name its folder, or move it"),
        ("Cafe\u0301.jpg", "caf\u00e9", "is there: rename one as the other"),
        ("dog.jpg", "cat", None),
    ],
)
def test_a_missing_photograph_names_the_near_file(file: str, name: str, hint: str | None, tmp_path: Path) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).touch()
    near = folders.near_photo(tmp_path, name)
    assert near == "" if hint is None else hint in near
