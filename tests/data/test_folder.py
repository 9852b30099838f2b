import unicodedata
from pathlib import Path

import pytest

from tag2mask.data import folder
from tag2mask.errors import InputError
from tests.folders import photograph, tags_file


@pytest.mark.parametrize(
    "text",
    [
        "name,tags\na,cat dog\nb,dog\n",
        "\ufeffname,tags\na,cat dog\nb,dog\n",
        " name , tags \n a , cat  dog \n b , dog \n",
        "name,tags\r\na,cat dog\r\n\r\nb,dog\r\n",
        "name,tags\na,cat;dog\nb,dog;\n",
        'name,tags\na,"cat, dog"\nb,dog\n',
        "name;tags\na;cat dog\nb;dog\n",
        'name;tags\na;"cat;dog"\nb;dog\n',
        "tags,name\ncat dog,a.jpg\ndog,b.PNG\n",
        "Name,Who,Tags\na,me,cat dog\nb,you,dog\n",
        "name,tags\na,cat dog cat\nb,dog\n",
        "name\ttags\na\tcat dog\nb\tdog\n",
        "name\ttags\na.JPG\tcat\tdog\nb\tdog\t\n",
        "name,tags\na,cat|dog\nb,dog\n",
    ],
    ids=[
        "plain",
        "byte-order mark",
        "spaces",
        "windows",
        "semicolons",
        "quoted commas",
        "semicolon columns",
        "semicolon columns and tags",
        "endings",
        "more columns",
        "double tag",
        "tab columns",
        "tab columns and tags",
        "bars",
    ],
)
def test_a_table_of_tags_is_understood(text: str, tmp_path: Path) -> None:
    found = folder.read_tags(tags_file(tmp_path, text))
    assert {name: sorted(tags) for name, tags in found.items()} == {"a": ["cat", "dog"], "b": ["dog"]}


@pytest.mark.parametrize("mark", [",", ";"])
def test_tags_beyond_the_columns_are_not_lost_in_silence(mark: str, tmp_path: Path) -> None:
    path = tags_file(tmp_path, f"name{mark}tags\na{mark}cat{mark}dog\n")
    try:
        found = folder.read_tags(path)
    except InputError:
        return
    assert found == {"a": ("cat", "dog")}


def test_names_of_photographs_and_classes_may_hold_spaces(tmp_path: Path) -> None:
    path = tags_file(tmp_path, "name,tags\nmy photo.jpg,traffic light; car\nb,traffic light\n")
    found = folder.read_tags(path, known=("car", "traffic light"))
    assert found == {"my photo": ("traffic light", "car"), "b": ("traffic light",)}


@pytest.mark.parametrize(
    "text",
    [
        "name,tags\na,dining table;dog\nb,dining  table\n",
        "name,tags\nb,dining table\na,dining table|dog\n",
        "name;tags\na;dining table;dog\nb;dining table\n",
        "name\ttags\na\tdining table;dog\nb\tdining table\n",
        'name;tags\na;"dining table;dog"\nb;dining table;\n',
    ],
)
def test_where_one_field_has_a_semicolon_blanks_belong_to_all_tags(text: str, tmp_path: Path) -> None:
    assert folder.read_tags(tags_file(tmp_path, text)) == {"a": ("dining table", "dog"), "b": ("dining table",)}
    assert folder.class_names(tmp_path) == ("dining table", "dog")


def test_where_only_commas_and_blanks_occur_both_separate(tmp_path: Path) -> None:
    path = tags_file(tmp_path, 'name,tags\na,"dining table, dog"\nb,dining table\nc,\n')
    assert folder.read_tags(path) == {"a": ("dining table", "dog"), "b": ("dining", "table"), "c": ()}


def test_names_and_tags_are_the_same_in_both_unicode_forms(own: Path) -> None:
    nfc, nfd = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
    photograph(own / "images" / f"{nfd}.JPG")
    tags_file(own, f"name,tags\na,caf{nfc}\n{nfc}.jpg,caf{nfd}\n")
    assert folder.class_names(own) == (f"caf{nfc}",)
    assert [(photo.name, photo.tags) for photo in folder.folder_photos(own, "train")] == [("a", (1,)), (nfc, (1,))]


def test_a_photograph_may_have_no_class(tmp_path: Path) -> None:
    assert folder.read_tags(tags_file(tmp_path, "name,tags\na,\nb,dog\n")) == {"a": (), "b": ("dog",)}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name,tags\na,cat\nb,catt\n", r"tags\.csv, line 3: unknown tag 'catt' \(did you mean 'cat'\)"),
        ("name,tags\na,zzz\n", r"line 2: unknown tag 'zzz' \(the classes are cat, dog\)"),
        ("name,tags\na,cat\n\na.jpg,dog\n", r"tags\.csv, line 4: 'a' stands there twice"),
        ("name,tags\na\n", r"tags\.csv, line 2: 1 column\(s\); expected name,tags"),
        ("photo,tags\na,cat\n", r"tags\.csv starts with 'photo,tags'.*name,tags"),
        ("a,cat\nb,dog\n", r"tags\.csv starts with 'a,cat'; expected a first line that names the columns"),
        ("name tags\na cat\n", r"starts with 'name tags'; .* with a comma, a semicolon or a tab between"),
        ('name,tags\n\na,"cat\nb,dog\n', r"tags\.csv, line 3: a quotation mark does not close"),
        ("name,tags\na,cat Background\n", r"tags\.csv, line 2: the tag 'Background' is no class"),
        ("", r"tags\.csv starts with ''"),
        ("name,tags\n", r"tags\.csv lists no photograph"),
    ],
)
def test_a_spoilt_table_of_tags_is_named(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        folder.read_tags(tags_file(tmp_path, text), known=("cat", "dog"))


def test_a_table_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    path = tags_file(tmp_path, "")
    path.write_bytes("name,tags\nbär,cat\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"tags\.csv is not UTF-8 text"):
        folder.read_tags(path)


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"tags\.csv does not exist; expected a table"):
        folder.read_tags(tmp_path / "tags.csv")


def test_without_a_list_of_classes_the_tags_are_it(own: Path) -> None:
    assert folder.class_names(own) == ("cat", "dog")


@pytest.mark.parametrize("first", ["", "background\n", "\ufeff", "__Background__\n"])
def test_classes_come_in_the_order_of_their_list(first: str, own: Path) -> None:
    (own / "classes.txt").write_text(f"{first}dog\n cat \n\nzebra\n", encoding="utf-8")
    assert folder.class_names(own) == ("dog", "cat", "zebra")
    assert [photo.tags for photo in folder.folder_photos(own, "train")] == [(1,), (1, 2)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("\n", "names no class"),
        ("cat\ndog\ncat\n", "3 names, 2 of them different"),
        ("\n".join(map(str, range(255))), "255 names"),
    ],
    ids=["empty", "twice", "too many"],
)
def test_a_spoilt_list_of_classes_is_named(text: str, said: str, own: Path) -> None:
    (own / "classes.txt").write_text(text)
    with pytest.raises(InputError, match=said):
        folder.class_names(own)


def test_a_tag_that_is_the_background_is_refused_without_a_list_of_classes_too(own: Path) -> None:
    tags_file(own, "name,tags\na,dog _background_\n")
    with pytest.raises(InputError, match="line 2: the tag '_background_' is no class"):
        folder.folder_photos(own, "train")


@pytest.mark.parametrize(
    ("counts", "asked"),
    [
        ({"Cat": 3, "cat": 9}, ["'Cat' (3 photographs) and 'cat' (9 photographs) differ only in case"]),
        (
            {"CAT": 1, "Cat": 3, "cat": 9, "dog": 1},
            ["'CAT' (1 photographs) and 'Cat' (3 photographs) and 'cat' (9 photographs) differ only in case"],
        ),
        (
            {"dining table": 2, "dining_table": 1},
            ["'dining table' (2 photographs) and 'dining_table' (1 photographs) differ"],
        ),
        ({"diningtable": 2, "Dining Table": 1}, ["differ only in case, blanks, hyphens or Unicode form"]),
        (
            {"\ufb01g": 2, "fig": 1, "f\u200big": 1},
            ["and 'f\\u200big' (1 photographs) differ only in case, blanks, hyphens or Unic"],
        ),
        ({"cat dog": 1, "cat": 2, "dog": 3}, ["'cat dog' (1 photographs) is made of the classes 'cat' and 'dog'"]),
        ({"dining table": 1, "table": 2, "c": 1, "c++": 1}, []),
    ],
)
def test_classes_that_may_be_one_are_asked_about(counts: dict[str, int], asked: list[str]) -> None:
    found = folder.near_doubles(counts)
    assert len(found) == len(asked)
    assert all(part in sentence for part, sentence in zip(asked, found, strict=True))


@pytest.mark.parametrize("name", ["masks", "tags.csv", "images", "classes.txt", "train.txt"])
def test_a_file_or_folder_in_another_case_is_not_passed_over(name: str, own: Path) -> None:
    (own / "classes.txt").write_text("cat\ndog\n")
    (own / "train.txt").write_text("a\n")
    (own / name).rename(own / name.capitalize())
    if (own / name).exists():
        pytest.skip("this file system does not tell cases apart")
    with pytest.raises(InputError, match=rf"own has {name.capitalize()}, which is not read; rename it to {name}"):
        folder.folder_photos(own, "train")


def test_without_lists_train_is_what_is_tagged_val_what_has_a_mask_and_any_other_split_all(own: Path) -> None:
    found = {split: [photo.name for photo in folder.folder_photos(own, split)] for split in ("train", "val", "test")}
    assert found == {"train": ["a", "my cat"], "val": ["a"], "test": ["a", "my cat", "plain"]}


def test_a_list_makes_a_split(own: Path) -> None:
    (own / "train.txt").write_text("\ufeffmy cat\nplain.jpeg\n\n", encoding="utf-8")
    assert [photo.name for photo in folder.folder_photos(own, "train")] == ["my cat", "plain"]


def test_an_untagged_photograph_has_no_tags(own: Path) -> None:
    by_name = {photo.name: photo for photo in folder.folder_photos(own, "all")}
    assert by_name["plain"].tags is None
    assert by_name["my cat"].tags == (1, 2)


def test_masks_are_found_by_name(own: Path) -> None:
    (own / "masks" / "a.png").rename(own / "masks" / "a.PNG")
    assert [photo.mask for photo in folder.folder_photos(own, "val")] == [own / "masks" / "a.PNG"]
    (own / "masks" / "a.PNG").rename(own / "masks" / "a.png")
    assert [photo.mask for photo in folder.folder_photos(own, "all")] == [own / "masks" / "a.png", None, None]


def test_a_folder_without_images_is_named(tmp_path: Path) -> None:
    tags_file(tmp_path, "name,tags\na,cat\n")
    with pytest.raises(InputError, match=f"no folder {tmp_path / 'images'}"):
        folder.folder_photos(tmp_path, "train")


def test_a_tagged_photograph_that_is_not_there_is_named(own: Path) -> None:
    tags_file(own, "name,tags\na,dog\nghost,cat\n")
    with pytest.raises(InputError, match=r"1 of 2 names of tags\.csv have no photograph.*'ghost'"):
        folder.folder_photos(own, "train")


def test_a_listed_photograph_that_is_not_there_is_named(own: Path) -> None:
    (own / "mine.txt").write_text("a\nghost\n")
    with pytest.raises(InputError, match=r"1 of 2 names of mine\.txt have no photograph.*'ghost'"):
        folder.folder_photos(own, "mine")


def test_two_photographs_of_one_name_are_named(own: Path) -> None:
    photograph(own / "images" / "a.png")
    with pytest.raises(InputError, match=r"a\.jpg and a\.png"):
        folder.folder_photos(own, "train")


def test_a_photograph_of_an_unread_ending_is_named(own: Path) -> None:
    (own / "images" / "a.jpg").rename(own / "images" / "a.heic")
    with pytest.raises(InputError, match=r"the first 'a'; .*a\.heic is there, but \.heic is not read"):
        folder.folder_photos(own, "train")
