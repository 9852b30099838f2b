"""Fully connected CRF: labels that agree with the edges of the photograph.

Kraehenbuehl and Koltun, "Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials", 2011, with the
energy of pydensecrf (Potts compatibility, kernels normalised symmetrically), by that package or in PyTorch. The two
agree to rounding, unless the number of pixels is no multiple of 4: then pydensecrf's lattice also holds one to three
black points at the corner, which move the marginals of a few pixels (by 0.01 at most on the photographs we tried).

Shape letters in this file: L labels, H x W the photograph, P = H x W pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from tag2mask.classes import BACKGROUND
from tag2mask.errors import MismatchError, MissingError, SettingError
from tag2mask.refine import permutohedral

Backend = Literal["auto", "pydensecrf", "torch"]
Image = np.ndarray | Tensor


class _Kernel:
    """Refuses a width of 0 or less."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name != "compat" and not value > 0:
                width = f"{type(self).__name__} {name}"
                raise SettingError(f"{width} is {value}; expected a number above 0 (leave the kernel out by null)")


@dataclass(frozen=True)
class Gaussian(_Kernel):
    """The kernel that smooths: pixels near each other should agree. Defaults are IRN's and Puzzle-CAM's.

    Attributes:
        sxy: standard deviation, in pixels.
        compat: how much a disagreement costs.
    """

    sxy: float = 3.0
    compat: float = 3.0


@dataclass(frozen=True)
class Bilateral(_Kernel):
    """The kernel that follows edges: pixels near each other and of like colour should agree. Defaults as above.

    Attributes:
        sxy: standard deviation, in pixels.
        srgb: standard deviation of each colour, in steps of 0..255.
        compat: how much a disagreement costs.
    """

    sxy: float = 50.0
    srgb: float = 5.0
    compat: float = 10.0


@dataclass(frozen=True)
class CRF:
    """Settings of the CRF, and where it starts from.

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
    backend: Backend = "auto"

    def from_labels(self, image: np.ndarray, label: Tensor, labels: int) -> Tensor:
        """Return the probabilities (L, H, W) that start from a map (H, W) of labels 0 to L - 1."""
        if self.certainty is None:
            raise ValueError("certainty is None; a label map has no scores to take in its place")
        return self._marginals(image, unary_from_labels(label, labels, self.certainty))

    def from_scores(self, image: np.ndarray, scores: Tensor) -> Tensor:
        """Return the probabilities (L, H, W) that start from scores (L, H, W) of at least zero."""
        if self.certainty is not None:
            return self.from_labels(image, scores.argmax(0), len(scores))
        total = scores.sum(0, keepdim=True)
        shares = torch.where(total > 0, scores / total, 1 / len(scores))  # without any score all are as likely
        return self._marginals(image, unary_from_probabilities(shares))

    def sharpen(self, image: np.ndarray, probabilities: Tensor) -> Tensor:
        """Return a segmentation network's probabilities (L, H, W) after the CRF; label 0 is the background.

        Only the background and the classes that win somewhere take part: the others would only cost time.
        """
        winners = probabilities.argmax(0).unique()
        values = torch.cat([winners.new_tensor([BACKGROUND]), winners]).unique()
        if len(values) == 1:
            return probabilities
        after = torch.zeros_like(probabilities)
        after[values] = self.from_scores(image, probabilities[values])
        return after

    def label(self, image: np.ndarray, probabilities: Tensor, size: Sequence[int]) -> Tensor:
        """Return the label map (H, W) uint8, at another ``size``, of probabilities (L, h, w) after the CRF."""
        from tag2mask.models.segmentation import label_map  # takes seconds to import, which `labels` does not need

        return label_map(self.sharpen(image, probabilities), size)

    def _marginals(self, image: np.ndarray, unary: Tensor) -> Tensor:
        return dense_crf(image, unary, self.gaussian, self.bilateral, self.steps, self.backend)


TEST_TIME = CRF(10, None, Gaussian(sxy=3, compat=3), Bilateral(sxy=80, srgb=13, compat=10))
"""Settings that Puzzle-CAM segments with; those of its pseudo-labels are the defaults of `CRF`."""


def dense_crf(
    image: Image,
    unary: Tensor,
    gaussian: Gaussian | None = Gaussian(),
    bilateral: Bilateral | None = Bilateral(),
    steps: int = 10,
    backend: Backend = "auto",
) -> Tensor:
    """Return each pixel's probability of each label after ``steps`` of mean field, (L, H, W) float32.

    ``unary`` are negative log-probabilities before the CRF, (L, H, W), of any float type: without a step the result is
    ``softmax(-unary)``. Labels that are nowhere in the photograph, (H, W, 3) uint8, only cost time: leave them out.
    ``auto`` takes pydensecrf where it is installed and ``unary`` is not on a GPU. The rest is as in `CRF`.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype not in (np.uint8, torch.uint8):
        raise MismatchError(
            f"the image is {tuple(image.shape)} {image.dtype}; expected (height, width, 3) uint8: convert it to RGB"
        )
    if unary.ndim != 3 or tuple(unary.shape[1:]) != tuple(image.shape[:2]):
        raise MismatchError(
            f"the unary is {tuple(unary.shape)}, the image {tuple(image.shape)}; expected (labels, height, width) of "
            "the image: resize the scores first"
        )
    if backend not in get_args(Backend):
        raise SettingError(f"backend is {backend!r}; expected 'auto', 'pydensecrf' or 'torch'")
    if backend == "pydensecrf" or (backend == "auto" and unary.device.type == "cpu" and _pydensecrf()):
        return _by_pydensecrf(image, unary, gaussian, bilateral, steps)
    return mean_field(image, unary, gaussian, bilateral, steps)


@torch.no_grad()
def mean_field(
    image: Image, unary: Tensor, gaussian: Gaussian | None, bilateral: Bilateral | None, steps: int
) -> Tensor:
    """Return what `dense_crf` returns, in PyTorch on the device of ``unary``."""
    place = torch.cartesian_prod(*(torch.arange(side, device=unary.device) for side in image.shape[:2])).flip(1).float()
    features = []
    if gaussian is not None:
        features.append((gaussian.compat, place / gaussian.sxy))
    if bilateral is not None:
        colour = torch.as_tensor(np.array(image) if isinstance(image, np.ndarray) else image).to(place)
        colour = colour.flatten(0, 1) / bilateral.srgb
        features.append((bilateral.compat, torch.cat([place / bilateral.sxy, colour], 1)))
    kernels = [(compat, permutohedral.build(points).normalised()) for compat, points in features]
    log_prior = unary.detach().float().neg().flatten(1).T
    marginals = _softmax(log_prior)
    for _ in range(steps):
        energy = log_prior
        for compat, kernel in kernels:
            energy = energy.add(kernel.filter(marginals), alpha=compat)
        marginals = _softmax(energy)
    return marginals.T.reshape(unary.shape)


def unary_from_probabilities(probabilities: Tensor, floor: float = 1e-5) -> Tensor:
    """Negative logarithm of probabilities no smaller than ``floor`` (pydensecrf's value), (L, H, W) float32."""
    return -probabilities.float().clamp(floor, 1).log()


def unary_from_labels(label: Tensor, num_labels: int, certainty: float = 0.7) -> Tensor:
    """Negative log-probabilities, (L, H, W) float32, of a map (H, W) of labels 0 to L - 1 (``num_labels`` is L).

    The label of a pixel has the probability ``certainty``, within (0, 1); the others share the rest evenly. 0.7 is
    IRN's and Puzzle-CAM's. As pydensecrf's ``unary_from_labels`` with ``zero_unsure=False``.
    """
    if not 0 < certainty < 1:
        raise SettingError(f"certainty is {certainty}; expected a number within (0, 1)")
    low, high = int(label.min()), int(label.max())
    if low < 0 or high >= num_labels:
        raise MismatchError(f"the label map holds {low}..{high}; expected 0..{num_labels - 1}: renumber its labels")
    rest = (1 - certainty) / max(num_labels - 1, 1)
    chance = torch.full((num_labels, *label.shape), rest, device=label.device)
    return -chance.scatter_(0, label.long()[None], certainty).log()


def _pydensecrf() -> Any:
    """Return the package's module, None where it cannot be imported."""
    try:
        from pydensecrf import densecrf
    except ImportError:
        return None
    return densecrf


def _by_pydensecrf(
    image: Image, unary: Tensor, gaussian: Gaussian | None, bilateral: Bilateral | None, steps: int
) -> Tensor:
    """`dense_crf` by the package; it wants arrays that are contiguous and writable."""
    package = _pydensecrf()
    if package is None:
        raise MissingError("backend 'pydensecrf' is not installed; pip install pydensecrf2, or backend: torch")
    labels, height, width = unary.shape
    crf = package.DenseCRF2D(width, height, labels)
    crf.setUnaryEnergy(unary.detach().float().cpu().flatten(1).contiguous().numpy())
    if gaussian is not None:
        crf.addPairwiseGaussian(sxy=gaussian.sxy, compat=gaussian.compat)
    if bilateral is not None:
        pixels = np.require(image.cpu().numpy() if isinstance(image, Tensor) else image, requirements=["C", "W"])
        crf.addPairwiseBilateral(sxy=bilateral.sxy, srgb=bilateral.srgb, rgbim=pixels, compat=bilateral.compat)
    marginals = torch.from_numpy(np.array(crf.inference(steps)))
    return marginals.view(labels, height, width).to(unary.device)


def _softmax(energy: Tensor) -> Tensor:
    """Softmax over labels, (P, L); for the few labels of a photograph several times as fast as torch's on a CPU."""
    raised = (energy - energy.amax(1, keepdim=True)).exp_()
    return raised.div_(raised.sum(1, keepdim=True))
