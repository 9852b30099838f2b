"""Fully connected CRF: labels that agree with the edges of the photograph.

Kraehenbuehl and Koltun, "Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials", 2011, with the
energy of pydensecrf (Potts compatibility, kernels normalised symmetrically), by that package or in PyTorch. The two
agree to rounding, unless the number of pixels is no multiple of 4: then pydensecrf's lattice also holds one to three
black points at the corner, which move the marginals of a few pixels (by 0.01 at most on the photographs we tried).

Shape letters in this file: L labels, H x W pixels of a photograph, P pixels of one or several photographs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from tag2mask.errors import InputError
from tag2mask.refine import permutohedral
from tag2mask.refine.permutohedral import Lattice

Backend = Literal["auto", "pydensecrf", "torch"]
Image = np.ndarray | Tensor


def _positive(name: str, value: float) -> None:
    """Refuse a width of 0 or less."""
    if not value > 0:
        raise InputError(f"{name} is {value}; expected a number above 0 (leave the kernel out by null)")


@dataclass(frozen=True)
class Gaussian:
    """The kernel that smooths: pixels near each other should agree. Defaults are IRN's and Puzzle-CAM's.

    Attributes:
        sxy: standard deviation, in pixels.
        compat: how much a disagreement costs.
    """

    sxy: float = 3.0
    compat: float = 3.0

    def __post_init__(self) -> None:
        _positive("Gaussian sxy", self.sxy)


@dataclass(frozen=True)
class Bilateral:
    """The kernel that follows edges: pixels near each other and of like colour should agree. Defaults as above.

    Attributes:
        sxy: standard deviation, in pixels.
        srgb: standard deviation of each colour, in steps of 0..255.
        compat: how much a disagreement costs.
    """

    sxy: float = 50.0
    srgb: float = 5.0
    compat: float = 10.0

    def __post_init__(self) -> None:
        _positive("Bilateral sxy", self.sxy)
        _positive("Bilateral srgb", self.srgb)


def dense_crf(
    image: Image,
    unary: Tensor,
    gaussian: Gaussian | None = Gaussian(),
    bilateral: Bilateral | None = Bilateral(),
    steps: int = 10,
    backend: Backend = "auto",
) -> Tensor:
    """Return each pixel's probability of each label after ``steps`` of mean field, (L, H, W) float32.

    Args:
        image: the photograph, (H, W, 3) uint8.
        unary: negative log-probabilities before the CRF, (L, H, W). Labels that are nowhere in the photograph only
            cost time: leave them out.
        gaussian: smoothing kernel; None leaves it out.
        bilateral: edge-following kernel; None leaves it out.
        steps: updates of the mean field; 0 returns ``softmax(-unary)``.
        backend: ``pydensecrf``, ``torch`` (`mean_field`), or ``auto``: pydensecrf where it is installed and ``unary``
            is not on a GPU.
    """
    _check(image, unary)
    if backend == "auto":
        backend = "pydensecrf" if unary.device.type == "cpu" and _pydensecrf() else "torch"
    if backend == "pydensecrf":
        return _by_pydensecrf(image, unary, gaussian, bilateral, steps)
    if backend == "torch":
        return mean_field([image], [unary], gaussian, bilateral, steps)[0]
    raise InputError(f"backend is {backend!r}; expected 'auto', 'pydensecrf' or 'torch'")


@torch.no_grad()
def mean_field(
    images: Sequence[Image],
    unaries: Sequence[Tensor],
    gaussian: Gaussian | None = Gaussian(),
    bilateral: Bilateral | None = Bilateral(),
    steps: int = 10,
    together: int | None = None,
) -> list[Tensor]:
    """Return what `dense_crf` returns, for several photographs, in PyTorch on the device of the unaries.

    Args:
        images: photographs, each (H, W, 3) uint8; sizes may differ.
        unaries: negative log-probabilities of each, (L, H, W); L may differ. Half precision is filtered in float32.
        gaussian: smoothing kernel; None leaves it out.
        bilateral: edge-following kernel; None leaves it out.
        steps: updates of the mean field.
        together: photographs that share a lattice, which bounds the memory. None takes one at a time on the CPU,
            where sharing gains nothing, and all of them on a GPU.
    """
    for image, unary in zip(images, unaries, strict=True):
        _check(image, unary)
    if together is None:
        together = 1 if all(unary.device.type == "cpu" for unary in unaries) else len(images)
    marginals: list[Tensor] = []
    for first in range(0, len(images), together):
        part = slice(first, first + together)
        marginals += _mean_field(images[part], unaries[part], gaussian, bilateral, steps)
    return marginals


def unary_from_probabilities(probabilities: Tensor, floor: float = 1e-5) -> Tensor:
    """Negative logarithm of probabilities no smaller than ``floor`` (pydensecrf's value), (L, H, W) float32."""
    return -probabilities.float().clamp(floor, 1).log()


def unary_from_labels(label: Tensor, num_labels: int, certainty: float = 0.7) -> Tensor:
    """Negative log-probabilities of a label map that is right with probability ``certainty``.

    As pydensecrf's ``unary_from_labels`` with ``zero_unsure=False``.

    Args:
        label: values 0..L-1, (H, W).
        num_labels: L.
        certainty: probability of the given label, within (0, 1); the other labels share the rest evenly. IRN's and
            Puzzle-CAM's value.

    Returns:
        (L, H, W) float32.
    """
    if not 0 < certainty < 1:
        raise InputError(f"certainty is {certainty}; expected a number within (0, 1)")
    low, high = int(label.min()), int(label.max())
    if low < 0 or high >= num_labels:
        raise InputError(f"the label map holds {low}..{high}; expected 0..{num_labels - 1}: renumber its labels")
    rest = (1 - certainty) / max(num_labels - 1, 1)
    chance = torch.full((num_labels, *label.shape), rest, device=label.device)
    return -chance.scatter_(0, label.long()[None], certainty).log()


def _check(image: Image, unary: Tensor) -> None:
    """Refuse an image or a unary of another kind or size than expected."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype not in (np.uint8, torch.uint8):
        raise InputError(
            f"the image is {tuple(image.shape)} {image.dtype}; expected (height, width, 3) uint8: convert it to RGB"
        )
    if unary.ndim != 3 or tuple(unary.shape[1:]) != tuple(image.shape[:2]):
        raise InputError(
            f"the unary is {tuple(unary.shape)}, the image {tuple(image.shape)}; expected (labels, height, width) of "
            "the image: resize the scores first"
        )


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
        raise InputError("backend is 'pydensecrf', which is not installed: pip install pydensecrf2, or backend: torch")
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


def _mean_field(
    images: Sequence[Image],
    unaries: Sequence[Tensor],
    gaussian: Gaussian | None,
    bilateral: Bilateral | None,
    steps: int,
) -> list[Tensor]:
    """`mean_field` of photographs that share a lattice; labels that a photograph lacks have probability 0."""
    log_prior = _rows(unaries)
    kernels = _kernels(images, gaussian, bilateral, log_prior.device) if steps else []
    marginals = _softmax(log_prior)
    for _ in range(steps):
        energy = log_prior
        for compat, kernel in kernels:
            energy = energy.add(kernel.filter(marginals), alpha=compat)
        marginals = _softmax(energy)
    sizes = [unary.shape for unary in unaries]
    parts = marginals.split([height * width for _, height, width in sizes])
    return [part[:, : size[0]].T.reshape(size) for part, size in zip(parts, sizes, strict=True)]


def _kernels(
    images: Sequence[Image], gaussian: Gaussian | None, bilateral: Bilateral | None, device: torch.device
) -> list[tuple[float, Lattice]]:
    """Compatibility and filter of each kernel over the pixels of all images."""
    features, group = _features(images, device)
    kernels = []
    if gaussian is not None:
        kernels.append((gaussian.compat, _normalised(features[:, :2] / gaussian.sxy, group)))
    if bilateral is not None:
        scaled = torch.cat([features[:, :2] / bilateral.sxy, features[:, 2:] / bilateral.srgb], 1)
        kernels.append((bilateral.compat, _normalised(scaled, group)))
    return kernels


def _rows(unaries: Sequence[Tensor]) -> Tensor:
    """Log-probabilities of all pixels, (P, most labels), -inf where a photograph has fewer labels."""
    most = max(len(unary) for unary in unaries)
    rows = [unary.detach().float().neg().flatten(1).T for unary in unaries]
    return torch.cat([torch.nn.functional.pad(row, (0, most - row.shape[1]), value=-torch.inf) for row in rows])


def _features(images: Sequence[Image], device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Column, row, red, green and blue of all pixels, (P, 5), and the photograph of each, (P,), if there are many."""
    features = []
    for image in images:
        colour = torch.as_tensor(np.array(image) if isinstance(image, np.ndarray) else image).to(device)
        rows, columns = torch.meshgrid(*(torch.arange(side, device=device) for side in image.shape[:2]), indexing="ij")
        features.append(torch.cat([columns[..., None], rows[..., None], colour], 2).float().flatten(0, 1))
    if len(images) == 1:
        return features[0], None
    counts = torch.tensor([len(pixels) for pixels in features], device=device)
    return torch.cat(features), torch.arange(len(features), device=device).repeat_interleave(counts)


def _normalised(features: Tensor, group: Tensor | None) -> Lattice:
    """Lattice whose kernel K is divided by the square roots of its row sums on both sides."""
    lattice = permutohedral.build(features, group)
    total = lattice.filter(torch.ones_like(features[:, :1])).squeeze(1)
    return lattice.scaled((total + 1e-20).rsqrt())


def _softmax(energy: Tensor) -> Tensor:
    """Softmax over labels, (P, L); for the few labels of a photograph several times as fast as torch's on a CPU."""
    raised = (energy - energy.amax(1, keepdim=True)).exp_()
    return raised.div_(raised.sum(1, keepdim=True))
