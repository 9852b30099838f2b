"""The network that comes with tag2mask: what it finds, and that it is the one of its card."""

import re
from pathlib import Path

import pytest

from benchmarks import animals
from tag2mask.cli.main import main
from tag2mask.inference import Segmenter
from tag2mask.inference.photographs import ANIMALS
from tag2mask.io.images import read_image
from tag2mask.io.labels import read_label
from tag2mask.io.records import record_of
from tag2mask.tasks.checkpoints import file_digest

CARD = (Path(__file__).parents[2] / "weights" / "animals_lite0.md").read_text()
EXAMPLES = Path(__file__).parents[2] / "examples"


def test_segment_without_a_checkpoint_takes_it_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["segment", str(EXAMPLES / "images"), "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "animals_lite0" in said
    assert "--checkpoint" in said
    classes = record_of(tmp_path)["config"]["classes"]
    assert (read_label(tmp_path / "cat.png") == 1 + classes.index("cat")).mean() > 0.2


@pytest.mark.parametrize(("photo", "tag"), [("cat", "cat"), ("astronaut", "person")])
def test_it_finds_what_the_tag_of_an_example_says(photo: str, tag: str) -> None:
    assert f"{photo},{tag}" in (EXAMPLES / "tags.csv").read_text().split()
    _, shares = Segmenter()(read_image(EXAMPLES / "images" / f"{photo}.jpg"))
    share, probability = shares[tag]
    assert max(shares, key=lambda name: shares[name][0]) == tag
    assert 0.2 < share < 0.9
    assert probability > 0.6


def test_it_is_the_network_of_its_card_and_small() -> None:
    assert file_digest(ANIMALS)[:16] in CARD
    assert ANIMALS.stat().st_size < 12_000_000


def test_scores_of_ten_photographs(photographs: Path) -> None:
    """As of its card by `python -m benchmarks.animals VOC2012 --count 10`."""
    found = animals.score(photographs / "voc", "val", 10, animals.WAYS["segment"])
    written = re.search(r"first ten photographs of `val`: ([0-9.]+)", CARD)
    assert written
    assert 100 * found["best"]["miou7"] == pytest.approx(float(written[1]), abs=0.5)
