"""CAM files from ``predict``."""

from typing import Any

from tag2mask import files
from tag2mask.callbacks.prediction_writer import PredictionWriter
from tag2mask.files import CAM


class CAMWriter(PredictionWriter):
    """Write the CAMs of each photograph as ``<name>.npz``, with ``run.json`` and the tags that were used.

    Files that stand already are kept if the folder was made with the same network and settings, so that an interrupted
    prediction goes on; otherwise it stops. Photographs without tags are listed in ``predicted_tags.csv`` with the
    classes that the network named in their place.
    """

    what, ending, besides = "CAM files", ".npz", ("predicted_tags.csv",)

    def __init__(self, folder: str | None = None, overwrite: bool = False) -> None:
        """Write into ``folder`` (null is ``cams`` in the run folder); ``overwrite`` replaces what is there."""
        super().__init__(folder, overwrite)
        self.predicted = 0

    def default_folder(self, trainer: Any) -> str:
        """Return ``cams``."""
        return "cams"

    def on_predict_batch_end(
        self,
        trainer: Any,
        pl_module: Any,
        outputs: Any,
        batch: dict[str, Any],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write the file of one photograph."""
        name = batch["name"][0]
        if outputs.predicted:
            tags = [pl_module.class_names[value - 1] for value in outputs.classes.tolist()]
            with open(self.place(trainer) / "predicted_tags.csv", "a", encoding="utf-8") as file:
                file.write(f"{name},{';'.join(tags)}\n")
            self.predicted += 1
        cam = CAM(outputs.cam.float().cpu().numpy(), outputs.classes.cpu().numpy(), batch["size"][0].cpu().numpy())
        files.write_cam(self.place(trainer) / f"{name}.npz", cam)

    def remarks(self) -> str:
        """Return where the tags came from."""
        listed = f", but predicted for {self.predicted} (predicted_tags.csv)" if self.predicted else ""
        return f"; tags taken from the data{listed}"
