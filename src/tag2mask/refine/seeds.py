"""Label maps from CAMs: the background's score, the winner, and labels only where they are sure.

Shape letters in this file: K classes of one image, h x w its map.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from tag2mask.classes import BACKGROUND, IGNORE
from tag2mask.errors import SettingError

Refine = Callable[[Tensor, int], Tensor]
"""What smooths labels: a map (h, w) int64 of labels 0..L-1, and L -> their probabilities (L, h, w)."""


@dataclass(frozen=True)
class Seed:
    """The background's score, beside those of the classes. One of the two settings is given, the other is None.

    Attributes:
        threshold: a constant score in [0, 1], as IRN and Puzzle-CAM take it.
        alpha: (1 - highest CAM) ** alpha instead, as AffinityNet takes it: a higher one makes less background.
    """

    threshold: float | None = 0.3
    alpha: float | None = None

    def __post_init__(self) -> None:
        if (self.threshold is None) == (self.alpha is None):
            raise SettingError(f"threshold {self.threshold} and alpha {self.alpha}: give one of them, the other null")

    def scores(self, cam: Tensor) -> Tensor:
        """Put the background's score before those of the classes: (K, h, w) -> (1 + K, h, w) float32; K may be 0."""
        if self.alpha is None:
            return F.pad(cam.float(), (0, 0, 0, 0, 1, 0), value=self.threshold)
        scores = F.pad(cam.float(), (0, 0, 0, 0, 1, 0))
        scores[0] = (1 - scores.amax(0)) ** self.alpha
        return scores


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

    Two label maps are made, by a high and a low threshold, and each is refined. A class stands where the first has it;
    background where neither has any class; ``IGNORE`` elsewhere.

    Args:
        cam: in [0, 1], (K, h, w); K may be 0, which makes all of it background.
        classes: mask values of the classes, (K,).
        foreground: background score of the first map; IRN's value (Puzzle-CAM's README has 0.40).
        background: of the second; IRN's value (Puzzle-CAM's README has 0.10).
        refine: smooths each map, IRN's by a dense CRF from labels; None takes them as they are.
    """
    sure, possible = (Seed(threshold).scores(cam) for threshold in (foreground, background))
    if refine is not None and len(cam):
        sure, possible = (refine(scores.argmax(0), len(scores)) for scores in (sure, possible))
    undecided = (sure.argmax(0) == BACKGROUND) & (possible.argmax(0) != BACKGROUND)
    return seed(sure, classes).masked_fill(undecided, IGNORE)
