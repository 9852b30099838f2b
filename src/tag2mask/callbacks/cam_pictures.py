"""Pictures of the CAMs after each validation."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback

from tag2mask import files, plots
from tag2mask.classes import BACKGROUND
from tag2mask.metrics import at_full_size


class CAMPictures(Callback):
    """Draw the first photographs of the validation split: photograph, CAM of each class, label map, truth.

    They are PNG files in ``pictures`` in the run folder, and go to every logger that has ``log_image`` as well; label
    maps and truths go there as W&B masks besides.
    """

    def __init__(self, count: int = 4, threshold: float = 0.3, folder: str | None = None) -> None:
        """Draw pictures.

        Args:
            count: how many photographs.
            threshold: CAM above which a pixel is foreground, for the label map.
            folder: where PNG files go; null is ``pictures`` in the run folder.
        """
        self.count = count
        self.threshold = threshold
        self.folder = folder

    def on_validation_batch_end(
        self,
        trainer: Any,
        pl_module: Any,
        outputs: Any,
        batch: dict[str, Any],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draw one photograph."""
        if batch_idx >= self.count or trainer.sanity_checking or not trainer.is_global_zero:
            return
        image = trainer.datamodule.preprocessing.undo(batch["image"][0])
        score, winner = at_full_size(outputs.cam, outputs.classes, image.shape[:2])
        label = torch.where(score > self.threshold, winner, BACKGROUND).cpu().numpy()
        truth = batch["mask"][0].cpu().numpy() if "mask" in batch else None
        names = pl_module.class_names
        titled = {
            names[value - 1]: cam
            for value, cam in zip(outputs.classes.tolist(), outputs.cam.cpu().float().numpy(), strict=True)
        }
        panel = plots.panel(image, titled, label, truth, title=batch["name"][0])
        self._show(trainer, batch["name"][0], panel, image, {"label": label, "truth": truth}, names)

    def _show(
        self, trainer: Any, name: str, panel: np.ndarray, image: np.ndarray, maps: dict[str, Any], names: Any
    ) -> None:
        folder = Path(self.folder or Path(trainer.default_root_dir) / "pictures")
        files.write_picture(folder / f"step_{trainer.global_step:06d}" / f"{name}.png", panel)
        labels = {BACKGROUND: "background", **dict(enumerate(names, 1))}
        masks = {k: {"mask_data": v, "class_labels": labels} for k, v in maps.items() if v is not None}
        for logger in trainer.loggers:
            if hasattr(logger, "log_image"):
                logger.log_image(key=f"cams/{name}", images=[panel], step=trainer.global_step)
                logger.log_image(key=f"masks/{name}", images=[image], step=trainer.global_step, masks=[masks])
