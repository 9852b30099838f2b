"""Pictures of the masks of a segmentation network after each validation."""

from typing import Any

from torch import Tensor

from tag2mask.callbacks.pictures import Pictures


class MaskPictures(Pictures):
    """Draw photograph, probability of each class in prediction or truth, prediction and truth: see `Pictures`."""

    def label(self, outputs: Any, size: tuple[int, int]) -> Tensor:
        """Return the mask, (H, W)."""
        label: Tensor = outputs.label
        return label

    def heats(self, outputs: Any, values: list[int]) -> dict[int, Tensor]:
        """Return the probability of each of ``values``."""
        return {value: outputs.probabilities[value] for value in values}
