"""Writers of predictions: CAM files and label PNGs, in a folder that a prediction begins, goes on with or refuses."""

import contextlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback
from lightning.pytorch.utilities import rank_zero_info

from tag2mask.errors import InputError, OccupiedError
from tag2mask.io import disk, provenance
from tag2mask.io.cams import read_cam, write_cam
from tag2mask.io.files import atomic, remove_parts
from tag2mask.io.images import read_size
from tag2mask.io.labels import write_label
from tag2mask.io.records import RUN_FILE, same_run, write_run
from tag2mask.refine.dense_crf import CRF

UNTAGGED = 2
"""Classes that a photograph without tags is taken to show, for the estimate of the size of its file."""
PREDICTED = "predicted_tags.csv"


class PredictionWriter(Callback):
    """Write one file for each photograph into a folder, with ``run.json`` and ``inputs.csv``.

    Files that are there already are kept if the same network and settings made them: an interrupted prediction goes on.
    Otherwise the prediction stops. Files that `tag2mask predict` has not made are never replaced.

    Attributes:
        kind: of the files, in words.
        ending: of the files.
        default_folder: where they go, within the run folder; ``{split}`` is the split that is predicted.
        settings: what the files depend on besides network and data.
    """

    kind: str
    ending: str
    default_folder: str

    def __init__(self, folder: str | None = None, overwrite: bool = False) -> None:
        """Write into ``folder``, null for the default one; ``overwrite`` replaces what is there."""
        self.folder, self.overwrite = folder, overwrite
        self.settings: dict[str, Any] = {}

    def write(self, path: Path, trainer: Any, outputs: Any, batch: dict[str, Any]) -> None:
        """Write what was predicted for a batch of one photograph."""
        raise NotImplementedError

    def expected_bytes(self, height: int, width: int, classes: int, pl_module: Any) -> float:
        """Estimate the size of the file of a photograph from its size in pixels and the number of its tags."""
        raise NotImplementedError

    def inputs(self, data: Any) -> provenance.Inputs:
        """Return what each file is made from, by the name of its photograph."""
        return {photo.name: provenance.of_photo(photo.image) for photo in data.predict_photos}

    def finish(self, trainer: Any) -> str:
        """Do what is left when all files are there, on one process; return a remark on them."""
        return ""

    def place(self, trainer: Any) -> Path:
        """Return the folder that is written to."""
        default = self.default_folder.format(split=trainer.datamodule.predict_split)
        return Path(self.folder or Path(trainer.default_root_dir) / default)

    def photos_done(self, trainer: Any, pl_module: Any) -> frozenset[str]:
        """Begin a folder or go on with one, once the weights are loaded; return the names that it holds already."""
        folder, data = self.place(trainer), trainer.datamodule
        self.config = {
            "weights": pl_module.weights_digest(),
            "inference": asdict(pl_module.inference),
            "preprocessing": asdict(data.preprocessing),
            "classes": list(pl_module.class_names),
            "root": str(data.root),
            "split": data.predict_split,
            **self.settings,
        }
        self.facts = {"checkpoint": str(trainer.ckpt_path)} if trainer.ckpt_path else {}
        same = same_run(folder, self.config, self.overwrite)
        if not (folder / RUN_FILE).exists() and self._files(folder):
            raise OccupiedError(
                f"{folder} holds {self.ending} files that `tag2mask predict` did not make; name another folder"
            )
        trainer.strategy.barrier()
        if trainer.is_global_zero:
            self._prepare(folder, data, same)
        trainer.strategy.barrier()
        there = list(self._files(folder)) if trainer.is_global_zero else []
        done = frozenset(trainer.strategy.broadcast(there))  # listed once: faster processes write already
        if done:
            rank_zero_info(f"{len(done)} {self.kind} are in {folder} already and are kept")
        self._require_room(folder, [photo for photo in data.predict_photos if photo.name not in done], pl_module)
        return done

    def _files(self, folder: Path) -> dict[str, Path]:
        return {path.stem: path for path in folder.glob(f"*{self.ending}")}

    def _prepare(self, folder: Path, data: Any, same: bool) -> None:
        """Delete what is to be made again, and record what the files are made from."""
        if not same:
            for path in [*self._files(folder).values(), folder / provenance.INPUTS_FILE, folder / PREDICTED]:
                path.unlink(missing_ok=True)
        files = self._files(folder)
        recorded, stale, remarks = provenance.redo(folder, self.inputs(data), list(files), self.kind)
        for line in remarks:
            rank_zero_info(line)
        for name in stale:
            files[name].unlink(missing_ok=True)
        provenance.write_inputs(folder, recorded)
        write_run(folder, self.config, finished=False, **self.facts)
        remove_parts(folder, frozenset(photo.name for photo in data.predict_photos))

    def _require_room(self, folder: Path, photos: list[Any], pl_module: Any) -> None:
        """Estimate the files of some photographs; one that cannot be opened is named when its turn comes."""
        sizes = []
        for photo in disk.sample(photos):
            with contextlib.suppress(InputError):
                classes = UNTAGGED if photo.tags is None else len(photo.tags)
                sizes.append(self.expected_bytes(*read_size(photo.image), classes, pl_module))
        if photos:
            rank_zero_info(disk.require_room(folder, len(photos), sizes, self.kind))

    def on_predict_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: dict[str, Any], *_: Any) -> None:
        """Write the file of one photograph."""
        self.write(self.place(trainer) / f"{batch['name'][0]}{self.ending}", trainer, outputs, batch)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Finish, and say what was written, also where nothing was left to do for this process or for all."""
        if stage != "predict":
            return
        folder = self.place(trainer)
        trainer.strategy.barrier()
        if trainer.is_global_zero:
            written, remark = len(self._files(folder)), self.finish(trainer)
            finished = written >= len(trainer.datamodule.predict_photos)
            write_run(folder, self.config, finished=finished, files=written, **self.facts)
            rank_zero_info(f"{written} {self.kind} in {folder}{remark}")


class CAMWriter(PredictionWriter):
    """Write the CAMs of each photograph as ``<name>.npz``; see `PredictionWriter`.

    ``predicted_tags.csv`` lists the photographs without tags, with the classes that the network predicted instead.
    """

    kind, ending, default_folder = "CAM files", ".npz", "cams"

    def write(self, path: Path, trainer: Any, outputs: Any, batch: dict[str, Any]) -> None:
        """Write the CAM file of one photograph."""
        write_cam(path, outputs)

    def expected_bytes(self, height: int, width: int, classes: int, pl_module: Any) -> float:
        """Estimate the size of a CAM file."""
        stride = pl_module.inference.stride
        return disk.cam_bytes(height // stride + 1, width // stride + 1, classes)

    def inputs(self, data: Any) -> provenance.Inputs:
        """Return tags and size of each photograph."""
        return data.describe(data.predict_photos)  # type: ignore[no-any-return]

    def finish(self, trainer: Any) -> str:
        """Write ``predicted_tags.csv``; return where the tags came from."""
        folder, class_names = self.place(trainer), trainer.lightning_module.class_names
        files = self._files(folder)
        untagged = [p.name for p in trainer.datamodule.predict_photos if p.tags is None and p.name in files]
        if not untagged:
            return "; tags taken from the data"
        with atomic(folder / PREDICTED) as file:
            for name in untagged:
                tags = ";".join(class_names[value - 1] for value in read_cam(files[name]).classes.tolist())
                file.write(f"{name},{tags}\n".encode())
        return f"; tags taken from the data, but predicted for {len(untagged)} ({PREDICTED})"


class LabelWriter(PredictionWriter):
    """Write the mask of each photograph as the palette PNG ``<name>.png``, in full size; see `PredictionWriter`."""

    kind, ending, default_folder = "masks", ".png", "masks/{split}"

    def __init__(self, folder: str | None = None, overwrite: bool = False, crf: CRF | None = None) -> None:
        """Set up where and how masks are written.

        Args:
            folder: null is ``masks/<split>`` in the run folder.
            overwrite: replace what is there.
            crf: dense CRF over the probabilities; null leaves it out. `refine.dense_crf.TEST_TIME` has the usual one.
        """
        super().__init__(folder, overwrite)
        self.crf, self.settings = crf, {"crf": crf and asdict(crf)}

    def write(self, path: Path, trainer: Any, outputs: Any, batch: dict[str, Any]) -> None:
        """Write the mask of one photograph."""
        label = outputs.label
        if self.crf is not None:
            image = trainer.datamodule.preprocessing.undo(batch["image"][0])
            label = self.crf.label(image, outputs.probabilities, batch["size"][0].tolist())
        write_label(path, label.cpu().numpy())

    def expected_bytes(self, height: int, width: int, classes: int, pl_module: Any) -> float:
        """Estimate the size of a mask."""
        return disk.label_bytes(height, width)
