"""CAM files from ``predict``."""

from pathlib import Path
from typing import Any

from tag2mask import disk, files, provenance
from tag2mask.callbacks.prediction_writer import PredictionWriter
from tag2mask.files import CAM

PREDICTED = "predicted_tags.csv"


class CAMWriter(PredictionWriter):
    """Write the CAMs of each photograph as ``<name>.npz``, with ``run.json`` and the tags that were used.

    Files that stand already are kept if the folder was made with the same network and settings, so that an interrupted
    prediction goes on; otherwise it stops. Photographs without tags are listed in ``predicted_tags.csv`` with the
    classes that the network named in their place.
    """

    what, ending, besides = "CAM files", ".npz", (PREDICTED,)

    def default_folder(self, trainer: Any) -> str:
        """Return ``cams``."""
        return "cams"

    def write(self, path: Path, trainer: Any, outputs: Any, batch: dict[str, Any]) -> None:
        """Write the CAM file of one photograph."""
        size = batch["size"][0].cpu().numpy()
        files.write_cam(path, CAM(outputs.cam.float().cpu().numpy(), outputs.classes.cpu().numpy(), size))

    def inputs(self, data: Any) -> provenance.Inputs:
        """Return tags and size of each photograph."""
        return data.describe(data.predict_photos)  # type: ignore[no-any-return]

    def expected_bytes(self, height: int, width: int, classes: int, pl_module: Any) -> float:
        """Estimate the size of a CAM file."""
        stride = pl_module.inference.stride
        return disk.cam_bytes(height // stride + 1, width // stride + 1, classes)

    def finish(self, trainer: Any) -> str:
        """Write ``predicted_tags.csv``; return where the tags came from."""
        folder, names = self.place(trainer), trainer.lightning_module.class_names
        photos = trainer.datamodule.predict_photos
        untagged = [p.name for p in photos if p.tags is None and (folder / f"{p.name}.npz").is_file()]
        if not untagged:
            return "; tags taken from the data"
        with files.atomic(folder / PREDICTED) as file:
            for name in untagged:
                values = files.read_cam(folder / f"{name}.npz").classes.tolist()
                file.write(f"{name},{';'.join(names[value - 1] for value in values)}\n".encode())
        return f"; tags taken from the data, but predicted for {len(untagged)} ({PREDICTED})"
