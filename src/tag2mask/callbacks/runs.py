"""What keeps a training whole: checkpoints that a killed process cannot spoil, its record, and its end on SIGTERM."""

import os
import signal
from pathlib import Path
from typing import Any, NoReturn

import torch
import yaml
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.exceptions import SIGTERMException

from tag2mask.io import provenance
from tag2mask.io.files import atomic, write_json
from tag2mask.io.records import RUN_FILE, commit, digest_of_data, record_of, write_run


class _AtomicCheckpointIO(TorchCheckpointIO):
    """Write a checkpoint beside its place; Lightning's move from another disk's temporary folder can be cut short."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        with atomic(Path(path)) as file:
            torch.save(checkpoint, file)


class LastCheckpoint(ModelCheckpoint):
    """Keep ``last.ckpt``, written every few steps and when training ends. No score chooses a checkpoint."""

    def __init__(self, dirpath: str | None = None, every_n_train_steps: int = 250) -> None:
        every = every_n_train_steps
        super().__init__(dirpath, save_last=True, save_top_k=0, every_n_train_steps=every, enable_version_counter=False)

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Let the trainer write atomically."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            trainer.strategy.checkpoint_io = _AtomicCheckpointIO()

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Let a run that goes on from the last step of an epoch begin the next epoch as an unbroken run does.

        Lightning (2.6) takes this for the middle of the epoch that has ended, and does not count the next one: a run
        that is stopped there again would repeat it.
        """
        super().on_train_start(trainer, pl_module)
        loop = trainer.fit_loop
        if loop.restarted_mid_epoch and loop.epoch_progress.current.processed == loop.epoch_progress.current.started:
            loop.reset_restart_stage()

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Write the trained network, with the state of a training that has come to its end."""
        if not trainer.fast_dev_run:
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))

    def _save_last_checkpoint(self, trainer: Any, monitor_candidates: dict[str, Any]) -> None:
        """Write ``last.ckpt``, and before it the lines that loggers hold back: a run that goes on needs both."""
        for logger in trainer.loggers:
            logger.save()
        super()._save_last_checkpoint(trainer, monitor_candidates)


class RunRecord(Callback):
    """Keep ``run.json``, ``config.yaml`` and ``inputs.csv`` of a training, and give every logger the same facts."""

    def __init__(self, config: dict[str, Any], record: dict[str, Any], seed: Any, data: Any) -> None:
        """Take the configuration, the ``record`` of all that makes another run, and the data module, set up."""
        self.config, self.record = config, record
        self.classes, self.inputs = list(data.class_names), data.inputs()
        data_hash = digest_of_data([self.classes, list(self.inputs.items())])
        self.facts = {"seed": seed, "classes": self.classes, "data_hash": data_hash, "masks_hash": data.masks_digest()}
        if data.labels is not None:
            self.facts["labels_state"] = provenance.state(data.labels)

    def state(self, root: Path, overwrite: bool) -> provenance.RunState:
        """Say whether the training starts, goes on or is done in a run folder; raises where that is another run."""
        return provenance.training_state(root, self.record, self.classes, self.inputs, overwrite)

    def difference(self, root: Path) -> str | None:
        """Say in words what a run folder was made with that differs; None where nothing does."""
        return provenance.training_difference(root, self.record, self.classes, self.inputs)

    def go_on(self, root: Path, checkpoint: Path) -> None:
        """Say from which checkpoint a run goes on and what has changed since; keep the earlier changes."""
        before = record_of(root)
        if "starts_from" in before.get("config", {}):
            self.record["starts_from"] = before["config"]["starts_from"]
        difference, changes = self.difference(root), list(before.get("changes", []))
        rank_zero_info(f"going on with {checkpoint}" + (f", which was made with {difference}" if difference else ""))
        if difference is not None:
            at = f" after {before['steps']} steps" if "steps" in before else ""
            changes.append(f"went on{at} from {difference}")
        self.facts |= {"changes": changes} if changes else {}
        self.compare_masks(root)

    def compare_masks(self, root: Path) -> None:
        """Say where the masks that score have changed under a run."""
        if record_of(root).get("masks_hash", self.facts["masks_hash"]) != self.facts["masks_hash"]:
            changed = f"photographs or masks of the validation split have changed since {root} was trained"
            rank_zero_info(f"{changed}: scores in its logs are of the old ones; `tag2mask validate` scores again")

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Write the files, once the training is sure to begin."""
        if not trainer.is_global_zero:
            return
        root = Path(trainer.default_root_dir)
        for logger in trainer.loggers:
            logger.log_hyperparams({**self.record, "commit": commit(), "data_hash": self.facts["data_hash"]})
            if isinstance(logger, WandbLogger):
                self.facts["wandb_id"] = logger.version
        provenance.write_inputs(root, self.inputs)
        write_run(root, self.record, **self.facts, finished=False)
        with atomic(root / "config.yaml") as file:
            file.write(yaml.safe_dump(self.config, sort_keys=False).encode())

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Note that the training came to its end, and with which weights: later stages ask what they were made with."""
        if trainer.is_global_zero:
            end = {"finished": True, "steps": trainer.global_step, "weights": pl_module.weights_digest()}
            root = Path(trainer.default_root_dir)
            write_json(root / RUN_FILE, record_of(root) | end)


def launched() -> bool:
    """Whether Lightning's launcher has started this process; torchrun and SLURM start and end processes themselves."""
    others = {"TORCHELASTIC_RUN_ID", "SLURM_PROCID"} & os.environ.keys()
    return not others and os.environ.get("LOCAL_RANK", "0") != "0"


class EndOnTermination(Callback):
    """Let each process of a distributed run end at once on SIGTERM; one process alone ends after its step."""

    def on_sanity_check_start(self, trainer: Any, pl_module: Any) -> None:
        """Replace Lightning's handler: it sends a message while a gradient may be on its way, and all wait for ever."""

        def end(signum: int, _: Any) -> NoReturn:
            if launched():
                os._exit(0)  # in silence: for any other status the launcher would kill the first process, which says it
            if trainer.strategy.launcher is not None:
                trainer.strategy.launcher.kill(signal.Signals(signum))
            raise SIGTERMException

        if trainer.world_size > 1:
            signal.signal(signal.SIGTERM, end)

    on_train_start = on_validation_start = on_test_start = on_predict_start = on_sanity_check_start
