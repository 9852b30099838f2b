"""What a training was made from, in its folder and in its logs."""

from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import Callback

from tag2mask import files


class RunRecord(Callback):
    """Write ``run.json`` and ``config.yaml`` when a training starts, and tell every logger the same.

    Both hold the configuration, the commit and ``data_hash``: a digest of the class names and of names and tags of the
    photographs that are trained on.
    """

    def __init__(self, config: dict[str, Any], record: dict[str, Any], seed: Any) -> None:
        """Take what is to be written.

        Args:
            config: of the training.
            record: the same, with what else makes it another run when it changes.
            seed: of the training.
        """
        self.config, self.record, self.seed = config, record, seed

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Write, once the data is known."""
        if not trainer.is_global_zero:
            return
        root, data = Path(trainer.default_root_dir), trainer.datamodule.fingerprint()
        files.write_run(root, self.record, seed=self.seed, data_hash=data)
        with files.atomic(root / "config.yaml") as file:
            file.write(yaml.safe_dump(self.config, sort_keys=False).encode())
        for logger in trainer.loggers:
            logger.log_hyperparams({**self.record, "commit": files.commit(), "data_hash": data})
