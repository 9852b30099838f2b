from pathlib import Path

import pytest

from tag2mask.cli.main import main
from tag2mask.data.photos import Photo, unlearnable
from tests.cli.test_changed_data import CONFIGS, SMALL, words
from tests.folders import photograph, tags_file


def told(*tags: tuple[int, ...] | None, names: str = "cat dog cow") -> list[str]:
    return unlearnable([Photo(str(i), Path(), one) for i, one in enumerate(tags)], names.split())


def test_tags_that_can_be_learnt_are_passed_in_silence() -> None:
    assert told((1,), (2,), (1, 3), (), None) == []


def test_what_no_photograph_shows_is_named() -> None:
    assert told((1,), (), names="cat dog") == ["no photograph is tagged dog: nothing is learnt of that"]
    many = " ".join(f"c{i}" for i in range(9))
    assert told((1,), (), names=many)[0].startswith("no photograph is tagged c1, c2, c3, c4, c5, c6 and 2 more")


def test_what_every_photograph_shows_is_named() -> None:
    (line,) = told((1,), (1, 2), None, names="cat dog")
    assert line.startswith("all 2 photographs are tagged cat: nothing shows what is not cat")


def test_what_is_always_together_is_named() -> None:
    (line,) = told((1, 2), (3,), (1, 2, 3), ())
    assert line.startswith("cat, dog are always tagged together: nothing tells them apart")


def test_fit_warns_where_every_photograph_has_the_one_tag(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in "abcd":
        photograph(tmp_path / "images" / f"{name}.jpg", (64, 64))
    tags_file(tmp_path, "name,tags\na,animal\nb,animal\nc,animal\nd,animal\n")
    over = {"trainer__max_epochs": "1", "trainer__limit_val_batches": "0"}
    assert main([*words("fit", CONFIGS / "cam_plain.yaml", tmp_path, tmp_path / "run", **over), *SMALL]) == 0
    assert "warning: all 4 photographs are tagged animal" in caplog.text


def test_prepare_says_it_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "ab":
        photograph(tmp_path / "images" / f"{name}.jpg", (64, 64))
    tags_file(tmp_path, "name,tags\na,dining table\nb,cat\n")
    assert main(["prepare", "folder", str(tmp_path)]) == 0
    assert "dining, table are always tagged together" in capsys.readouterr().out
