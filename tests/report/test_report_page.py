"""The HTML page of `tag2mask report`, on runs made by hand."""

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tag2mask.classes import COCO, VOC
from tag2mask.cli.main import main
from tag2mask.io.cams import CAMs, write_cam
from tag2mask.io.files import atomic, write_json
from tag2mask.io.images import write_picture
from tag2mask.io.labels import write_label
from tag2mask.io.records import commit, versions, write_run
from tag2mask.report.page import page
from tag2mask.report.published import VOC_2012
from tag2mask.report.runs import read_runs
from tag2mask.report.summary import Summary

NASTY = ['<script>alert("1")</script>', "R&D 'x'", "Bär", "黑猫"]
PHOTO = '<img src=x> "Ü" 猫'
VOID = {"img", "meta"}
Step = dict[str, Any]


class Page(HTMLParser):
    """Text, attributes and tags of a page; fails where tags do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.ids: dict[str, str] = {}
        self.section = ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "section":
            self.section = dict(attrs)["id"] or ""
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        self.ids[self.section] = self.ids.get(self.section, "") + data + "\n"

    def pictures(self) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == "img"]


def score(number: float, names: list[str] | None = None) -> Step:
    iou = {"iou": dict.fromkeys(["background", *names], number)} if names else {}
    return {"miou": number, "mfdr": number / 2, "mfnr": number / 4, **iou}


def render(folder: Path) -> Page:
    assert main(["report", str(folder)]) == 0
    return Page((folder / "report.html").read_text(encoding="utf-8"))


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A run with CAMs, labels, logs and pictures, two segmentation networks, and a data set of one photograph."""
    data, run = tmp_path / "data", tmp_path / "runs" / "a<b> & 猫"
    truth = np.zeros((30, 40), np.uint8)
    truth[5:20, 5:25] = 1
    write_label(data / "masks" / f"{PHOTO}.png", truth)
    write_picture(data / "images" / f"{PHOTO}.png", np.full((30, 40, 3), 200, np.uint8))
    cam = (truth[None, ::2, ::2] == 1).astype(np.float32)
    write_cam(run / "cams" / f"{PHOTO}.npz", CAMs(torch.as_tensor(cam), torch.tensor([1]), truth.shape))
    write_label(run / "labels" / f"{PHOTO}.png", np.roll(truth, 5, 1))
    for step in (7, 21):
        write_picture(run / "pictures" / f"step_{step:06d}" / f"{PHOTO}.png", np.full((50, 200, 3), step, np.uint8))
    both = {"images": 1, "images_worst": [{"name": PHOTO, "miou": 0.321}]}
    cams = {"masks": str(data / "masks"), "predictions": str(run / "cams")}
    labels = cams | {"predictions": str(run / "labels")}
    best = score(0.511, NASTY) | {"threshold": 0.35}
    write_json(run / "cams_evaluation.json", {**both, "best": best, "config": cams})
    walk = {"seed": score(0.522), "walk": score(0.533), "crf": score(0.544)}
    write_json(run / "labels_evaluation.json", {**both, "best": score(0.544, NASTY), "steps": walk, "config": labels})
    write_run(run, {"model": {"class_path": "tag2mask.tasks.cam.CAMTask"}, "note": NASTY[0]}, seed=3)
    with atomic(run / "logs" / "version_0" / "metrics.csv") as file:
        file.write(b"step,train/loss,val/cam_miou\n0,2.0,\n1,1.0,0.25\n2,nan,0.5\n")
    for name, number in (("net", 0.6), ("net_full", 0.8)):
        write_json(run.parent / name / "masks_evaluation.json", {"images": 1, "best": score(number)})
        learnt = {"init_args": {"labels": "x/SegmentationClassAug" if "full" in name else "x/labels"}}
        write_run(run.parent / name, {"model": {"class_path": "x.SegmentationTask"}, "data": learnt})
    return run.parent


def test_the_headline_holds_each_stage_and_the_ratio(runs: Path) -> None:
    text = render(runs).ids["stages"]
    for number in ("51.1", "53.3", "54.4", "60.0", "75.0 %"):
        assert number in text
    assert "Threshold 0.35, chosen on the scored images." in text
    assert "net_full, trained on true masks: its labels are SegmentationClassAug" in text


def test_the_page_needs_no_other_file(runs: Path) -> None:
    found = render(runs)
    for tag, attributes in found.tags:
        assert tag not in ("script", "link", "iframe", "object")
        for name in ("src", "href", "xlink:href", "data", "srcset"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:image/webp;base64,", "#"))
    raw = (runs / "report.html").read_text()
    assert "url(" not in raw
    assert "@import" not in raw


def test_menu_entries_lead_to_sections(runs: Path) -> None:
    found = render(runs)
    targets = [attributes["href"] for tag, attributes in found.tags if tag == "a"]
    assert targets == [f"#{attributes['id']}" for tag, attributes in found.tags if tag == "section"]
    assert len(targets) == 8


@pytest.mark.parametrize("name", [*NASTY, PHOTO, "a<b> & 猫"])
def test_names_show_literally(runs: Path, name: str) -> None:
    found = render(runs)
    assert any(name in text for text in found.texts)
    assert all(attributes.get("src") != "x" for attributes in found.pictures())


def test_alt_texts_and_charts_name_what_they_show(runs: Path) -> None:
    found = render(runs)
    assert f"prediction of {PHOTO}" in {picture["alt"] for picture in found.pictures()}
    labels = [attributes["aria-label"] or "" for _, attributes in found.tags if attributes.get("role") == "img"]
    assert any("a<b> & 猫 50 at 2" in label for label in labels)


def test_pictures_are_the_files_scaled_down(runs: Path) -> None:
    alts = {picture["alt"]: picture for picture in render(runs).pictures()}
    source = alts[f"CAMs of {PHOTO}: iteration 7"]["src"] or ""
    with Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))) as picture:
        assert picture.size == (200, 50)
        assert np.abs(np.asarray(picture).astype(int) - 7).max() < 4
    assert f"CAMs of {PHOTO}: a<b> & 猫, iteration 21" in alts


def test_what_is_missing_is_said_in_place(runs: Path) -> None:
    text = render(runs).ids
    assert "No log of a training: net, net_full." in text["curves"]
    assert "1 logged values are nan" in text["curves"]
    assert "No scores by class were kept for: seeds, + random walk, + CRF, segmentation, true masks." in text["classes"]
    assert "Published numbers are not shown" in text["numbers"]
    assert "Not kept: scored by an older version" in text["worst"]


def test_a_lone_run_without_scores_has_a_page_of_gaps(tmp_path: Path) -> None:
    write_run(tmp_path, {"model": {"class_path": "x.CAMTask"}})
    write_run(tmp_path / "cams", {})
    text = render(tmp_path).ids
    assert text["stages"].count("missing") == 4
    assert "No comparison with full supervision" in text["stages"]
    assert f"{tmp_path.name}: not scored: run `tag2mask evaluate` for cams." in text["numbers"]
    assert "No stage has scores by class." in text["classes"]
    assert "No log of a training" in text["curves"]
    assert "No pictures of CAMs." in text["modules"]
    assert "No run has pictures of more than one validation." in text["age"]
    assert text["worst"].count("This stage was not scored.") == 3
    assert "Not recorded: seed." in text["made"]


def test_a_photograph_a_prediction_or_a_truth_that_is_gone_is_said(runs: Path) -> None:
    assert "no photograph found" not in render(runs).ids["worst"]
    for path in (runs.parent / "data").rglob("*.png"):
        path.unlink()
    (runs / "a<b> & 猫" / "labels" / f"{PHOTO}.png").write_bytes(b"no picture")
    text = render(runs).ids["worst"]
    assert text.count("no photograph found") == 2
    assert text.count("no prediction found") == 1
    assert text.count("no truth found") == 2


def test_a_damaged_picture_is_counted(runs: Path) -> None:
    (runs / "a<b> & 猫" / "pictures" / "step_000007" / f"{PHOTO}.png").write_bytes(b"no picture")
    text = render(runs).ids["age"]
    assert "picture cannot be read" in text
    assert "1 pictures could not be read." in text


def test_pictures_of_masks_are_not_shown_as_cams(runs: Path) -> None:
    before = render(runs).ids["modules"]
    write_picture(runs / "net" / "pictures" / "step_000021" / f"{PHOTO}.png", np.zeros((50, 200, 3), np.uint8))
    assert render(runs).ids["modules"] == before


def test_a_full_page_leaves_pictures_out_and_says_how_many(runs: Path) -> None:
    found = Summary(read_runs(runs))
    text = Page(page("x", found, budget=600)).ids["age"]
    pictures = len(Page(page("x", found)).pictures())
    left = int(re.findall(r"(\d+) pictures of this page were left out", text)[0])
    assert len(Page(page("x", found, budget=600)).pictures()) == pictures - left
    assert 0 < left < pictures


def test_what_was_run_is_told_without_the_folder_of_the_program(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/somewhere/bin/tag2mask", "fit", "--config", "x<y>.yaml"])
    write_run(runs / "net", {"lr": 0.125}, seed=11)
    text = render(runs).ids["made"]
    assert "tag2mask fit --config x<y>.yaml" in text
    assert "/somewhere" not in text
    assert "lr: 0.125" in text
    assert commit() in text
    assert f"torch {versions()['torch']}" in text


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    cams = {"images": 1464, "best": score(0.5, list(VOC[1:])) | {"threshold": 0.2}}
    write_json(tmp_path / "cam" / "cams_evaluation.json", cams)
    write_json(tmp_path / "net" / "masks_evaluation.json", {"images": 200, "best": score(0.6, list(VOC[1:]))})
    return tmp_path


def test_published_numbers_stand_beside_those_of_voc(voc: Path) -> None:
    text = render(voc).ids
    assert "CAMs were scored on 1,464 images, as many as train has." in text["numbers"]
    assert "on the 1,449 images of val, those of these runs on 200: other images" in text["numbers"]
    for number in VOC_2012.cams:
        assert f"{number['miou']}\n" in text["numbers"]
        assert f"Liu et al. 2023, {number['table']}" in text["numbers"]
    assert "76.6" in text["numbers"]
    assert "43.1" in text["classes"]  # Table 3, bird
    assert (
        "Table 3, segmentation networks on the 1,449 images of val; the network here was scored on 200"
        in text["classes"]
    )


def test_published_numbers_do_not_stand_beside_those_of_other_data(runs: Path) -> None:
    text = render(runs).ids
    for number in ("56.75", "Puzzle-CAM", "76.6"):
        assert number not in text["numbers"] + text["classes"]


def test_table_3_has_the_mean_that_the_paper_prints() -> None:
    means = {method: 100 * (score.miou or 0) for method, score in VOC_2012.per_class.items()}
    assert means == pytest.approx({"SEC": 50.7, "MCOF": 56.2, "AffinityNet": 61.7, "Liu et al.": 64.9}, abs=0.06)
    assert {number["miou"] for number in VOC_2012.ours} == {"64.9", "76.6"}


def test_published_numbers_of_coco_stand_beside_those_of_coco(tmp_path: Path) -> None:
    for name, images in (("cams", 41392), ("masks", 40504)):
        write_json(tmp_path / "net" / f"{name}_evaluation.json", {"images": images, "best": score(0.3, list(COCO[1:]))})
    text = render(tmp_path).ids
    assert "Segmentation networks were scored on 40,504 images, as many as val has." in text["numbers"]
    for number in ("34.2", "43.8", "44.7", "Table 6, val"):
        assert number in text["numbers"]
    for other in ("56.75", "76.6", "Table 3"):
        assert other not in text["numbers"] + text["classes"]
