"""Checkpoints that are damaged, or made to harm, are refused before anything is built of them."""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tag2mask.errors import DamagedError, MismatchError
from tag2mask.inference import CAMMaker
from tag2mask.inference.cams import Edges
from tag2mask.inference.photographs import Segmenter
from tag2mask.tasks.checkpoints import check_file

Content = dict[str, Any]


@pytest.fixture
def content() -> Content:
    """What a small checkpoint of ours holds."""
    ours = {"task": "cam", "classes": ["cat", "dog"], "preprocessing": {}, "version": "1"}
    return {"tag2mask": ours, "state_dict": {"w": torch.rand(50, 20)}, "hyper_parameters": {"num_classes": 2}}


def test_a_checkpoint_of_ours_is_whole(content: Content, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "a.ckpt")
    assert check_file(tmp_path / "a.ckpt", "cam")["tag2mask"]["classes"] == ["cat", "dog"]


def nan(content: Content) -> None:
    content["state_dict"]["w"][3, 4] = torch.nan


def more_than_there_is(content: Content) -> None:
    content["state_dict"]["w"] = torch.rand(1).expand(10**9)


def sparse(content: Content) -> None:
    content["state_dict"]["w"] = torch.eye(3).to_sparse()


def text_for_weights(content: Content) -> None:
    content["state_dict"]["w"] = "w"


def no_weights(content: Content) -> None:
    content["state_dict"] = 3


def numbers_for_classes(content: Content) -> None:
    content["tag2mask"]["classes"] = [1, 2]


def escapes_for_classes(content: Content) -> None:
    content["tag2mask"]["classes"] = ["\x1b[2J", "dog"]


def no_classes(content: Content) -> None:
    content["tag2mask"]["classes"] = 10**9


def other_number_of_classes(content: Content) -> None:
    content["hyper_parameters"]["num_classes"] = 10**9


def no_settings(content: Content) -> None:
    content["hyper_parameters"] = [1]


def a_billion_bytes(content: Content) -> None:
    content["more"] = Ballooning()


def no_loops(content: Content) -> None:
    content["loops"] = 3


class Ballooning:
    """A pickle of a few bytes that makes a gigabyte."""

    def __reduce__(self) -> tuple[Any, tuple[int]]:
        return bytearray, (10**9,)


SPOILT: list[Callable[[Content], None]] = [nan, more_than_there_is, sparse, text_for_weights, no_weights, no_classes]
SPOILT += [numbers_for_classes, escapes_for_classes, other_number_of_classes, no_settings, no_loops, a_billion_bytes]


@pytest.mark.parametrize("spoil", SPOILT, ids=lambda spoil: spoil.__name__)
def test_impossible_content_is_refused(spoil: Callable[[Content], None], content: Content, tmp_path: Path) -> None:
    spoil(content)
    torch.save(content, tmp_path / "a.ckpt")
    with pytest.raises(DamagedError, match=r"a\.ckpt cannot be read as a checkpoint \("):
        check_file(tmp_path / "a.ckpt")


@pytest.mark.parametrize("made", [3, "cam", None])
def test_what_is_not_of_tag2mask_is_refused(made: Any, content: Content, tmp_path: Path) -> None:
    torch.save(content | {"tag2mask": made}, tmp_path / "a.ckpt")
    with pytest.raises(MismatchError, match=r"a\.ckpt is not a checkpoint of tag2mask"):
        check_file(tmp_path / "a.ckpt")


def test_bytes_that_have_changed_in_the_middle_are_noticed(content: Content, tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    torch.save(content, path)
    whole = path.read_bytes()
    at = whole.index(content["state_dict"]["w"].numpy().tobytes())
    path.write_bytes(whole[:at] + b"\x00" * 200 + whole[at + 200 :])
    with pytest.raises(DamagedError, match="the checksum of .* is wrong"):
        check_file(path)


def test_a_packed_checkpoint_is_refused(content: Content, tmp_path: Path) -> None:
    content["state_dict"]["w"] = torch.zeros(10**6)
    torch.save(content, tmp_path / "a.ckpt")
    unpacked, packed = zipfile.ZipFile(tmp_path / "a.ckpt"), zipfile.ZipFile(tmp_path / "b.ckpt", "w", zipfile.ZIP_LZMA)
    with unpacked, packed:
        for name in unpacked.namelist():
            packed.writestr(name, unpacked.read(name))
    with pytest.raises(DamagedError, match=r"b\.ckpt cannot be read as a checkpoint \(\d parts of"):
        check_file(tmp_path / "b.ckpt")


@pytest.mark.parametrize("build", [Segmenter, CAMMaker, Edges])
def test_python_checks_a_file_as_the_command_line_does(
    build: Callable[[Path], Any], content: Content, tmp_path: Path
) -> None:
    nan(content)
    content["tag2mask"]["task"] = {Segmenter: "segmentation", CAMMaker: "cam", Edges: "affinity"}[build]
    torch.save(content, tmp_path / "a.ckpt")
    with pytest.raises(DamagedError, match=r"a\.ckpt cannot be read as a checkpoint \(w holds values"):
        build(tmp_path / "a.ckpt")


def test_weights_that_do_not_fit_their_settings_are_one_line(content: Content, tmp_path: Path) -> None:
    torch.save(content | {"pytorch-lightning_version": "2.6.0"}, tmp_path / "a.ckpt")
    with pytest.raises(DamagedError, match=r"a\.ckpt cannot be read as a checkpoint \(.*(state_dict|classes)"):
        CAMMaker(tmp_path / "a.ckpt")
