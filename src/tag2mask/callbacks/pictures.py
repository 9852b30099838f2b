"""Pictures after each validation: the first photographs of the split, and the worst ones.

Shape letters in this file: H x W a photograph, h x w the copy of it that is drawn.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback
from torch import Tensor

from tag2mask.classes import BACKGROUND, IGNORE, VOC
from tag2mask.io.images import write_picture
from tag2mask.metrics.functional import at_full_size, confusion, miou_of_image
from tag2mask.refine.recipes import confident
from tag2mask.viz import plots

SIDE = 512
"""Longer side of a drawn photograph, in pixels; larger photographs are shrunk."""


class Example(NamedTuple):
    """A photograph (h, w, 3) uint8, the mIoU of its prediction, and by name its heat maps and label maps (h, w)."""

    name: str
    miou: float
    image: np.ndarray
    heats: dict[str, np.ndarray]
    labels: dict[str, np.ndarray]


class MaskPictures(Callback):
    """Draw the first photographs of the validation split, the same at each validation, and the worst ones.

    Each is a row: the photograph, the probability of each class in prediction or truth, prediction and truth. It is
    ``pictures/step_<n>/<name>.png`` in the run folder. The photographs of the lowest mean IoU, over the classes that
    they truly show, are in ``worst`` beside them, numbered from the lowest. Every logger that has ``log_image`` gets
    the rows as ``heat/<name>`` and ``worst_heat/<rank>``, and the photographs with the label maps as W&B's masks, as
    ``panel/<name>`` and ``worst/<rank>``. Only the first process draws, and only photographs that it has scored.
    """

    def __init__(self, count: int = 4, worst: int = 4, folder: str | None = None) -> None:
        """Draw pictures.

        Args:
            count: how many of the first photographs.
            worst: how many of the worst.
            folder: where PNG files go; null is ``pictures`` in the run folder.
        """
        self.count, self.worst, self.folder = count, worst, folder
        self.poorest: list[Example] = []

    def prediction(self, outputs: Any, size: tuple[int, int]) -> Tensor:
        """Return the mask values that the network gives the photograph, (H, W)."""
        label: Tensor = outputs.label
        return label

    def heats(self, outputs: Any, values: list[int]) -> dict[int, Tensor]:
        """Return mask value -> heat map in [0, 1], of any size; ``values`` are the classes of the label maps."""
        return {value: outputs.probabilities[value] for value in values}

    def seed(self, outputs: Any) -> Tensor | None:
        """Return the seed, of any size, where the network has one."""
        return None

    def on_validation_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Forget the last validation."""
        self.poorest = []

    def on_validation_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: dict[str, Any], batch_idx: int, *_: Any
    ) -> None:
        """Draw one of the first photographs; keep one of the worst so far."""
        first, truth = batch_idx < self.count, batch["mask"][0] if "mask" in batch else None
        ranked = truth is not None and self.worst > 0
        if trainer.sanity_checking or not trainer.is_global_zero or not (first or ranked):
            return
        label, miou = self.prediction(outputs, tuple(batch["size"][0].tolist())), float("nan")
        if truth is not None:
            miou = miou_of_image(confusion(label, truth, pl_module.num_classes + 1)).item()
        poor = ranked and miou == miou and (len(self.poorest) < self.worst or miou < self.poorest[-1].miou)
        if not (first or poor):
            return
        image = plots.fit(trainer.datamodule.preprocessing.undo(batch["image"][0]), SIDE)
        maps = {"prediction": label, "seed": self.seed(outputs), "truth": truth}
        labels = {key: _resized(value, image.shape[:2]) for key, value in maps.items() if value is not None}
        values = sorted({int(v) for one in labels.values() for v in np.unique(one)} - {BACKGROUND, IGNORE})
        maps_by_value = self.heats(outputs, values).items()
        heats = {pl_module.class_names[value - 1]: heat.float().cpu().numpy() for value, heat in maps_by_value}
        example = Example(batch["name"][0], miou, image, heats, labels)
        if first:
            self._draw(trainer, pl_module, example)
        if poor:
            self.poorest = sorted([*self.poorest, example], key=lambda one: one.miou)[: self.worst]

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Draw the worst photographs."""
        for rank, example in enumerate(self.poorest, 1):
            self._draw(trainer, pl_module, example, rank)
        self.poorest = []

    def _draw(self, trainer: Any, pl_module: Any, example: Example, rank: int | None = None) -> None:
        """Write a row and give it to the loggers; ``rank`` is that among the worst."""
        name, miou, image, heats, labels = example
        title, file, row_key, masks_key = name, f"{name}.png", f"heat/{name}", f"panel/{name}"
        if rank is not None:
            title, file = f"{name}, mIoU {miou:.3f}", f"worst/{rank}_{name}.png"
            row_key, masks_key = f"worst_heat/{rank}", f"worst/{rank}"
        parts = [(title, image), *((key, plots.heat(image, heat)) for key, heat in heats.items())]
        row = plots.row([*parts, *((key, plots.label_colours(label)) for key, label in labels.items())])
        folder = Path(self.folder or Path(trainer.default_root_dir) / "pictures") / f"step_{trainer.global_step:06d}"
        write_picture(folder / file, row)
        names = {**dict(enumerate((VOC[0], *pl_module.class_names))), IGNORE: "ignored"}
        masks = {key: {"mask_data": label, "class_labels": names} for key, label in labels.items()}
        settings: dict[str, Any] = {"caption": [title], "file_type": ["jpg"]}  # a PNG takes ten times as long
        for logger in trainer.loggers:
            if hasattr(logger, "log_image"):
                logger.log_image(row_key, [row], trainer.global_step, **settings)
                logger.log_image(masks_key, [image], trainer.global_step, masks=[masks], **settings)


def _resized(label: Tensor, size: tuple[int, ...]) -> np.ndarray:
    """Scale a label map to (h, w) uint8, without new values in between."""
    if label.shape != size:
        label = F.interpolate(label[None, None].float(), size, mode="nearest")[0, 0]
    return label.to(torch.uint8).cpu().numpy()


class CAMPictures(MaskPictures):
    """Draw pictures as `MaskPictures` does, of a CAM network: photograph, CAM of each class, prediction, seed, truth.

    The prediction is the label map at a threshold. The seed is that of `tag2mask labels`, before the dense CRF: a class
    where its CAM is high, background where every CAM is low, ignored elsewhere.
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
            count: how many of the first photographs.
            worst: how many of the worst.
            folder: where PNG files go; null is ``pictures`` in the run folder.
            threshold: CAM above which a pixel is foreground, for the prediction.
            sure: CAM below which the seed is background, and above which a class; IRN's values.
        """
        super().__init__(count, worst, folder)
        self.threshold, self.sure = threshold, sure

    def prediction(self, outputs: Any, size: tuple[int, int]) -> Tensor:
        """Return the strongest class where it is above the threshold, (H, W)."""
        score, winner = at_full_size(outputs.cam, outputs.classes, size)
        return torch.where(score > self.threshold, winner, BACKGROUND)

    def heats(self, outputs: Any, values: list[int]) -> dict[int, Tensor]:
        """Return the CAM of each class."""
        return dict(zip(outputs.classes.tolist(), outputs.cam, strict=True))

    def seed(self, outputs: Any) -> Tensor:
        """Return the seed, of the size of the CAM."""
        background, foreground = self.sure
        return confident(outputs.cam, outputs.classes, foreground, background)
