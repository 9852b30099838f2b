"""Pictures after each validation, of photographs (H, W) that are drawn at (h, w)."""

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
from tag2mask.refine.recipes import confident
from tag2mask.viz import plots

Example = tuple[float, str, np.ndarray, dict[str, np.ndarray], dict[str, np.ndarray]]
"""The mIoU of a prediction, name and image (h, w, 3) of the photograph, and by name heat maps and label maps (h, w)."""


class MaskPictures(Callback):
    """Draw the first photographs of the validation split, the same at each validation, and the worst ones.

    Each is a row, ``pictures/step_<n>/<name>.png`` in the run folder: the photograph, the probability of each class in
    prediction or truth, prediction and truth. Those of the lowest mean IoU, over the classes that they truly show, are
    in ``worst`` beside them, numbered from the lowest. Every logger that has ``log_image`` gets the rows as
    ``heat/<name>`` and ``worst_heat/<rank>``, and the photographs with W&B's masks as ``panel/<name>`` and
    ``worst/<rank>``. Only the first process draws, and only photographs that it has scored.
    """

    def __init__(self, count: int = 4, worst: int = 4, folder: str | None = None) -> None:
        """Draw ``count`` first and ``worst`` photographs into ``folder``; null is ``pictures`` in the run folder."""
        self.count, self.worst, self.folder = count, worst, folder
        self.poorest: list[Example] = []

    def labels(self, outputs: Any, size: tuple[int, int]) -> dict[str, Tensor]:
        """Return the label maps that the network gives the photograph: the ``prediction``, (H, W), and others."""
        return {"prediction": outputs.label}

    def heats(self, outputs: Any, values: list[int]) -> dict[int, Tensor]:
        """Return mask value -> heat map in [0, 1], of any size; ``values`` are the classes of the label maps."""
        return {value: outputs.probabilities[value] for value in values}

    def on_validation_batch_end(self, trainer: Any, pl_module: Any, out: Any, batch: Any, index: int, *_: Any) -> None:
        """Draw one of the first photographs; keep one of the worst so far."""
        first, ranked, miou = index < self.count, "mask" in batch and self.worst > 0, float("nan")
        if trainer.sanity_checking or not trainer.is_global_zero or not (first or ranked):
            return
        maps = self.labels(out, tuple(batch["size"][0].tolist()))
        if "mask" in batch:
            maps["truth"] = batch["mask"][0]
            miou = miou_of_image(confusion(maps["prediction"], maps["truth"], pl_module.num_classes + 1)).item()
        poor = ranked and miou == miou and (len(self.poorest) < self.worst or miou < self.poorest[-1][0])
        if not (first or poor):
            return
        image = plots.fit(trainer.datamodule.preprocessing.undo(batch["image"][0]), 512)  # pixels of the longer side
        fitted = {key: F.interpolate(x[None, None].float(), image.shape[:2])[0, 0] for key, x in maps.items()}
        labels = {key: x.byte().cpu().numpy() for key, x in fitted.items()}
        values = sorted({int(v) for label in labels.values() for v in np.unique(label)} - {BACKGROUND, IGNORE})
        names = (VOC[0], *pl_module.class_names)
        heats = {names[v]: heat.float().cpu().numpy() for v, heat in self.heats(out, values).items()}
        example = miou, batch["name"][0], image, heats, labels
        if first:
            self._draw(trainer, pl_module, example)
        if poor:
            self.poorest = sorted([*self.poorest, example], key=lambda one: one[0])[: self.worst]

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Draw the worst photographs."""
        for rank, example in enumerate(self.poorest, 1):
            self._draw(trainer, pl_module, example, rank)
        self.poorest = []

    def _draw(self, trainer: Any, pl_module: Any, example: Example, rank: int | None = None) -> None:
        """Write a row and give it to the loggers; ``rank`` is that among the worst."""
        miou, name, image, heats, labels = example
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


class CAMPictures(MaskPictures):
    """Draw pictures as `MaskPictures` does, of a CAM network: photograph, CAM of each class, prediction, seed, truth.

    The prediction is the strongest class where its CAM is above ``threshold``. The seed is that of `tag2mask labels`
    before the CRF: background where every CAM is below the first number of ``sure`` (IRN's by default), a class where
    its CAM is above the second one, ignored elsewhere.
    """

    def __init__(self, threshold: float = 0.3, sure: tuple[float, float] = (0.05, 0.3), **pictures: Any) -> None:
        super().__init__(**pictures)
        self.threshold, self.sure = threshold, sure

    def labels(self, outputs: Any, size: tuple[int, int]) -> dict[str, Tensor]:
        """Return the ``prediction``, (H, W), and the ``seed``, of the size of the CAM."""
        score, winner = at_full_size(outputs.cam, outputs.classes, size)
        seed = confident(outputs.cam, outputs.classes, self.sure[1], self.sure[0])
        return {"prediction": torch.where(score > self.threshold, winner, BACKGROUND), "seed": seed}

    def heats(self, outputs: Any, values: list[int]) -> dict[int, Tensor]:
        """Return the CAM of each class."""
        return dict(zip(outputs.classes.tolist(), outputs.cam, strict=True))
