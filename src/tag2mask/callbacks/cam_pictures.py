"""Pictures of the CAMs after each validation."""

from typing import Any

import torch
from torch import Tensor

from tag2mask.callbacks.pictures import Pictures
from tag2mask.classes import BACKGROUND
from tag2mask.counts import at_full_size
from tag2mask.refine.seeds import confident


class CAMPictures(Pictures):
    """Draw photograph, CAM of each class, prediction, seed and truth: see `Pictures`.

    The prediction is the label map at a threshold. The seed is what `tag2mask labels` would call sure, before its dense
    CRF: a class where its CAM is high, background where every CAM is low, ignored elsewhere.
    """

    def __init__(
        self,
        count: int = 4,
        worst: int = 4,
        folder: str | None = None,
        threshold: float = 0.3,
        sure: tuple[float, float] = (0.05, 0.3),
    ) -> None:
        """Draw pictures.

        Args:
            count: how many photographs of the panel.
            worst: how many of the worst.
            folder: where PNG files go; null is ``pictures`` in the run folder.
            threshold: CAM above which a pixel is foreground, for the label map.
            sure: CAM below which the seed is background, and above which a class; IRN's values.
        """
        super().__init__(count, worst, folder)
        self.threshold, self.sure = threshold, sure

    def label(self, outputs: Any, size: tuple[int, int]) -> Tensor:
        """Return the strongest class where it stands above the threshold, (H, W)."""
        score, winner = at_full_size(outputs.cam, outputs.classes, size)
        return torch.where(score > self.threshold, winner, BACKGROUND)

    def heats(self, outputs: Any, values: list[int]) -> dict[int, Tensor]:
        """Return the CAM of each class."""
        return dict(zip(outputs.classes.tolist(), outputs.cam, strict=True))

    def further(self, outputs: Any) -> dict[str, Tensor]:
        """Return the seed, of the size of the CAM."""
        background, foreground = self.sure
        return {"seed": confident(outputs.cam, outputs.classes, foreground, background)}
