"""From the CAMs of one photograph to a label map: background, winner, what is sure, and recipes of several steps.

Shape letters in this file: K classes of one image, L = K + 1 labels with the background, H x W the photograph, h x w
its CAM.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from tag2mask.classes import BACKGROUND, IGNORE
from tag2mask.errors import SettingError
from tag2mask.io.cams import CAMs
from tag2mask.refine.dense_crf import CRF
from tag2mask.refine.random_walk import edge_transition, feature_transition, random_walk
from tag2mask.refine.regions import Regions

Guide = Callable[[np.ndarray], Tensor]  # of a photograph (H, W, 3) uint8 its edges (h, w) or features (D, h, w)
Refine = Callable[[Tensor, int], Tensor]  # smooths labels: (h, w) int64 of 0..L-1, and L -> probabilities (L, h, w)
POWER = 1.5  # of `auto_threshold`
Threshold = float | Literal["auto"]  # a score in [0, 1]; "auto" is chosen by `auto_threshold`


@dataclass(frozen=True)
class Seed:
    """The background's score, beside those of the classes. One of the two settings is given, the other is None.

    Attributes:
        threshold: a constant score in [0, 1], as IRN and Puzzle-CAM take it; "auto" chooses it from the CAMs.
        alpha: (1 - highest CAM) ** alpha instead, as AffinityNet takes it: a higher one makes less background.
    """

    threshold: Threshold | None = 0.3
    alpha: float | None = None

    def __post_init__(self) -> None:
        if (self.threshold is None) == (self.alpha is None):
            raise SettingError(f"threshold {self.threshold} and alpha {self.alpha}: give one of them, the other null")

    def scores(self, cam: Tensor) -> Tensor:
        """Put the background's score before those of the classes: (K, h, w) -> (1 + K, h, w) float32; K may be 0."""
        assert self.threshold != "auto"  # `stage.settled` chose
        scores = F.pad(cam.float(), (0, 0, 0, 0, 1, 0), value=self.threshold)
        if self.alpha is not None:
            scores[0] = (1 - scores.amax(0)) ** self.alpha
        return scores


def strength(maps: Tensor) -> float:
    """Return what `auto_threshold` needs of the CAMs of one photograph, (K, h, w) in [0, 1], K above 0."""
    return maps.float().amax(0).pow(POWER).mean().item()


def auto_threshold(strengths: Sequence[float]) -> float:
    """Choose the background's score from the `strength` of some photographs, without any mask; two digits.

    It is the power mean, of exponent 1.5, of the highest CAM at each position. Each photograph counts alike. Of some
    thirty such statistics this one came nearest to the best threshold (docs/experiments/thresholds-without-masks.md).
    """
    return round(float(np.mean(strengths) ** (1 / POWER)), 2)


def seed(scores: Tensor, classes: Tensor) -> Tensor:
    """Return the mask value of the highest score at each position, (h, w) uint8; of equal ones, the first.

    ``scores`` are the background's, then those of the classes, (1 + K, h, w); ``classes`` their mask values, (K,).
    """
    if len(scores) != 1 + len(classes):
        raise ValueError(f"{len(scores)} scores with the background for {len(classes)} classes; expected one more")
    values = F.pad(classes.to(scores.device, torch.long), (1, 0), value=BACKGROUND)
    return values[scores.argmax(0)].to(torch.uint8)


def confident(
    cam: Tensor, classes: Tensor, foreground: float = 0.30, background: float = 0.05, refine: Refine | None = None
) -> Tensor:
    """Label only what is sure, with mask values (h, w) uint8: IRN's ``cam_to_ir_label``.

    Two label maps are made of a CAM (K, h, w) in [0, 1], by a high and a low threshold (the defaults are IRN's,
    Puzzle-CAM's README has 0.40 and 0.10), and each is refined, IRN's by a dense CRF. A class, with its mask value of
    ``classes`` (K,), stands where the first map has it; background where neither has any class; ``IGNORE`` elsewhere.
    K may be 0.
    """
    sure, possible = (Seed(threshold).scores(cam) for threshold in (foreground, background))
    if refine is not None and len(cam):
        sure, possible = (refine(scores.argmax(0), len(scores)) for scores in (sure, possible))
    undecided = (sure.argmax(0) == BACKGROUND) & (possible.argmax(0) != BACKGROUND)
    return seed(sure, classes).masked_fill(undecided, IGNORE)


class Walk(ABC):
    """Random walk that spreads CAMs over a photograph; YAML names one of its subclasses."""

    checkpoint: str | None  # of the network that guides the walk
    task: ClassVar[str]  # that the network was trained for, as its checkpoint names it

    def spread(self, maps: Tensor, guide: Tensor) -> Tensor:
        """Walk with CAMs (K, h, w), at the size of the guide, and scale their maximum to 1; K may be 0."""
        if not len(maps):
            return maps
        spread = self._walk(at_size(maps, guide.shape[-2:]), guide)
        return spread / spread.max().clamp_min(1e-5)

    @abstractmethod
    def _walk(self, maps: Tensor, guide: Tensor) -> Tensor:
        """Walk with maps that have the size of the guide."""


@dataclass(frozen=True)
class EdgeWalk(Walk):
    """Random walk that learned edges stop (IRN).

    Attributes:
        checkpoint: of the edge network, made by `tag2mask fit` with a configuration affinity_*.yaml.
        radius: of the positions that a step can reach.
        beta: exponent of the affinities.
        steps: of the walk.
    """

    checkpoint: str
    radius: int = 5
    beta: float = 10.0
    steps: int = 256
    task: ClassVar[str] = "affinity"

    def _walk(self, maps: Tensor, guide: Tensor) -> Tensor:
        damped = maps * (1 - guide)  # as IRN does
        return random_walk(damped, edge_transition(guide, self.radius, self.beta), self.steps)


@dataclass(frozen=True)
class FeatureWalk(Walk):
    """Random walk between positions whose features in a CAM network are alike: AffinityNet's, without its training.

    Only the direction of a feature vector counts: each is scaled to a mean square of 1, which in our measurements was
    better than to scale all of a photograph alike (docs/experiments/feature-affinity-walk.md).

    Attributes:
        layer: of the backbone, by name (``blocks.4`` of EfficientNet-Lite0); the walk has the size of its map.
        checkpoint: of the CAM network; null takes the one that made the CAMs.
        radius: of the positions that a step can reach; the value of AffinityNet's code.
        beta: exponent of the affinities; AffinityNet's code has 8, with which 256 steps spread too far here.
        steps: of the walk; the value of AffinityNet's code.
    """

    layer: str
    checkpoint: str | None = None
    radius: int = 5
    beta: float = 10.0
    steps: int = 256
    task: ClassVar[str] = "cam"

    def _walk(self, maps: Tensor, guide: Tensor) -> Tensor:
        directions = guide / guide.square().mean(0).sqrt().clamp_min(1e-5)
        return random_walk(maps, feature_transition(directions, self.radius, self.beta), self.steps)


class Result(NamedTuple):
    """What a recipe makes of one photograph."""

    steps: dict[str, np.ndarray]  # label map (H, W) uint8 after each step, in order; the last one is the label
    soft: CAMs  # that the label was cut from
    edges: Tensor | None = None  # that stopped the walk, in [0, 1], (h, w)


class Recipe(ABC):
    """Turns the CAMs of one photograph into label maps; YAML names one of its subclasses."""

    walk: Walk | None = None
    crf: CRF | None = None
    regions: Regions | None = None
    max_side: int | None

    @property
    def needs_photo(self) -> bool:
        """Whether the labels depend on the photograph, not on the CAMs alone."""
        superpixels = self.regions is not None and self.regions.folder is None
        return self.walk is not None or self.crf is not None or superpixels

    @property
    def step_names(self) -> tuple[str, ...]:
        """Names of the steps, in order."""
        return ("seed",)

    @property
    def thresholds(self) -> dict[str, Threshold | None]:
        """The thresholds, by name."""
        return {}

    @property
    def auto(self) -> bool:
        """Whether thresholds are still to be chosen."""
        return "auto" in self.thresholds.values()

    def judged(self, cams: CAMs, image: np.ndarray | None, guide: Guide | None, device: str) -> Tensor:
        """Return the maps of one photograph, (K, h, w), of which a threshold is chosen."""
        return cams.cam

    def settled(self, threshold: float) -> "Recipe":
        """Return the recipe with the chosen threshold in place of "auto"."""
        return self

    @abstractmethod
    def __call__(self, cams: CAMs, image: np.ndarray | None, guide: Guide | None, device: str) -> Result:
        """Make the labels of one photograph (H, W, 3) uint8; what the recipe does not need may be None."""

    def _shrunk(self, image: np.ndarray | None, size: tuple[int, int]) -> tuple[np.ndarray, tuple[int, int]]:
        """Shrink a photograph whose longer side is above ``max_side``; return it, if it is needed, and its size."""
        factor = 1.0 if self.max_side is None else min(1.0, self.max_side / max(size))
        small = max(1, round(size[0] * factor)), max(1, round(size[1] * factor))
        if not self.needs_photo:
            return np.empty((0, 0, 3), np.uint8), small
        assert image is not None
        if small != size:
            image = np.array(Image.fromarray(image).resize(small[::-1], Image.Resampling.BOX))
        return image, small


@dataclass(frozen=True)
class PseudoLabels(Recipe):
    """CAM -> random walk -> seed -> dense CRF -> regions. Walk, CRF and regions can be left out.

    Attributes:
        seed: the background's score.
        walk: null leaves the random walk out.
        crf: null leaves the CRF out.
        regions: that the label is snapped to at the end; null leaves them out.
        max_side: longer side, in pixels, to which larger photographs are shrunk for walk and CRF; the label has the
            size of the photograph all the same. Null never shrinks.
    """

    seed: Seed = Seed()
    walk: Walk | None = None
    crf: CRF | None = CRF()
    regions: Regions | None = None
    max_side: int | None = 1024

    @property
    def step_names(self) -> tuple[str, ...]:
        """``seed``, and ``walk``, ``crf`` and ``regions`` where they are not left out."""
        return ("seed", *(step for step in ("walk", "crf", "regions") if getattr(self, step)))

    @property
    def thresholds(self) -> dict[str, Threshold | None]:
        """The score of the background."""
        return {"threshold": self.seed.threshold}

    def judged(self, cams: CAMs, image: np.ndarray | None, guide: Guide | None, device: str) -> Tensor:
        """Return the CAMs of one photograph after the walk, (K, h, w)."""
        photo, _ = self._shrunk(image, cams.size)
        return self._walked(cams.cam.float().to(device), photo, guide)[0]

    def settled(self, threshold: float) -> "PseudoLabels":
        """Return the recipe with the chosen score of the background."""
        return replace(self, seed=replace(self.seed, threshold=threshold)) if self.auto else self

    def _walked(self, maps: Tensor, photo: np.ndarray, guide: Guide | None) -> tuple[Tensor, Tensor | None]:
        """Return the maps after the walk, and what guided it."""
        if self.walk is None:
            return maps, None
        assert guide is not None
        guided = guide(photo)
        return self.walk.spread(maps, guided), guided

    def __call__(self, cams: CAMs, image: np.ndarray | None, guide: Guide | None, device: str) -> Result:
        """Make the labels of one photograph."""
        photo, size = self._shrunk(image, cams.size)
        maps = cams.cam.float().to(device)
        scores, edges = {"seed": self.seed.scores(at_size(maps, size))}, None
        if self.walk is not None:
            maps, guided = self._walked(maps, photo, guide)
            edges = guided.cpu() if guided is not None and isinstance(self.walk, EdgeWalk) else None
            scores["walk"] = self.seed.scores(at_size(maps, size))
        if self.crf is not None:
            scores["crf"] = self.crf.from_scores(photo, list(scores.values())[-1])
        steps = {step: seed(at_size(each, cams.size), cams.classes).cpu().numpy() for step, each in scores.items()}
        return Result(steps, cams._replace(cam=maps.cpu()), edges)


@dataclass(frozen=True)
class ConfidentSeeds(Recipe):
    """Labels where CAM and CRF are sure, ``IGNORE`` elsewhere: what the edge network learns from (IRN).

    Attributes:
        foreground: a class is sure where it stands above this threshold; "auto" is half above the threshold that is
            chosen from the CAMs, but at most half-way from there to 1.
        background: it is sure where nothing stands above this one; "auto" is half the chosen threshold.
        crf: applied to both label maps; null leaves it out.
        max_side: longer side to which larger photographs are shrunk, as in `PseudoLabels`.
    """

    foreground: Threshold = 0.3
    background: Threshold = 0.05
    crf: CRF | None = CRF()
    max_side: int | None = 1024

    def __post_init__(self) -> None:
        high, low = self.foreground, self.background
        if high != low and "auto" in (high, low):
            raise SettingError(f"foreground {high}, background {low}; expected auto for both, or for neither")
        if not isinstance(high, str) and not isinstance(low, str) and not 0 <= low <= high <= 1:
            raise SettingError(f"background {low}, foreground {high}; expected 0 <= background <= foreground <= 1")
        if self.crf is not None and self.crf.certainty is None:
            raise SettingError("certainty is null, but these seeds are label maps; give crf.certainty, such as 0.7")

    @property
    def thresholds(self) -> dict[str, Threshold | None]:
        """Where a class is sure, and where the background is."""
        return {"foreground": self.foreground, "background": self.background}

    def settled(self, threshold: float) -> "ConfidentSeeds":
        """Return the recipe with thresholds above and below the chosen one."""
        sure = min(1.5 * threshold, (1 + threshold) / 2)
        return replace(self, foreground=round(sure, 3), background=round(threshold / 2, 3)) if self.auto else self

    def __call__(self, cams: CAMs, image: np.ndarray | None, guide: Guide | None, device: str) -> Result:
        """Make the labels of one photograph."""
        photo, size = self._shrunk(image, cams.size)
        maps = at_size(cams.cam.float().to(device), size)
        refine = None if self.crf is None else partial(self.crf.from_labels, photo)
        high, low = self.foreground, self.background
        assert not isinstance(high, str)  # `stage.settled` chose
        assert not isinstance(low, str)
        label = confident(maps, cams.classes, high, low, refine)
        whole = Image.fromarray(label.cpu().numpy()).resize(cams.size[::-1], Image.Resampling.NEAREST)
        return Result({"seed": np.array(whole)}, cams)


def at_size(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Scale maps (K, h, w) bilinearly to a height and width; K may be 0."""
    if tuple(maps.shape[1:]) == tuple(size):
        return maps
    if not len(maps):
        return maps.new_zeros((0, *size))
    return F.interpolate(maps[None], tuple(size), mode="bilinear", align_corners=False)[0]
