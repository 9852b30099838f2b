"""Writers of predictions: CAM files and label PNGs, in a folder that a prediction begins, goes on with or refuses."""

from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback
from lightning.pytorch.utilities import rank_zero_info

from tag2mask.errors import InputError, OccupiedError
from tag2mask.io import disk, locks, provenance
from tag2mask.io.cams import read_cam, write_cam
from tag2mask.io.files import atomic, remove_parts
from tag2mask.io.images import read_size
from tag2mask.io.labels import write_label
from tag2mask.io.names import file_in
from tag2mask.io.records import RUN_FILE, same_run, write_run
from tag2mask.refine.dense_crf import CRF

PREDICTED = "predicted_tags.csv"


class PredictionWriter(Callback, ABC):
    """Write one file for each photograph into a folder, with ``run.json`` and ``inputs.csv``.

    Files that the same network and settings made are kept, so that an interrupted prediction goes on; others stop it.
    Files that `tag2mask predict` has not made are never replaced.
    """

    kind: str  # of the files, in words
    ending: str
    default_folder: str  # in the run folder

    def __init__(self, folder: str | None = None, overwrite: bool = False) -> None:
        """Write into ``folder``, null for the default one; ``overwrite`` replaces what is there."""
        self.folder, self.overwrite = folder, overwrite
        self.settings: dict[str, Any] = {}  # what the files depend on besides network and data

    @abstractmethod
    def _write(self, path: Path, trainer: Any, outputs: Any, batch: Any) -> None:
        """Write what was predicted for a batch of one photograph."""

    @abstractmethod
    def _bytes(self, photo: Any, pl_module: Any) -> float:
        """Estimate the size of the file of a photograph."""

    def _inputs(self, data: Any) -> provenance.Inputs:
        """Return what each file is made from, by the name of its photograph."""
        return {photo.name: provenance.of_photo(photo.image) for photo in data.predict_photos}

    def _finish(self, trainer: Any) -> str:
        """Do what is left when all files are there; return a remark on them."""
        return ""

    def _files(self) -> dict[str, Path]:
        return {path.stem: path for path in self.out.glob(f"*{self.ending}")}

    def photos_done(self, trainer: Any, pl_module: Any) -> frozenset[str]:
        """Begin a folder or go on with one, once the weights are loaded; return the names that it holds already."""
        data, default = trainer.datamodule, self.default_folder.format(split=trainer.datamodule.predict_split)
        self.out = Path(self.folder or Path(trainer.default_root_dir, default))
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
        if trainer.is_global_zero:
            locks.take(self.out)
            locks.take(Path(trainer.default_root_dir), shared=True)  # no `fit --overwrite` takes it away meanwhile
        same = same_run(self.out, self.config, self.overwrite)
        if not (self.out / RUN_FILE).exists() and self._files():
            raise OccupiedError(f"{self.out} holds {self.ending} files not of `tag2mask predict`; name another folder")
        trainer.strategy.barrier()
        if trainer.is_global_zero:
            self._prepare(data, same)
        done = frozenset(trainer.strategy.broadcast(list(self._files())))  # the first process's: others write already
        if done:
            rank_zero_info(f"{len(done)} {self.kind} are in {self.out} already and are kept")
        todo, sizes = [photo for photo in data.predict_photos if photo.name not in done], []
        for photo in disk.sample(todo):
            with suppress(InputError):  # one that cannot be opened is named when its turn comes
                sizes.append(self._bytes(photo, pl_module))
        if todo:
            rank_zero_info(disk.require_room(self.out, len(todo), sizes, self.kind))
        return done

    def _prepare(self, data: Any, same: bool) -> None:
        """Delete what is to be made again, and record what the files are made from."""
        if not same:
            for path in [*self._files().values(), self.out / provenance.INPUTS_FILE, self.out / PREDICTED]:
                path.unlink(missing_ok=True)
        files = self._files()
        recorded, stale, remarks = provenance.redo(self.out, self._inputs(data), list(files), self.kind)
        for line in remarks:
            rank_zero_info(line)
        for name in stale:
            files[name].unlink(missing_ok=True)
        provenance.write_inputs(self.out, recorded)
        write_run(self.out, self.config, finished=False, **self.facts)
        remove_parts(self.out, frozenset(photo.name for photo in data.predict_photos))

    def on_predict_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, *_: Any) -> None:
        """Write the file of one photograph."""
        self._write(file_in(self.out, batch["name"][0], self.ending), trainer, outputs, batch)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Finish, and say what was written, also where nothing was left to do for this process or for all."""
        if stage != "predict":
            return
        trainer.strategy.barrier()
        if trainer.is_global_zero:
            written, remark = len(self._files()), self._finish(trainer)
            finished = written >= len(trainer.datamodule.predict_photos)
            write_run(self.out, self.config, finished=finished, files=written, **self.facts)
            rank_zero_info(f"{written} {self.kind} in {self.out}{remark}")


class CAMWriter(PredictionWriter):
    """Write the CAMs of each photograph as ``<name>.npz``, and ``predicted_tags.csv``, the tags that were predicted."""

    kind, ending, default_folder = "CAM files", ".npz", "cams"

    def _write(self, path: Path, trainer: Any, outputs: Any, batch: Any) -> None:
        write_cam(path, outputs)

    def _bytes(self, photo: Any, pl_module: Any) -> float:
        height, width = (side // pl_module.inference.stride + 1 for side in read_size(photo.image))
        return disk.cam_bytes(height, width, 2 if photo.tags is None else len(photo.tags))  # 2 classes: a guess

    def _inputs(self, data: Any) -> provenance.Inputs:
        return data.describe(data.predict_photos)  # type: ignore[no-any-return]

    def _finish(self, trainer: Any) -> str:
        files, class_names = self._files(), trainer.lightning_module.class_names
        untagged = [p.name for p in trainer.datamodule.predict_photos if p.tags is None and p.name in files]
        looked_at = [read_cam(files[name]) for name in disk.sample(sorted(files))]
        if empty := sum(bool(len(cams.classes)) and not cams.cam.any() for cams in looked_at):
            told = f"warning: {empty} of {len(looked_at)} CAM files looked at are empty"
            rank_zero_info(f"{told}: the network finds nothing of their tags; look at the curves of its training")
        if not untagged:
            return "; tags taken from the data"
        with atomic(self.out / PREDICTED) as file:
            for name in untagged:
                tags = ";".join(class_names[value - 1] for value in read_cam(files[name]).classes.tolist())
                file.write(f"{name},{tags}\n".encode())
        return f"; tags taken from the data, but predicted for {len(untagged)} ({PREDICTED})"


class LabelWriter(PredictionWriter):
    """Write the mask of each photograph as the palette PNG ``<name>.png``, in full size; see `PredictionWriter`."""

    kind, ending, default_folder = "masks", ".png", "masks/{split}"

    def __init__(self, folder: str | None = None, overwrite: bool = False, crf: CRF | None = None) -> None:
        """Do what `PredictionWriter` does; ``crf`` is a dense CRF over the probabilities, as `dense_crf.TEST_TIME`."""
        super().__init__(folder, overwrite)
        self.crf, self.settings = crf, {"crf": crf and asdict(crf)}

    def _write(self, path: Path, trainer: Any, outputs: Any, batch: Any) -> None:
        label = outputs.label
        if self.crf is not None:
            image = trainer.datamodule.preprocessing.undo(batch["image"][0])
            label = self.crf.label(image, outputs.probabilities, batch["size"][0].tolist())
        write_label(path, label.cpu().numpy())

    def _bytes(self, photo: Any, pl_module: Any) -> float:
        return disk.label_bytes(*read_size(photo.image))
