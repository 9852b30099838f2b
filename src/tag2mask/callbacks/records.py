"""What a training was made from, in its folder and in its logs."""

from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import Callback
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_info

from tag2mask.io import provenance
from tag2mask.io.files import atomic, write_json
from tag2mask.io.records import RUN_FILE, commit, digest_of_data, record_of, write_run


class RunRecord(Callback):
    """Keep ``run.json``, ``config.yaml`` and ``inputs.csv`` of a training, and give every logger the same facts.

    ``run.json`` holds the configuration, the commit, the classes and ``data_hash``: a digest of the classes and of
    ``inputs.csv``, which has the tags or the label of each photograph that is trained on. When the training ends,
    ``run.json`` says so, with the number of steps and the digest of the weights. Later stages compare their outputs
    with that digest.
    """

    def __init__(self, config: dict[str, Any], record: dict[str, Any], seed: Any, data: Any) -> None:
        """Take the configuration, and the data module, set up for training.

        ``record`` is the configuration and more: a training is another run when an entry changes.
        """
        self.config, self.record = config, record
        self.classes, self.inputs = list(data.class_names), data.inputs()
        self.facts = {
            "seed": seed,
            "classes": self.classes,
            "data_hash": digest_of_data([self.classes, list(self.inputs.items())]),
            "masks_hash": data.masks_digest(),
        }
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
            rank_zero_info(
                f"photographs or masks of the validation split have changed since {root} was trained: scores in its "
                "logs are of the old ones; `tag2mask validate` scores again"
            )

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Write the files, once the training is sure to begin."""
        if not trainer.is_global_zero:
            return
        root = Path(trainer.default_root_dir)
        ids = [logger.version for logger in trainer.loggers if isinstance(logger, WandbLogger)]
        self.facts |= {"wandb_id": ids[-1]} if ids else {}
        provenance.write_inputs(root, self.inputs)
        write_run(root, self.record, **self.facts, finished=False)
        with atomic(root / "config.yaml") as file:
            file.write(yaml.safe_dump(self.config, sort_keys=False).encode())
        for logger in trainer.loggers:
            logger.log_hyperparams({**self.record, "commit": commit(), "data_hash": self.facts["data_hash"]})

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Note that the training came to its end, and with which weights."""
        if trainer.is_global_zero:
            end = {"finished": True, "steps": trainer.global_step, "weights": pl_module.weights_digest()}
            root = Path(trainer.default_root_dir)
            write_json(root / RUN_FILE, record_of(root) | end)
