"""Label PNGs of a segmentation network from ``predict``."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from tag2mask import disk, files
from tag2mask.callbacks.prediction_writer import PredictionWriter
from tag2mask.refine.recipes import CRF
from tag2mask.refine.test_time import crf_label


class LabelWriter(PredictionWriter):
    """Write the mask of each photograph as the palette PNG ``<name>.png``, of the photograph's size, with ``run.json``.

    Files that stand already are kept if the folder was made with the same network and settings, so that an interrupted
    prediction goes on; otherwise it stops.
    """

    what, ending = "masks", ".png"

    def __init__(self, folder: str | None = None, overwrite: bool = False, crf: CRF | None = None) -> None:
        """Set up where and how masks are written.

        Args:
            folder: null is ``masks/<split>`` in the run folder.
            overwrite: replace what is there.
            crf: dense CRF over the probabilities; null leaves it out. `refine.test_time.TEST_TIME` has the usual one.
        """
        super().__init__(folder, overwrite)
        self.crf = crf

    def default_folder(self, trainer: Any) -> str:
        """Return ``masks/`` and the split."""
        return f"masks/{trainer.datamodule.predict_split}"

    def settings(self) -> dict[str, Any]:
        """Return those of the CRF."""
        return {"crf": self.crf and asdict(self.crf)}

    def write(self, path: Path, trainer: Any, outputs: Any, batch: dict[str, Any]) -> None:
        """Write the mask of one photograph."""
        label = outputs.label
        if self.crf is not None:
            image = trainer.datamodule.preprocessing.undo(batch["image"][0])
            label = crf_label(outputs.probabilities, image, batch["size"][0].tolist(), self.crf)
        files.write_label(path, label.cpu().numpy())

    def expected_bytes(self, height: int, width: int, classes: int, pl_module: Any) -> float:
        """Estimate the size of a mask."""
        return disk.label_bytes(height, width)
