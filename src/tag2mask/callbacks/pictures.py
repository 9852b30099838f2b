"""Pictures after each validation: a fixed panel of photographs, and the worst ones.

Shape letters in this file: H x W a photograph, h x w what is shown of it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback
from torch import Tensor

from tag2mask.classes import BACKGROUND, IGNORE, VOC
from tag2mask.io.images import write_picture
from tag2mask.metrics.functional import at_full_size, confusion, miou_of_image
from tag2mask.refine.seeds import confident
from tag2mask.viz import plots

SIDE = 512
"""Longer side of the photographs that are shown, in pixels; larger ones are shrunk."""


@dataclass(frozen=True)
class Shown:
    """One photograph and what the network makes of it.

    Attributes:
        name: of the photograph.
        miou: mean IoU over the classes that it truly shows, as a fraction; nan without a mask.
        image: (h, w, 3) uint8.
        heats: class name -> CAM or probability in [0, 1], of any size.
        maps: ``prediction``, ``seed``, ``truth``, as far as there are -> mask values, (h, w) uint8.
    """

    name: str
    miou: float
    image: np.ndarray
    heats: dict[str, np.ndarray]
    maps: dict[str, np.ndarray]


class Pictures(Callback):
    """Draw the first photographs of the validation split, the same at each validation, and its worst ones.

    Each is a row of photograph, heat maps and label maps: ``pictures/step_<n>/<name>.png`` in the run folder, the worst
    ones in ``worst`` beside them, the lowest mean IoU of their own first. Every logger that has ``log_image`` gets the
    rows as ``heat/<name>`` and ``worst_heat/<rank>``, and as ``panel/<name>`` and ``worst/<rank>`` the photographs with
    the label maps as W&B's masks. Of several processes the first one draws, of the photographs that it has scored.
    """

    def __init__(self, count: int = 4, worst: int = 4, folder: str | None = None) -> None:
        """Draw pictures.

        Args:
            count: how many photographs of the panel.
            worst: how many of the worst.
            folder: where PNG files go; null is ``pictures`` in the run folder.
        """
        self.count, self.worst, self.folder = count, worst, folder
        self.poorest: list[Shown] = []

    def label(self, outputs: Any, size: tuple[int, int]) -> Tensor:
        """Return the mask values that the network gives the photograph, (H, W)."""
        raise NotImplementedError

    def heats(self, outputs: Any, values: list[int]) -> dict[int, Tensor]:
        """Return what is drawn as heat, of any size, by mask value; ``values`` are those of the label maps."""
        raise NotImplementedError

    def further(self, outputs: Any) -> dict[str, Tensor]:
        """Return further label maps by their name, of any size."""
        return {}

    def on_validation_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Forget the last validation."""
        self.poorest = []

    def on_validation_batch_end(
        self,
        trainer: Any,
        pl_module: Any,
        outputs: Any,
        batch: dict[str, Any],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draw a photograph of the panel; keep one that is among the worst so far."""
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        truth = batch["mask"][0] if "mask" in batch else None
        if batch_idx >= self.count and (truth is None or self.worst == 0):
            return
        label = self.label(outputs, tuple(batch["size"][0].tolist()))
        miou = float("nan")
        if truth is not None:
            miou = miou_of_image(confusion(label, truth, pl_module.num_classes + 1)).item()
        poor = miou == miou and (len(self.poorest) < self.worst or miou < self.poorest[-1].miou)
        if batch_idx >= self.count and not poor:
            return
        image = plots.fit(trainer.datamodule.preprocessing.undo(batch["image"][0]), SIDE)
        maps = {"prediction": label, **self.further(outputs), "truth": truth}
        shown = self._shown(batch["name"][0], miou, image, maps, outputs, pl_module.class_names)
        if batch_idx < self.count:
            self._show(trainer, shown, pl_module.class_names)
        if poor:
            self.poorest = sorted([*self.poorest, shown], key=lambda one: one.miou)[: self.worst]

    def _shown(
        self, name: str, miou: float, image: np.ndarray, maps: dict[str, Any], outputs: Any, names: tuple[str, ...]
    ) -> Shown:
        size = image.shape[:2]
        small = {key: _shrunk(value, size) for key, value in maps.items() if value is not None}
        values = sorted({int(v) for one in small.values() for v in np.unique(one)} - {BACKGROUND, IGNORE})
        heats = {names[v - 1]: heat.cpu().float().numpy() for v, heat in self.heats(outputs, values).items()}
        return Shown(name, miou, image, heats, small)

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Draw the worst photographs."""
        for rank, shown in enumerate(self.poorest, 1):
            self._show(trainer, shown, pl_module.class_names, rank)
        self.poorest = []

    def _show(self, trainer: Any, shown: Shown, names: tuple[str, ...], rank: int | None = None) -> None:
        title = shown.name if rank is None else f"{shown.name}, mIoU {shown.miou:.3f}"
        heats = [(name, plots.heat(shown.image, heat)) for name, heat in shown.heats.items()]
        label_maps = [(key, plots.label_colours(value)) for key, value in shown.maps.items()]
        row = plots.row([(title, shown.image), *heats, *label_maps])
        root = Path(self.folder or Path(trainer.default_root_dir) / "pictures") / f"step_{trainer.global_step:06d}"
        write_picture(root / (f"worst/{rank}_{shown.name}.png" if rank else f"{shown.name}.png"), row, fast=True)
        labels = {**dict(enumerate((VOC[0], *names))), IGNORE: "ignored"}
        masks = {key: {"mask_data": value, "class_labels": labels} for key, value in shown.maps.items()}
        picture, heat = (
            (f"worst/{rank}", f"worst_heat/{rank}") if rank else (f"panel/{shown.name}", f"heat/{shown.name}")
        )
        how: dict[str, Any] = {"caption": [title], "file_type": ["jpg"]}  # a PNG takes ten times as long
        for logger in trainer.loggers:
            if hasattr(logger, "log_image"):
                logger.log_image(heat, [row], trainer.global_step, **how)
                logger.log_image(picture, [shown.image], trainer.global_step, masks=[masks], **how)


def _shrunk(label: Tensor, size: tuple[int, ...]) -> np.ndarray:
    """Bring a label map to the size of what is shown, (h, w) uint8."""
    if label.shape != size:
        label = F.interpolate(label[None, None].float(), size, mode="nearest")[0, 0]
    return label.to(torch.uint8).cpu().numpy()


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


class MaskPictures(Pictures):
    """Draw photograph, probability of each class in prediction or truth, prediction and truth: see `Pictures`."""

    def label(self, outputs: Any, size: tuple[int, int]) -> Tensor:
        """Return the mask, (H, W)."""
        label: Tensor = outputs.label
        return label

    def heats(self, outputs: Any, values: list[int]) -> dict[int, Tensor]:
        """Return the probability of each of ``values``."""
        return {value: outputs.probabilities[value] for value in values}
