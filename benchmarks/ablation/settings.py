"""What a row of the ablation is: presets of data and budget, methods, and how an option changes one of them."""

from dataclasses import dataclass, is_dataclass, replace
from typing import Any

import yaml

from benchmarks.ablation.readings import RestoringAttention
from tag2mask.data.transforms import Preprocessing
from tag2mask.errors import InputError
from tag2mask.models.attention import Attention
from tag2mask.models.backbones import Backbone
from tag2mask.tasks.optim import SGD
from tag2mask.tasks.settings import CAMInference, Contrast, Tiles

LITE_MEAN, LITE_STD = (0.498,) * 3, (0.502,) * 3
"""(x - 127) / 128, as EfficientNet-Lite was trained."""


@dataclass(frozen=True)
class Run:
    """Everything that settles the numbers of one row but its data folder.

    Attributes:
        tiles: the method, as `CAMTask` takes it.
        seed: of weights, order and crops; the photographs are drawn with seed 0 in every run.
        backbone: feature extractor and its weights.
        optimizer: learning rates and their decay.
        inference: how the scored CAMs are made. With cached features: one scale, no flip.
        preprocessing: normalisation, and without cached features size and crop.
        trained: blocks of the backbone that are trained above cached features; null trains it all, on crops.
        side: of the square that photographs are squeezed to for cached features, in pixels.
        mirror: train on mirror images too, where features are cached (it doubles what is computed).
        photos: how many of ``train_split`` are drawn; 0 takes all.
        epochs: passes through them.
        batch_size: photographs a step.
        train_split: whose tags are trained on.
        scored: whose masks score, besides what is left of ``tune_split``.
        tune_split: from which ``tune`` photographs are drawn that choose the threshold.
        tune: how many.
        mean_over: classes of the means; none takes all with the background.
        points: evaluations during training.
        precision: Lightning's.
        accelerator: Lightning's.
        workers: processes that load crops.
    """

    tiles: Tiles | None = None
    seed: int = 0
    backbone: Backbone = Backbone("tf_efficientnet_lite0", weights="package", freeze_norm=True)
    optimizer: SGD = SGD(lr=0.02)
    inference: CAMInference = CAMInference(scales=(1.0,), flip=False)
    preprocessing: Preprocessing = Preprocessing(mean=LITE_MEAN, std=LITE_STD)  # type: ignore[arg-type]
    trained: int | None = 1
    side: int = 224
    mirror: bool = False
    photos: int = 400
    epochs: int = 4
    batch_size: int = 16
    train_split: str = "trainaug"
    scored: str = "val"
    tune_split: str = "train"
    tune: int = 75
    mean_over: tuple[str, ...] = ()
    points: int = 4
    precision: str = "32-true"
    accelerator: str = "cpu"
    workers: int = 0


SEVEN = ("background", "cat", "cow", "dog", "horse", "person", "sheep")
"""Classes of the VOC subset that have enough photographs (``miou7``)."""

FAST = Run(mean_over=SEVEN)
_SQUARES = replace(FAST.preprocessing, long_side=(192, 256), crop_size=192)
SAMPLE = Run(
    backbone=replace(
        FAST.backbone, dilate=False, frozen=("conv_stem", "bn1", "blocks.0", "blocks.1", "blocks.2", "blocks.3")
    ),
    optimizer=SGD(lr=0.01),
    preprocessing=_SQUARES,
    trained=None,
    photos=0,
    epochs=6,
    batch_size=8,
    train_split="train",
    tune=30,
)
PRESETS = {
    "smoke": replace(SAMPLE, trained=1, side=64, epochs=1, batch_size=4, tune=4, points=1),
    "sample": SAMPLE,
    "voc-head": replace(FAST, trained=0, epochs=2, points=1),
    "voc-fast": FAST,
    "voc-full": replace(
        FAST,
        optimizer=SGD(lr=0.01),
        inference=CAMInference(),
        preprocessing=replace(FAST.preprocessing, long_side=(256, 448), crop_size=320),
        trained=None,
        photos=0,
        epochs=15,
        batch_size=32,
        precision="16-mixed",
        accelerator="gpu",
        workers=8,
    ),
}
"""``smoke`` is for the tests; ``sample`` takes minutes on the drawn set; ``voc-head`` trains the head alone,
``voc-fast`` the last block too, both on cached features; ``voc-full`` the whole network but for its batch norms, on a
GPU."""

PRINTED_RSA = Attention(kernel="exp_dot", temperature=1.0, center=False)
PRINTED_CFC = Contrast(lam=0.5, per_class=False, detach_features=False, repel=0.0, least=0.0)
PUZZLE = Tiles(
    min_side=0, beta=2.0, start=0.0, ramp=0.5, distance="l1", learns="both", attention=None, refined="all",
    contrast=None, moves="network", tags="all",
)  # fmt: skip
PRINTED = replace(PUZZLE, attention=PRINTED_RSA, contrast=PRINTED_CFC)
"""The method as printed, but for the mean of Eq. 14."""

GUARDED = Contrast(lam=0.02, least=0.0)
"""CFC that does not collapse: class by class, a small pull, and lam x repel of push away from backgrounds."""
WIDE = RestoringAttention(kernel="exp_cosine", temperature=0.3, layer="blocks.4", region="image")
"""RSA of the tiles whose average does not flatten the map, on a lower layer and over the whole image."""
SPREAD = Attention(kernel="exp_cosine", temperature=0.2, layer="blocks.2", region="image", detach=True)
"""Attention on a layer that still sees edges and colours: of the finished CAM (``made``), or in training too."""
MIDDLE = Attention(layer="blocks.3")
"""Attention by SEAM's kernel at half the depth."""
PAPER = Tiles(attention=replace(MIDDLE, region="image", detach=True))
"""The paper's method: all three parts on, as in configs/voc/cam_lite0.yaml."""


@dataclass(frozen=True)
class Row:
    """What a row changes of its preset.

    Attributes:
        tiles: the method that trains.
        made: the attention that CAMs are made with (`CAMInference.attention`).
    """

    tiles: Tiles | None = None
    made: Attention | None = None


_TILES = replace(PUZZLE, beta=0.0)
_FULL = replace(PUZZLE, beta=0.5, learns="full")
ROWS = {
    "plain": Row(),
    "puzzle": Row(PUZZLE),
    "tiles": Row(_TILES),
    "cfc": Row(replace(_TILES, contrast=GUARDED)),
    "rsa": Row(_TILES, SPREAD),
    "both": Row(replace(_TILES, contrast=GUARDED), SPREAD),
    "plain-rsa": Row(None, SPREAD),
    "puzzle-rsa": Row(PUZZLE, SPREAD),
    "both-trained": Row(replace(_TILES, attention=SPREAD, contrast=GUARDED), SPREAD),
    "puzzle-full": Row(_FULL),
    "rsa-full": Row(replace(_FULL, attention=WIDE)),
    "both-full": Row(replace(_FULL, attention=WIDE, contrast=GUARDED)),
    "both-full-made": Row(replace(_FULL, attention=WIDE, contrast=GUARDED), SPREAD),
    "paper": Row(PAPER),
    "paper-attended": Row(PAPER, MIDDLE),
    "former-tuned": Row(replace(_TILES, contrast=Contrast()), MIDDLE),
    "cfc-printed": Row(replace(PUZZLE, contrast=PRINTED_CFC)),
    "rsa-printed": Row(replace(PUZZLE, attention=PRINTED_RSA)),
    "both-printed": Row(PRINTED),
    "both-printed-attended": Row(PRINTED, MIDDLE),
}
# ``former-tuned`` was cam_lite0_tuned.yaml until b6c5b23; that file now is ``paper-attended``
MAIN = ("plain", "puzzle", "tiles", "cfc", "rsa", "both")
"""``tiles`` is Puzzle-CAM without L_re, the control of the three after it: the same without the module."""
GRID = {f"both-lam{lam}-beta{beta}": (lam, beta) for lam in (0.5, 1.0, 1.5) for beta in (1.0, 2.0, 3.0)}
"""Table 1, lambda by beta, of the modules as printed."""


def with_row(run: Run, name: str) -> Run:
    """Return ``run`` with the method of a row, of the grid too."""
    if name in GRID:
        lam, beta = GRID[name]
        return replace(run, tiles=replace(PRINTED, beta=beta, contrast=replace(PRINTED_CFC, lam=lam)))
    if name not in ROWS:
        raise InputError(f"no row {name!r}; expected some of {', '.join([*ROWS, *GRID])}")
    row = ROWS[name]
    return replace(run, tiles=row.tiles, inference=replace(run.inference, attention=row.made))


def changed(settings: Any, key: str, value: Any) -> Any:
    """Return dataclass ``settings`` with the value at a dotted ``key`` replaced.

    Where a part on the way is None (a row without attention, say), the settings come back as they are: an option
    applies to the rows that have it.
    """
    name, _, rest = key.partition(".")
    if not is_dataclass(settings) or not hasattr(settings, name):
        known = ", ".join(vars(settings)) if is_dataclass(settings) else "nothing"
        raise InputError(f"--set: no setting {name!r}; expected one of {known}")
    inner = getattr(settings, name)
    if rest:
        return settings if inner is None else replace(settings, **{name: changed(inner, rest, value)})  # type: ignore[type-var]
    return replace(settings, **{name: tuple(value) if isinstance(value, list) else value})  # type: ignore[type-var]


def with_options(run: Run, options: list[str]) -> Run:
    """Apply options such as ``tiles.attention.temperature=0.3``, their values read as YAML."""
    for option in options:
        key, equals, text = option.partition("=")
        if not equals:
            raise InputError(f"--set {option}: expected KEY=VALUE, such as epochs=2")
        run = changed(run, key, yaml.safe_load(text))
    return run
