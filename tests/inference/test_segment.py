"""The verb ``segment``: masks for anybody's photographs."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from tag2mask.classes import palette
from tag2mask.cli.main import main
from tag2mask.cli.segment import summary
from tag2mask.data.transforms import IMAGENET_MEAN
from tag2mask.errors import InputError, MismatchError, OccupiedError, SpaceError
from tag2mask.inference.photographs import Segmenter, ahead, class_shares, find_photos, outputs, segment_all
from tag2mask.inference.second_round import TagMaps
from tag2mask.io.cams import CAMs
from tag2mask.io.files import read_json
from tag2mask.io.images import read_image
from tag2mask.io.labels import read_label, write_label
from tag2mask.io.records import write_run
from tag2mask.tasks.settings import MaskInference
from tag2mask.viz import plots
from tests.commands import fault


class Red(nn.Module):
    """Class 1 where a normalised image is red, class 2 where it is blue; remembers the sizes that it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, ...]] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(tuple(images.shape))
        red, blue = images[:, 0] > 0, images[:, 2] > 0
        scores = torch.zeros(len(images), 6, *images.shape[-2:])
        scores[:, 0] = 1
        scores[:, 1], scores[:, 2] = red * 3.0, blue * 2.0
        return scores


@pytest.fixture(scope="module")
def checkpoint(segmentation_checkpoint: Path) -> Path:
    return segmentation_checkpoint


@pytest.fixture
def segmenter(checkpoint: Path) -> Segmenter:
    """A network that sees red and blue."""
    segmenter = Segmenter(checkpoint)
    segmenter.net = Red()
    return segmenter


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A photograph whose left third is red and right sixth blue, as JPEG."""
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.fromarray(striped(60, 40)).save(folder / "flag.jpg", quality=100, subsampling=0)
    return folder


def striped(width: int, height: int) -> np.ndarray:
    image = np.zeros((height, width, 3), np.uint8)
    image[:, : width // 3, 0] = 255
    image[:, -width // 6 :, 2] = 255
    return image


def words(checkpoint: Path, out: Path, *more: object) -> list[str]:
    device = [] if "--device" in more else ["--device", "cpu"]
    return ["segment", "--checkpoint", str(checkpoint), "--out", str(out), *device, *map(str, more)]


def run(checkpoint: Path, out: Path, *more: object) -> int:
    return main(words(checkpoint, out, *more))


# one photograph


def test_maps_of_a_second_round_leave_absent_tags_out(checkpoint: Path) -> None:
    maps = TagMaps(checkpoint)
    maps.segmenter.net, maps.segmenter.inference = Red(), MaskInference(scales=(1.0,), flip=False)
    cams = CAMs(torch.rand(2, 3, 4), torch.tensor([2, 3]), (40, 60))  # nobody says that there is a red class
    made = maps("striped", striped(60, 40), cams)
    assert (made.size, made.classes.tolist(), made.cam.shape) == ((40, 60), [2, 3], (2, 10, 15))
    e = np.exp
    for x, blue, other in ((2, 0, 0), (8, 0, 0), (14, 2, 0)):  # red, black, blue: whatever red has, it is left out
        assert made.cam[0, :, x].tolist() == pytest.approx([e(blue) / (e(blue) + e(1))] * 10)
        assert made.cam[1, :, x].tolist() == pytest.approx([e(other) / (e(other) + e(1))] * 10)
    with pytest.raises(MismatchError, match="class 6"):
        maps("striped", striped(60, 40), cams._replace(classes=torch.tensor([2, 6])))


def test_the_maps_of_a_second_round_have_the_scales_of_the_configuration(checkpoint: Path) -> None:
    assert TagMaps(checkpoint).segmenter.inference == MaskInference(scales=(1.0,), flip=True)  # of configs/demo
    assert Segmenter(checkpoint).inference == MaskInference(scales=(1.0,), flip=False)


def test_shares_by_hand() -> None:
    label = torch.tensor([[0, 2, 2], [1, 2, 0]])
    probabilities = torch.zeros(4, 2, 3)
    probabilities[2] = torch.tensor([[0.1, 0.9, 0.6], [0.3, 0.6, 0.0]])
    probabilities[1] = 0.5
    shares = class_shares(label, probabilities)
    assert list(shares) == [2, 1]
    assert shares[2] == pytest.approx((3 / 6, 0.7))
    assert shares[1] == pytest.approx((1 / 6, 0.5))


def test_a_summary_in_words() -> None:
    shares = {"cat": (0.3412, 0.914), "sofa": (0.0004, 0.5)}
    assert summary(shares) == "cat 34.1% (0.91), sofa <0.1% (0.50)"
    assert summary({}) == "nothing found"


def test_the_mask_and_the_shares_of_a_photograph(segmenter: Segmenter) -> None:
    label, shares = segmenter(striped(60, 40))
    assert label.shape == (40, 60)
    assert (label[:, :20] == 1).all()
    assert (label[:, 20:50] == 0).all()
    assert (label[:, 50:] == 2).all()
    names = segmenter.class_names
    assert list(shares) == [names[0], names[1]]
    e = np.exp
    assert shares[names[0]] == pytest.approx((1 / 3, e(3) / (e(3) + e(1) + 4)))
    assert shares[names[1]] == pytest.approx((1 / 6, e(2) / (e(2) + e(1) + 4)))


def test_a_checkpoint_brings_its_classes_and_normalisation(checkpoint: Path) -> None:
    segmenter = Segmenter(checkpoint)
    assert segmenter.class_names == ("cross", "dots", "ring", "stripes", "triangle")
    assert segmenter.preprocessing.mean == IMAGENET_MEAN  # of ResNet-18
    assert segmenter.preprocessing.max_side == 80  # the largest side of a training image
    assert Segmenter(checkpoint, max_side=33).preprocessing.max_side == 33


def test_a_large_photograph_is_seen_small_and_its_mask_is_large(segmenter: Segmenter) -> None:
    label, _ = segmenter(striped(1200, 900))
    assert segmenter.net.seen == [(1, 3, 60, 80)]  # type: ignore[union-attr]
    assert label.shape == (900, 1200)
    truth = np.where(np.arange(1200) < 400, 1, np.where(np.arange(1200) >= 1000, 2, 0))
    assert (label == truth).mean() > 0.985


def test_overlays_tint_and_outline_classes_only() -> None:
    image = np.full((6, 8, 3), 100, np.uint8)
    label = np.zeros((6, 8), np.uint8)
    label[1:5, 2:7] = 1
    drawn = plots.overlay(image, label, strength=0.5)
    assert (drawn[label == 0] == 100).all()
    assert (drawn[3, 4] == (100 + palette()[1].astype(int)) // 2).all()
    assert (drawn[1, 4] == palette()[1]).all()


# files


def test_mask_overlay_and_line(
    checkpoint: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(checkpoint, tmp_path / "out", photos / "flag.jpg") == 0
    output = capsys.readouterr()
    assert output.out.splitlines()[0].startswith(f"{photos / 'flag.jpg'}: ")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"flag.png", "flag_overlay.jpg", "run.json"}
    with Image.open(tmp_path / "out" / "flag.png") as mask:
        assert (mask.mode, mask.size) == ("P", (60, 40))
    assert Image.open(tmp_path / "out" / "flag_overlay.jpg").size == (60, 40)
    record = read_json(tmp_path / "out" / "run.json")
    assert record["finished"]
    assert record["config"]["classes"][0] == "cross"


def test_the_mask_is_that_of_the_trained_network(checkpoint: Path, sample: Path, tmp_path: Path) -> None:
    photo = sample / "images" / "scene_0000.jpg"
    options = ("--no-overlay", "--scales", "0.5,1", "--flip", "--max-side", 400)
    assert run(checkpoint, tmp_path / "out", photo, *options) == 0
    label = read_label(tmp_path / "out" / "scene_0000.png")
    segmenter = Segmenter(checkpoint, max_side=400)
    image = segmenter.transform(read_image(photo))[None]
    size = image.shape[-2:]
    total = torch.zeros(6, *size)
    with torch.no_grad():
        half = nn.functional.interpolate(image, [round(side / 2) for side in size], mode="bicubic", antialias=True)
        for scaled in (half, image):
            both = (segmenter.net(scaled).softmax(1) + segmenter.net(scaled.flip(-1)).softmax(1).flip(-1)) / 2
            total += nn.functional.interpolate(both, size, mode="bilinear")[0]
    assert (label == total.argmax(0).numpy()).mean() > 0.999
    assert len(np.unique(label)) > 1
    assert not (tmp_path / "out" / "scene_0000_overlay.jpg").exists()


def test_photographs_of_any_mode_and_size(segmenter: Segmenter, photos: Path, tmp_path: Path) -> None:
    colour = Image.open(photos / "flag.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    made = {
        "turned.jpg": (colour.rotate(90, expand=True), {"exif": exif, "quality": 100, "subsampling": 0}),
        "cmyk.jpg": (colour.convert("CMYK"), {"quality": 100, "subsampling": 0}),
        "palette.png": (colour.convert("P"), {}),
        "alpha.png": (colour.convert("RGBA"), {}),
        "grey.png": (colour.convert("L"), {}),
        "deep.tif": (Image.fromarray(np.full((5, 7), 60000, np.uint16)), {}),
        "dot.png": (Image.new("RGB", (1, 1), (255, 0, 0)), {}),
        "line.png": (Image.new("RGB", (900, 1), (255, 0, 0)), {}),
    }
    for name, (image, settings) in made.items():
        image.save(photos / name, **settings)
    paths = sorted(photos.iterdir())
    results = dict(segment_all(segmenter, {path: [tmp_path / f"{path.name}.png"] for path in paths}))
    assert [type(value) for value in results.values()] == [dict] * 9
    masks = {path.name: read_label(tmp_path / f"{path.name}.png") for path in paths}
    for name in ("turned.jpg", "cmyk.jpg", "palette.png", "alpha.png"):
        assert masks[name].shape == (40, 60), name
        assert (masks[name] == masks["flag.jpg"]).mean() > 0.95, name
    assert masks["deep.tif"].shape == (5, 7)
    assert masks["dot.png"].tolist() == [[1]]
    assert masks["line.png"].shape == (1, 900)


def test_a_damaged_photograph_is_named_and_the_rest_is_done(
    checkpoint: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = (photos / "flag.jpg").read_bytes()
    (photos / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (photos / "text.jpg").write_text("no picture")
    (photos / "zebra.jpg").write_bytes(whole)
    (photos / "notes.txt").write_text("left alone")
    assert run(checkpoint, tmp_path / "out", photos) == 1
    output = capsys.readouterr()
    assert "Traceback" not in output.err
    assert f"skipped {photos / 'cut.jpg'}: " in output.err
    assert "2 of 4 photographs were skipped" in output.err.strip().splitlines()[-1]
    assert {path.stem for path in (tmp_path / "out").glob("*.png")} == {"flag", "zebra"}
    assert read_json(tmp_path / "out" / "run.json")["damaged"] == [
        str(photos / name) for name in ("cut.jpg", "text.jpg")
    ]


def test_photographs_of_one_name_get_masks_of_their_own(checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    shutil.copy(photos / "flag.jpg", photos / "flag.jpeg")
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(photos / "flag.jpg", other / "Flag.jpg")
    assert run(checkpoint, tmp_path / "out", photos, other, photos / "flag.jpg") == 0
    assert {path.stem for path in (tmp_path / "out").glob("*.png")} == {"flag_jpeg", "flag_jpg", "Flag_jpg_2"}


@pytest.mark.parametrize(
    ("photos", "names"),
    [
        (["a/x.jpg", "a/y.png"], ["x", "y"]),
        (["a/x.jpg", "a/x.png", "b/x.png"], ["x_jpg", "x_png", "x_png_2"]),
        (["a/x.jpg", "b/X.jpg", "c/x_jpg.png"], ["x_jpg_2", "X_jpg_3", "x_jpg"]),
    ],
)
def test_names_of_the_outputs(photos: list[str], names: list[str]) -> None:
    files = outputs([Path(photo) for photo in photos], Path("out"), overlay=True)
    assert [str(photo) for photo in files] == photos
    assert list(files.values()) == [[Path(f"out/{name}.png"), Path(f"out/{name}_overlay.jpg")] for name in names]


def test_running_again_replaces_its_own_outputs_only(checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    out, other = tmp_path / "out", tmp_path / "other"
    assert run(checkpoint, out, photos) == 0
    first = (out / "flag.png").read_bytes()
    (out / "flag.png").write_bytes(first + b"more")
    assert run(checkpoint, out, photos) == 0
    assert (out / "flag.png").read_bytes() == first
    other.mkdir()
    shutil.copy(photos / "flag.jpg", other / "flag.jpg")
    error = fault(words(checkpoint, out, other))
    assert isinstance(error, OccupiedError)
    assert all(str(path) in str(error) for path in (out / "flag.png", other / "flag.jpg"))
    assert (out / "flag.png").read_bytes() == first
    assert run(checkpoint, out, other, "--overwrite") == 0


@pytest.mark.parametrize("more", [[], ["--overwrite"]])
def test_photographs_and_files_of_others_are_never_replaced(
    checkpoint: Path, photos: Path, tmp_path: Path, more: list[str]
) -> None:
    Image.open(photos / "flag.jpg").save(photos / "sign.png")
    before = (photos / "sign.png").read_bytes()
    error = fault(words(checkpoint, photos, photos / "sign.png", *more))
    assert isinstance(error, OccupiedError)
    assert str(photos / "sign.png") in str(error)
    assert (photos / "sign.png").read_bytes() == before
    assert run(checkpoint, photos, photos / "flag.jpg", *more) == 0  # flag.png stands in nobody's way
    assert run(checkpoint, photos, *photos.glob("fl*"), *more) == 0  # its own outputs are no photographs
    assert not (photos / "flag_overlay.png").exists()
    write_label(tmp_path / "masks" / "flag.png", np.zeros((2, 2)))
    error = fault(words(checkpoint, tmp_path / "masks", photos / "flag.jpg", *more))
    assert isinstance(error, OccupiedError)
    assert str(tmp_path / "masks" / "flag.png") in str(error)
    assert read_label(tmp_path / "masks" / "flag.png").shape == (2, 2)


def test_the_run_of_another_stage_is_not_replaced(checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    write_run(tmp_path / "labels", {"recipe": "x"})
    assert str(tmp_path / "labels") in str(fault(words(checkpoint, tmp_path / "labels", photos)))
    assert not list((tmp_path / "labels").glob("*.png"))


def test_the_crf_moves_outlines(checkpoint: Path, sample: Path, tmp_path: Path) -> None:
    photo = sample / "images" / "scene_0000.jpg"
    assert run(checkpoint, tmp_path / "plain", photo) == 0
    assert run(checkpoint, tmp_path / "out", photo, "--crf") == 0
    plain, moved = (read_label(tmp_path / name / "scene_0000.png") for name in ("plain", "out"))
    assert 0 < (plain != moved).mean() < 1
    assert read_json(tmp_path / "out" / "run.json")["config"]["crf"]["bilateral"]["srgb"] == 13


def test_names_of_any_bytes(checkpoint: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = (photos / os.fsdecode(name) for name in (b"cat \xfe <b>.jpg", b"\xff.jpg"))
    try:
        shutil.copy(photos / "flag.jpg", good)
        bad.write_bytes(b"no picture")
    except OSError:
        pytest.skip("this file system wants names in UTF-8")
    assert run(checkpoint, tmp_path / "out", good, bad) == 1
    assert "Traceback" not in capsys.readouterr().err
    assert (tmp_path / "out" / f"{good.stem}.png").exists()


def test_a_checkpoint_that_does_not_say_how_images_are_normalised(checkpoint: Path, tmp_path: Path) -> None:
    content = torch.load(checkpoint, weights_only=True)
    del content["tag2mask"]["preprocessing"]
    torch.save(content, tmp_path / "bare.ckpt")
    with pytest.raises(InputError, match="bare.ckpt"):
        Segmenter(tmp_path / "bare.ckpt")


def test_only_a_few_photographs_are_read_ahead() -> None:
    read: list[Path] = []

    def reading(path: Path) -> str:
        read.append(path)
        return path.name

    coming = ahead(reading, [Path(str(number)) for number in range(100)], count=3)
    for number in range(50):
        assert next(coming).result() == str(number)
        assert len(read) <= number + 4
    coming.close()  # type: ignore[attr-defined]
    assert len(read) < 60
    assert list(ahead(reading, [])) == []


@pytest.mark.parametrize("failure", [MemoryError, torch.OutOfMemoryError])
def test_a_photograph_that_does_not_fit_is_named_and_the_rest_is_done(
    failure: type[Exception], segmenter: Segmenter, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(photos / "flag.jpg", photos / "zebra.jpg")
    images = iter([failure(), None])

    def transform(image: np.ndarray) -> Tensor:
        error = next(images)
        if error is not None:
            raise error
        return whole(image)

    whole = segmenter.transform
    monkeypatch.setattr(segmenter, "transform", transform)
    paths = sorted(photos.iterdir())
    first, second = segment_all(segmenter, {path: [tmp_path / path.name] for path in paths})
    assert isinstance(first[1], SpaceError)
    assert str(photos / "flag.jpg") in str(first[1])
    assert isinstance(second[1], dict)


def test_folders_are_searched_for_photographs_alone(photos: Path, tmp_path: Path) -> None:
    (photos / ".hidden.jpg").write_text("")
    (photos / "notes.txt").write_text("")
    (photos / "within").mkdir()
    assert find_photos([photos, photos / "flag.jpg"], tmp_path) == [photos / "flag.jpg"]


@pytest.mark.parametrize(
    ("arguments", "fact"),
    [
        (["/nowhere/cat.jpg"], "/nowhere/cat.jpg"),
        (["{empty}"], "{empty}"),
        (["{photos}", "--checkpoint", "/nowhere.ckpt"], "/nowhere.ckpt"),
        (["{photos}", "--checkpoint", "{photos}/flag.jpg"], "{photos}/flag.jpg"),
        (["{photos}", "--device", "tpu9"], "--device tpu9"),
        (["{photos}", "--scales", "1;2"], "1;2"),
        (["{photos}", "--scales", "0"], "[0.0]"),
        (["{photos}", "--max-side", "0"], "--max-side 0"),
        (["{photos}", "--max-side", "many"], "many"),
        (["{photos}", "--out", "{photos}/flag.jpg"], "--out {photos}/flag.jpg"),
        (["{photos}", "--sclaes", "1"], "--scales"),
        ([], "PHOTO|FOLDER"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_input_is_one_line(
    checkpoint: Path, photos: Path, tmp_path: Path, arguments: list[str], fact: str, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"photos": photos, "empty": tmp_path / "empty"}
    places["empty"].mkdir()
    assert run(checkpoint, tmp_path / "out", *(word.format(**places) for word in arguments)) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert fact.format(**places) in lines[0]
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_auto_is_the_cpu_and_cuda_is_refused(checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    assert run(checkpoint, tmp_path / "out", photos, "--device", "auto") == 0
    assert read_json(tmp_path / "out" / "run.json")["config"]["device"] == "cpu"
    assert "--device cuda" in str(fault(words(checkpoint, tmp_path / "out", photos, "--device", "cuda")))


def test_a_checkpoint_of_an_edge_network_is_refused(edge_checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    error = str(fault(words(edge_checkpoint, tmp_path / "out", photos)))
    assert all(fact in error for fact in (str(edge_checkpoint), "affinity", "segmentation"))
    assert not (tmp_path / "out").exists()
