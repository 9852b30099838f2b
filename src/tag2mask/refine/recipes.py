"""Recipes that turn the CAMs of one photograph into a label map, step by step.

Shape letters in this file: K classes of one image, L = K + 1 labels with the background, H x W the photograph, h x w
its CAM.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from tag2mask.errors import InputError
from tag2mask.io.cams import CAMs
from tag2mask.refine.dense_crf import Bilateral, Gaussian, dense_crf, unary_from_labels, unary_from_probabilities
from tag2mask.refine.random_walk import random_walk
from tag2mask.refine.seeds import confident, seed, with_background

EdgeFinder = Callable[[np.ndarray], Tensor]
"""What finds the boundaries of a photograph: (H, W, 3) uint8 -> (h, w) in [0, 1]."""


@dataclass(frozen=True)
class Seed:
    """How the background is told from the classes; exactly one of the two.

    Attributes:
        threshold: constant score of the background, in [0, 1].
        alpha: the background's score is (1 - highest CAM) ** alpha, as in AffinityNet.
    """

    threshold: float | None = 0.3
    alpha: float | None = None

    def __post_init__(self) -> None:
        """Check that one of the two is given."""
        if (self.threshold is None) == (self.alpha is None):
            raise InputError(f"threshold {self.threshold} and alpha {self.alpha}: give one of them, the other null")


@dataclass(frozen=True)
class Walk:
    """Random walk over learned affinities (IRN).

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


@dataclass(frozen=True)
class CRF:
    """Fully connected CRF at the size of the photograph.

    Attributes:
        steps: of the mean field; 1 to 10.
        certainty: probability of the label that a pixel has, the others share the rest; null takes soft scores instead.
        gaussian: kernel over positions; null leaves it out.
        bilateral: kernel over positions and colours; null leaves it out.
        backend: ``pydensecrf``, ``torch`` (ours), or ``auto``: the first where it is installed.
    """

    steps: int = 10
    certainty: float | None = 0.7
    gaussian: Gaussian | None = Gaussian()
    bilateral: Bilateral | None = Bilateral()
    backend: Literal["auto", "pydensecrf", "torch"] = "auto"

    def marginals(self, image: np.ndarray, unary: Tensor) -> Tensor:
        """Return the probabilities (L, H, W) for a photograph (H, W, 3) and unary potentials (L, H, W)."""
        return dense_crf(image, unary, self.gaussian, self.bilateral, self.steps, self.backend)

    def from_labels(self, image: np.ndarray, label: Tensor, labels: int) -> Tensor:
        """Return the probabilities (L, H, W) that start from a map (H, W) of labels 0 to L - 1."""
        if self.certainty is None:
            raise ValueError("certainty is None; a label map has no scores to take in its place")
        return self.marginals(image, unary_from_labels(label, labels, self.certainty))

    def from_scores(self, image: np.ndarray, scores: Tensor) -> Tensor:
        """Return the probabilities (L, H, W) that start from scores (L, H, W) of at least zero."""
        if self.certainty is not None:
            return self.from_labels(image, scores.argmax(0), len(scores))
        total = scores.sum(0, keepdim=True)
        shares = torch.where(total > 0, scores / total, 1 / len(scores))  # without any score all are as likely
        return self.marginals(image, unary_from_probabilities(shares))


class Result(NamedTuple):
    """What a recipe makes of one photograph.

    Attributes:
        steps: label map (H, W) uint8 after each step, by its name and in order; the last one is the label.
        soft: the CAM that the label was cut from, (K, h, w) in [0, 1].
    """

    steps: dict[str, np.ndarray]
    soft: CAMs


class Recipe(ABC):
    """Turns the CAMs of one photograph into label maps; YAML names one of its subclasses."""

    walk: Walk | None = None
    needs_photo: bool = True

    @abstractmethod
    def __call__(self, cams: CAMs, image: np.ndarray | None, edges: EdgeFinder | None, device: str) -> Result:
        """Make the labels of one photograph (H, W, 3) uint8; what the recipe does not need may be None."""

    @property
    @abstractmethod
    def step_names(self) -> tuple[str, ...]:
        """Names of the steps, in order."""


class PseudoLabels(Recipe):
    """CAM -> random walk -> seed -> dense CRF. The walk and the CRF can be left out."""

    def __init__(
        self, seed: Seed = Seed(), walk: Walk | None = None, crf: CRF | None = CRF(), max_side: int | None = 1024
    ) -> None:
        """Set up the steps.

        Args:
            seed: how the background is told from the classes.
            walk: null leaves the random walk out.
            crf: null leaves the CRF out.
            max_side: longer side, in pixels, to which larger photographs are shrunk for all of this; the label has the
                size of the photograph all the same. Null never shrinks.
        """
        self.seed, self.walk, self.crf, self.max_side = seed, walk, crf, max_side
        self.needs_photo = walk is not None or crf is not None

    @property
    def step_names(self) -> tuple[str, ...]:
        """``seed``, and ``walk`` and ``crf`` where they are not left out."""
        return ("seed", *(["walk"] if self.walk else []), *(["crf"] if self.crf else []))

    def __call__(self, cams: CAMs, image: np.ndarray | None, edges: EdgeFinder | None, device: str) -> Result:
        """Make the labels of one photograph."""
        image, size = _shrunk(image, cams.size, self.max_side)
        maps = cams.cam.float().to(device)
        scores = self._scores(maps, size)
        steps = {"seed": _label(scores, cams)}
        if self.walk is not None:
            assert image is not None
            assert edges is not None
            maps = walked(maps, edges(image), self.walk)
            scores = self._scores(maps, size)
            steps["walk"] = _label(scores, cams)
        if self.crf is not None:
            assert image is not None
            steps["crf"] = _label(self.crf.from_scores(image, scores), cams)
        return Result(steps, CAMs(maps.cpu(), cams.classes, cams.size))

    def _scores(self, maps: Tensor, size: tuple[int, int]) -> Tensor:
        return with_background(at_size(maps, size), self.seed.threshold, self.seed.alpha)


class ConfidentSeeds(Recipe):
    """Labels where CAM and CRF are sure, ``IGNORE`` elsewhere: what the edge network learns from (IRN)."""

    def __init__(
        self,
        foreground: float = 0.3,
        background: float = 0.05,
        crf: CRF | None = CRF(),
        max_side: int | None = 1024,
    ) -> None:
        """Set up the two thresholds.

        Args:
            foreground: a class is sure where it stands above this threshold.
            background: it is sure where nothing stands above this one.
            crf: applied to both label maps; null leaves it out.
            max_side: longer side to which larger photographs are shrunk, as in `PseudoLabels`.
        """
        if not 0 <= background <= foreground <= 1:
            raise InputError(
                f"background {background}, foreground {foreground}; expected 0 <= background <= foreground"
            )
        if crf is not None and crf.certainty is None:
            raise InputError("certainty is null, but these seeds are label maps; give crf.certainty, such as 0.7")
        self.foreground, self.background, self.crf, self.max_side = foreground, background, crf, max_side
        self.needs_photo = crf is not None

    @property
    def step_names(self) -> tuple[str, ...]:
        """One step, ``seed``."""
        return ("seed",)

    def __call__(self, cams: CAMs, image: np.ndarray | None, edges: EdgeFinder | None, device: str) -> Result:
        """Make the labels of one photograph."""
        image, size = _shrunk(image, cams.size, self.max_side)
        maps = at_size(cams.cam.float().to(device), size)
        values = cams.classes.to(device)

        def refine(label: Tensor, labels: int) -> Tensor:
            assert self.crf is not None
            assert image is not None
            return self.crf.from_labels(image, label, labels)

        label = confident(maps, values, self.foreground, self.background, refine if self.crf else None)
        return Result({"seed": _enlarged(label.cpu().numpy(), cams.size)}, cams)


def at_size(maps: Tensor, size: tuple[int, ...]) -> Tensor:
    """Scale maps (K, h, w) to (K, H, W), bilinearly; K may be 0."""
    height, width = (int(side) for side in size)
    if tuple(maps.shape[1:]) == (height, width):
        return maps
    if not len(maps):
        return maps.new_zeros((0, height, width))
    return F.interpolate(maps[None], (height, width), mode="bilinear", align_corners=False)[0]


def walked(maps: Tensor, edge: Tensor, walk: Walk) -> Tensor:
    """Spread CAMs (K, h, w) by the random walk over an edge map (h, w) and scale their maximum to 1."""
    if not len(maps):
        return maps
    spread = random_walk(at_size(maps, tuple(edge.shape)), edge, radius=walk.radius, beta=walk.beta, steps=walk.steps)
    return spread / spread.max().clamp_min(1e-5)


def _label(scores: Tensor, cams: CAMs) -> np.ndarray:
    values = cams.classes
    return seed(at_size(scores, cams.size), values).cpu().numpy()


def _shrunk(
    image: np.ndarray | None, size: tuple[int, int], max_side: int | None
) -> tuple[np.ndarray | None, tuple[int, int]]:
    """Shrink a photograph whose longer side is above ``max_side``; return it and its height and width."""
    height, width = size
    factor = 1.0 if max_side is None else min(1.0, max_side / max(height, width))
    small = max(1, round(height * factor)), max(1, round(width * factor))
    if image is not None and small != (height, width):
        image = np.array(Image.fromarray(image).resize(small[::-1], Image.Resampling.BOX))
    return image, small


def _enlarged(label: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bring a label map to the size of the photograph, without new values in between."""
    height, width = (int(side) for side in size)
    return np.asarray(Image.fromarray(label).resize((width, height), Image.Resampling.NEAREST))
