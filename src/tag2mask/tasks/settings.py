"""The settings of the CAM and the segmentation network; those of backbone, attention and optimiser are beside these."""

from dataclasses import dataclass, replace
from typing import Literal

import torch

from tag2mask.errors import SettingError
from tag2mask.losses import CollisionCrossEntropy, CrossEntropy, SoftCrossEntropy
from tag2mask.models.attention import Attention
from tag2mask.models.backbones import Backbone
from tag2mask.tasks.optim import SGD


@dataclass(frozen=True)
class Contrast:
    """Cross-image foreground contrast (CFC), Eq. 10-14; see `losses.cross_image_foreground_contrast`.

    Attributes:
        lam: weight in the loss, lambda of Eq. 16.
        alpha: smoothing of the weights of pairs, Eq. 13.
        per_class: compare the vectors of a class with each other only, in images that share the class.
        detach_features: let the gradient reach the network through the CAM only.
        repel: weight of a term that pushes foregrounds away from backgrounds, times ``lam``; not in the paper.
        least: leave out tiles that hardly show the class, see `losses.shows_class`; 0 compares all, as printed.
    """

    lam: float = 0.02
    alpha: float = 0.25
    per_class: bool = True
    detach_features: bool = True
    repel: float = 20.0
    least: float = 0.05

    def __post_init__(self) -> None:
        if not 0 <= self.least <= 1:
            raise SettingError(f"least is {self.least}; expected a share of the longest vector, 0 to 1, such as 0.05")


@dataclass(frozen=True)
class Tiles:
    """The branch of the tiles. Without attention and contrast it is Puzzle-CAM.

    Attributes:
        grid: tiles on one side.
        min_side: pixels that a side of a tile has at least: smaller tiles are enlarged, see `tiling.enlargement`. 0
            leaves all as they are, as printed.
        beta: weight of the equivariance loss, beta of Eq. 16.
        start: share of training that passes before that weight grows from 0. A map that the equivariance loss takes up
            before the class is learnt can settle on the background and stay there.
        ramp: share of training over which it then grows; Puzzle-CAM has start 0 and ramp 0.5.
        distance: of the two CAMs in the equivariance loss: ``l1`` as printed, or ``correlation`` of their shapes, see
            `losses.correlation_loss`.
        learns: branch that the equivariance loss moves: ``both``, as printed, ``full`` or ``tiled``.
        attention: region self-attention (RSA), Eq. 3-6; null leaves the CAMs of the tiles as they are. The default
            spreads them over all tiles of the image, by the features at half the depth of ResNet-50.
        refined: what RSA refines: ``all`` that the tiles give, as printed: their class scores, the vectors of CFC and
            the target of the equivariance loss; or the ``target`` alone, which is cut at zero first.
        contrast: cross-image foreground contrast (CFC); null leaves it out.
        moves: what CFC and the equivariance loss train: the ``network``, as printed, or the class weights of the
            ``classifier`` alone: where the features learn from L_re too, they can learn edges
            (docs/experiments/making-the-parts-pay.md). ``classifier`` needs ``refined: target``, ``learns: full`` and
            ``contrast.detach_features: true``.
        tags: that CFC and the equivariance loss compare: ``all``, as printed, or those ``found``, see
            `losses.found_tags`.
    """

    grid: int = 2
    min_side: int = 224
    beta: float = 4.0
    start: float = 0.3
    ramp: float = 0.3
    distance: Literal["l1", "correlation"] = "correlation"
    learns: Literal["both", "full", "tiled"] = "full"
    attention: Attention | None = Attention(layer="layer3.0", region="image", detach=True)
    refined: Literal["all", "target"] = "target"
    contrast: Contrast | None = Contrast()
    moves: Literal["network", "classifier"] = "classifier"
    tags: Literal["all", "found"] = "found"

    def __post_init__(self) -> None:
        vectors = self.contrast is None or self.contrast.detach_features
        if self.moves == "classifier" and (self.refined != "target" or self.learns != "full" or not vectors):
            raise SettingError(
                "tiles.moves: classifier needs refined: target, learns: full and contrast.detach_features: true; with "
                f"refined: {self.refined}, learns: {self.learns} and detach_features: {str(vectors).lower()} the "
                "features learn too: give moves: network"
            )


@dataclass(frozen=True)
class CAMInference:
    """How CAMs are made with a trained network: by the full branch alone (Alg. 2).

    Attributes:
        scales: relative sizes over which class maps are summed.
        flip: add the mirror image at each scale.
        stride: pixels of the photograph to one position of the CAM.
        tag_threshold: in a photograph without tags, the classes with a probability above this count as present; where
            there is none, the most probable class does.
        attention: self-attention over the whole image, Eq. 4-6 applied after training: it spreads each map over the
            positions that look alike. Alg. 2 has none, null. ``region`` plays no part here.
        floor: cut off what is below, in [0, 1), and stretch the rest to [0, 1]. An attention lifts the background,
            which a random walk would carry on; a floor takes that away. 0 leaves CAMs as they are, as in Alg. 2.
    """

    scales: tuple[float, ...] = (0.5, 1.0, 1.5, 2.0)
    flip: bool = True
    stride: int = 4
    tag_threshold: float = 0.5
    attention: Attention | None = None
    floor: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.floor < 1:
            raise SettingError(f"floor is {self.floor}; expected a number of at least 0 and below 1")

    def at_one_scale(self) -> "CAMInference":
        """Return the same at one scale and without mirror image: cheap enough for scores while training."""
        return replace(self, scales=(1.0,), flip=False)


@dataclass(frozen=True)
class MaskInference:
    """How masks are made with a trained segmentation network.

    Attributes:
        scales: relative sizes over which probabilities are averaged.
        flip: add the mirror image at each scale.
    """

    scales: tuple[float, ...] = (0.5, 1.0, 1.5, 2.0)
    flip: bool = True

    def __post_init__(self) -> None:
        if not self.scales or not all(0 < scale <= 8 for scale in self.scales):
            raise SettingError(f"scales are {list(self.scales)}; expected one or more numbers above 0 and at most 8")


torch.serialization.add_safe_globals([Attention, Backbone, CAMInference, Contrast, MaskInference, SGD, Tiles])
torch.serialization.add_safe_globals([CollisionCrossEntropy, CrossEntropy, SoftCrossEntropy])
