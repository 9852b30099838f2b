"""CAM files from ``predict``."""

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback
from lightning.pytorch.utilities import rank_zero_info

from tag2mask import files
from tag2mask.files import CAM


class CAMWriter(Callback):
    """Write the CAMs of each photograph as ``<name>.npz``, with ``run.json`` and the tags that were used.

    Files that stand already are kept if the folder was made with the same network and settings, so that an interrupted
    prediction goes on; otherwise it stops. Photographs without tags are listed in ``predicted_tags.csv`` with the
    classes that the network named in their place.
    """

    def __init__(self, folder: str | None = None, overwrite: bool = False) -> None:
        """Write into ``folder`` (null is ``cams`` in the run folder); ``overwrite`` replaces what is there."""
        self.folder = folder
        self.overwrite = overwrite
        self.predicted = 0

    def place(self, trainer: Any) -> Path:
        """Return the folder that is written to."""
        return Path(self.folder or Path(trainer.default_root_dir) / "cams")

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Let the data leave out what is there already."""
        if stage == "predict":
            trainer.datamodule.done = lambda: self.begin(trainer, pl_module)

    def begin(self, trainer: Any, pl_module: Any) -> frozenset[str]:
        """Begin a folder or take one up, once the weights are loaded; return the names that it holds already."""
        folder, data = self.place(trainer), trainer.datamodule
        self.config = {
            "weights": fingerprint(pl_module),
            "inference": asdict(pl_module.inference),
            "preprocessing": asdict(data.preprocessing),
            "classes": list(pl_module.class_names),
            "root": str(data.root),
            "split": data.predict_split,
        }
        goes_on = files.same_run(folder, self.config, self.overwrite)
        trainer.strategy.barrier()
        if not goes_on and trainer.is_global_zero:
            for path in [*folder.glob("*.npz"), folder / "predicted_tags.csv"]:
                path.unlink(missing_ok=True)
            files.write_run(folder, self.config, finished=False)
        trainer.strategy.barrier()
        done = frozenset(path.stem for path in folder.glob("*.npz"))
        if done:
            rank_zero_info(f"{len(done)} CAM files are in {folder} already and are kept")
        return done

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

    def on_predict_end(self, trainer: Any, pl_module: Any) -> None:
        """Say what was written."""
        folder = self.place(trainer)
        trainer.strategy.barrier()
        if trainer.is_global_zero:
            written = len(list(folder.glob("*.npz")))
            files.write_run(folder, self.config, finished=True, files=written)
            rank_zero_info(
                f"{written} CAM files in {folder}; tags taken from the data"
                + (f", but predicted for {self.predicted} (predicted_tags.csv)" if self.predicted else "")
            )


def fingerprint(module: torch.nn.Module) -> str:
    """Digest of all weights, the same for the same network on any device."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        flat = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)  # bytes: NumPy knows no bfloat16
        digest.update(name.encode() + flat.numpy().tobytes())
    return digest.hexdigest()
