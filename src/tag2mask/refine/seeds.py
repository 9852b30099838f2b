"""Label maps from CAMs: the background's score, the winner, and labels only where they are sure.

Shape letters in this file: K classes of one image, h x w its map.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from tag2mask.classes import BACKGROUND, IGNORE

Refine = Callable[[Tensor, int], Tensor]
"""What smooths labels: a map (h, w) int64 of labels 0..L-1, and L -> their probabilities (L, h, w)."""


def with_background(cam: Tensor, threshold: float | None = None, alpha: float | None = None) -> Tensor:
    """Put the score of the background before those of the classes.

    Args:
        cam: in [0, 1], (K, h, w); K may be 0.
        threshold: a constant score, as IRN and Puzzle-CAM take it.
        alpha: (1 - highest CAM) ** alpha instead, as AffinityNet takes it: a higher one makes less background.

    Returns:
        (1 + K, h, w) float32.
    """
    cam = cam.float()
    if threshold is not None and alpha is None:
        return F.pad(cam, (0, 0, 0, 0, 1, 0), value=threshold)
    if alpha is not None and threshold is None:
        highest = F.pad(cam, (0, 0, 0, 0, 1, 0)).amax(0, keepdim=True)  # 0 without any class
        return torch.cat([(1 - highest) ** alpha, cam])
    raise ValueError(f"threshold is {threshold} and alpha {alpha}; expected one of them: leave the other out")


def seed(scores: Tensor, classes: Tensor) -> Tensor:
    """Return the mask value of the highest score at each position, (h, w) uint8; of equal ones, the first.

    Args:
        scores: the background's, then those of the classes, (1 + K, h, w).
        classes: mask values of the classes, (K,).
    """
    return _values(scores.argmax(0), classes, len(scores))


def confident(
    cam: Tensor, classes: Tensor, foreground: float = 0.30, background: float = 0.05, refine: Refine | None = None
) -> Tensor:
    """Label only what is sure: IRN's ``cam_to_ir_label``.

    Two label maps are made, by a high and a low threshold, and each is refined. A class stands where the first has it;
    background where neither has any class; ``IGNORE`` elsewhere.

    Args:
        cam: in [0, 1], (K, h, w); K may be 0, which makes all of it background.
        classes: mask values of the classes, (K,).
        foreground: background score of the first map; IRN's value (Puzzle-CAM's README has 0.40).
        background: of the second; IRN's value (Puzzle-CAM's README has 0.10).
        refine: smooths each map, IRN's by a dense CRF from labels; None takes them as they are.

    Returns:
        Mask values, (h, w) uint8.
    """
    sure, possible = (_refined(cam, threshold, refine) for threshold in (foreground, background))
    label = _values(sure, classes, 1 + len(cam))
    return label.masked_fill((sure == BACKGROUND) & (possible != BACKGROUND), IGNORE)


def _refined(cam: Tensor, threshold: float, refine: Refine | None) -> Tensor:
    """Labels 0..K at a threshold, (h, w) int64, refined where there is more than one to choose from."""
    scores = with_background(cam, threshold)
    label = scores.argmax(0)
    return label if refine is None or len(cam) == 0 else refine(label, len(scores)).argmax(0)


def _values(label: Tensor, classes: Tensor, labels: int) -> Tensor:
    """Mask values (h, w) uint8 of labels 0..K, of which there are ``labels``."""
    if labels != 1 + len(classes):
        raise ValueError(f"{labels} scores with the background for {len(classes)} classes; expected {1 + len(classes)}")
    values = F.pad(classes.to(label.device, torch.long), (1, 0), value=BACKGROUND)
    return values[label].to(torch.uint8)
