"""Writers of predictions, CAM files and label PNGs, into a folder that is begun, taken up or refused."""

import contextlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback
from lightning.pytorch.utilities import rank_zero_info

from tag2mask.errors import InputError
from tag2mask.io import disk, provenance
from tag2mask.io.cams import read_cam, write_cam
from tag2mask.io.files import atomic, remove_parts
from tag2mask.io.images import read_size
from tag2mask.io.labels import write_label
from tag2mask.io.records import RUN_FILE, same_run, write_run
from tag2mask.refine.dense_crf import CRF

UNTAGGED = 2
"""Classes that a photograph without tags is taken to show when the room for its file is estimated."""


class PredictionWriter(Callback):
    """Write one file a photograph into a folder with ``run.json``.

    Files that stand already are kept if the folder was made with the same network and settings, so that an interrupted
    prediction goes on; otherwise it stops. Files that no prediction has made are never replaced.

    Attributes:
        what: the files, in words.
        ending: of the files.
        besides: names of further files that belong to a run.
    """

    what: str
    ending: str
    besides: tuple[str, ...] = ()

    def __init__(self, folder: str | None = None, overwrite: bool = False) -> None:
        """Write into ``folder``; ``overwrite`` replaces what is there."""
        self.folder = folder
        self.overwrite = overwrite

    def default_folder(self, trainer: Any) -> str:
        """Return where files go without ``folder``, within the run folder."""
        raise NotImplementedError

    def settings(self) -> dict[str, Any]:
        """Return what the files depend on besides network and data."""
        return {}

    def write(self, path: Path, trainer: Any, outputs: Any, batch: dict[str, Any]) -> None:
        """Write what was predicted for a batch of one photograph."""
        raise NotImplementedError

    def inputs(self, data: Any) -> provenance.Inputs:
        """Return what each file is made from, photograph by photograph."""
        return {photo.name: provenance.of_photo(photo.image) for photo in data.predict_photos}

    def expected_bytes(self, height: int, width: int, classes: int, pl_module: Any) -> float:
        """Estimate the size of the file of a photograph of that size in pixels, with that many tags."""
        raise NotImplementedError

    def finish(self, trainer: Any) -> str:
        """Do, on one rank, what is left when all files are there; return what is to be said of them."""
        return ""

    def place(self, trainer: Any) -> Path:
        """Return the folder that is written to."""
        return Path(self.folder or Path(trainer.default_root_dir) / self.default_folder(trainer))

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Let the data leave out what is there already."""
        if stage == "predict":
            trainer.datamodule.done = lambda: self.begin(trainer, pl_module)

    def begin(self, trainer: Any, pl_module: Any) -> frozenset[str]:
        """Begin a folder or take one up, once the weights are loaded; return the names that it holds already."""
        folder, data = self.place(trainer), trainer.datamodule
        self.config = {
            "weights": pl_module.weights_digest(),
            "inference": asdict(pl_module.inference),
            "preprocessing": asdict(data.preprocessing),
            "classes": list(pl_module.class_names),
            "root": str(data.root),
            "split": data.predict_split,
            **self.settings(),
        }
        goes_on = same_run(folder, self.config, self.overwrite)
        if not (folder / RUN_FILE).exists() and any(folder.glob(f"*{self.ending}")):
            raise InputError(
                f"{folder} holds {self.ending} files that `tag2mask predict` did not make; name another folder"
            )
        trainer.strategy.barrier()
        if trainer.is_global_zero:
            if not goes_on:
                outputs = [*folder.glob(f"*{self.ending}"), folder / provenance.INPUTS_FILE]
                for path in [*outputs, *(folder / name for name in self.besides)]:
                    path.unlink(missing_ok=True)
            self._take_up(folder, self.inputs(data))
            write_run(folder, self.config, finished=False, **self._facts(trainer))
            remove_parts(folder, frozenset(photo.name for photo in data.predict_photos))
        trainer.strategy.barrier()
        there = [path.stem for path in folder.glob(f"*{self.ending}")] if trainer.is_global_zero else []
        done = frozenset(trainer.strategy.broadcast(there))  # listed once: ranks that are ahead write already
        if done:
            rank_zero_info(f"{len(done)} {self.what} are in {folder} already and are kept")
        todo = [photo for photo in data.predict_photos if photo.name not in done]
        if todo:
            sizes = self._expected(disk.sample(todo), pl_module)
            rank_zero_info(disk.require_room(folder, len(todo), sizes, self.what))
        return done

    def _take_up(self, folder: Path, inputs: provenance.Inputs) -> None:
        """Delete the files that are to be made again, and record what those of this prediction are made from."""
        there = [path.stem for path in folder.glob(f"*{self.ending}")]
        recorded, stale, said = provenance.redo(folder, inputs, there, self.what)
        for line in said:
            rank_zero_info(line)
        for name in stale:
            (folder / f"{name}{self.ending}").unlink(missing_ok=True)
        provenance.write_inputs(folder, recorded)

    def _facts(self, trainer: Any) -> dict[str, Any]:
        """What is recorded besides the settings: the checkpoint, whose run may go on to other weights."""
        return {"checkpoint": str(trainer.ckpt_path)} if trainer.ckpt_path else {}

    def _expected(self, photos: Sequence[Any], pl_module: Any) -> list[float]:
        """Estimate the files of some photographs; one that cannot be opened is named when its turn comes."""
        found = []
        for photo in photos:
            with contextlib.suppress(InputError):
                height, width = read_size(photo.image)
                classes = UNTAGGED if photo.tags is None else len(photo.tags)
                found.append(self.expected_bytes(height, width, classes, pl_module))
        return found

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
        self.write(self.place(trainer) / f"{batch['name'][0]}{self.ending}", trainer, outputs, batch)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Finish, and say what was written, also where nothing was left to do for this process or for all."""
        if stage != "predict":
            return
        folder = self.place(trainer)
        trainer.strategy.barrier()
        if trainer.is_global_zero:
            written = sum(1 for _ in folder.glob(f"*{self.ending}"))
            finished = written >= len(trainer.datamodule.predict_photos)
            remarks = self.finish(trainer)
            write_run(folder, self.config, finished=finished, files=written, **self._facts(trainer))
            rank_zero_info(f"{written} {self.what} in {folder}{remarks}")


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
        write_cam(path, outputs)

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
        with atomic(folder / PREDICTED) as file:
            for name in untagged:
                values = read_cam(folder / f"{name}.npz").classes.tolist()
                file.write(f"{name},{';'.join(names[value - 1] for value in values)}\n".encode())
        return f"; tags taken from the data, but predicted for {len(untagged)} ({PREDICTED})"


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
            crf: dense CRF over the probabilities; null leaves it out. `refine.dense_crf.TEST_TIME` has the usual one.
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
            label = self.crf.label(image, outputs.probabilities, batch["size"][0].tolist())
        write_label(path, label.cpu().numpy())

    def expected_bytes(self, height: int, width: int, classes: int, pl_module: Any) -> float:
        """Estimate the size of a mask."""
        return disk.label_bytes(height, width)
