"""LightningCLI with a run folder: one place for configuration, checkpoints, logs, CAMs and pictures of a run."""

import logging
import os
import re
import sys
import warnings
from pathlib import Path
from typing import Any
from uuid import uuid4

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only

from tag2mask.callbacks.progress import ProgressLines
from tag2mask.callbacks.runs import EndOnTermination, LastCheckpoint, RunRecord, launched
from tag2mask.callbacks.writers import PredictionWriter
from tag2mask.cli.doctor import logged_in
from tag2mask.cli.help import LIGHTNING
from tag2mask.cli.main import LOST_PROCESS
from tag2mask.cli.options import check_options
from tag2mask.cli.settings import TRUST, SettingsParser, check_yaml, take_trusted
from tag2mask.data.datamodules import WSSSDataModule
from tag2mask.data.photos import check_masks, check_sampled_tags, unlearnable
from tag2mask.errors import MismatchError, MissingError, SettingError
from tag2mask.io import locks, provenance
from tag2mask.io.labels import require_classes
from tag2mask.io.provenance import LAST
from tag2mask.io.records import digest_of_file, made_with, record_of
from tag2mask.tasks import affinity, cam, segmentation  # noqa: F401  their names are short in configurations
from tag2mask.tasks.checkpoints import check_file, some_of
from tag2mask.utils.processes import end_with_parent

ALIASES = {
    "--checkpoint": "--ckpt_path",
    "--resume": "--ckpt_path",
    "--epochs": "--trainer.max_epochs",
    "--gpus": "--trainer.devices",
    "--out": "--trainer.default_root_dir",
    "--root": "--data.init_args.root",
    "--labels": "--data.init_args.labels",
    "--batch_size": "--data.init_args.batch_size",
    "--learning_rate": "--model.init_args.optimizer.lr",
    "--lr": "--model.init_args.optimizer.lr",
}
"""Names that people try -> the option of this command line."""
HARMLESS = (
    "args parameter is intended to run from within Python",
    "does not have many workers",
    "The number of training batches.*is smaller than the logging interval",
    "exists and is not empty",
    "when logging on epoch level in distributed setting",  # our scores are of all processes
    "all_gather is deprecated",
    "module.s. in eval mode at the start of training",
    "passed in a `val_dataloader` but have no `validation_step`",
    "Total length of .* across ranks is zero",  # nothing has a mask
    "isinstance.treespec, LeafSpec",
)


class _Parser(SettingsParser, LightningArgumentParser):
    """LightningCLI's parser, with errors that name the near setting."""


class TagsToMasksCLI(LightningCLI):
    """``fit``, ``validate``, ``test`` and ``predict`` in a run folder, ``trainer.default_root_dir``."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the checkpoint, ``--overwrite``, and the links from data to model."""
        parser.add_lightning_class_args(LastCheckpoint, "checkpoint")
        places = "trainer.default_root_dir", "checkpoint.dirpath"
        parser.link_arguments(*places, lambda root: str(Path(root or ".") / LAST.parent))
        parser.link_arguments("data.num_classes", "model.init_args.num_classes", apply_on="instantiate")
        parser.link_arguments("data.class_names", "model.init_args.class_names", apply_on="instantiate")
        parser.add_argument("--overwrite", action="store_true", help="replace a run made with another configuration")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse the words, once each is an option."""
        check_options(args[1:], self._parser(args[0])._option_string_actions, f"tag2mask {args[0]}", ALIASES)
        super().parse_arguments(parser, args)

    @property
    def settings(self) -> Any:
        """The parsed settings of the verb."""
        return self.config[self.config.subcommand]

    def _parse_ckpt_path(self) -> None:
        """Check a checkpoint before anything is built. Its settings are not merged: the configuration says them all.

        The words ``last`` and ``hpc`` become the path of the file that they stand for, None where there is none.
        """
        settings = self.settings
        path, root = settings.get("ckpt_path"), Path(settings.trainer.default_root_dir or ".")
        if settings.weights_only is False:
            raise SettingError("weights_only is false; a checkpoint could then run any code: leave the setting out")
        settings.weights_only = True
        if path in ("best", "registry"):
            raise SettingError(f"--ckpt_path {path}: no score chooses a checkpoint here; give last, or a .ckpt file")
        names = {"last": str(LAST), "hpc": "hpc_ckpt_*.ckpt"}  # which Lightning writes where SLURM requeues
        if path in names:
            paths = sorted(root.glob(names[path]), key=lambda path: (len(path.name), path))
            path = settings.ckpt_path = str(paths[-1]) if paths else None
        for each in [path] if path else root.glob(names["hpc"]):  # under SLURM, Lightning takes it without a word
            check_file(Path(each))

    def before_instantiate_classes(self) -> None:
        """Name the run folder, settle the seed of the samples, W&B's mode and what the run is called there."""
        settings = self.settings
        if settings.trainer.default_root_dir is None:
            raise SettingError("no run folder; give --trainer.default_root_dir, such as runs/voc/cam_resnet50")
        data, seed = settings.data.init_args, settings.seed_everything
        if data.get("seed", 0) is None:  # true and false are Lightning's words for its default seed and for none
            data.seed = 0 if isinstance(seed, bool) else seed
        if not logged_in():  # W&B would stop and ask
            os.environ.setdefault("WANDB_MODE", "offline")
        root = Path(settings.trainer.default_root_dir)
        goes_on = not settings.get("overwrite") and (root / LAST).is_file()  # in its W&B run too
        before = record_of(root).get("wandb_id") if goes_on else None
        folder, task = root.resolve(), settings.model.class_path.split(".")[-2]
        for logger in (each.init_args for each in _wandb_in(settings.trainer.logger)):
            logger.id = logger.id or os.environ.get("WANDB_RUN_ID") or before or uuid4().hex[:8]
            logger.save_dir = str(root) if logger.save_dir in (None, ".") else logger.save_dir
            logger.name = logger.name or f"{folder.parent.name}/{folder.name}"
            logger.group = logger.group or os.environ.get("WANDB_RUN_GROUP") or folder.parent.name  # of one pipeline
            logger.job_type = logger.job_type or os.environ.get("WANDB_JOB_TYPE") or task

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the trainer, with a CSV log of a training, and lines of progress where its bar would go into a file."""
        settings, loggers = self.config_init[self.subcommand].trainer, []
        if self.subcommand == "fit":
            configured = settings.logger if isinstance(settings.logger, list) else [settings.logger]
            loggers = [logger for logger in configured if isinstance(logger, Logger)]
            for logger in _wandb_in(self.settings.trainer.logger):
                Path(logger.init_args.save_dir).mkdir(parents=True, exist_ok=True)  # else W&B takes a temporary folder
            loggers.append(CSVLogger(settings.default_root_dir, name="logs", flush_logs_every_n_steps=50))
        own_bar = any(isinstance(callback, ProgressBar) for callback in settings.callbacks or [])
        if settings.enable_progress_bar is False or sys.stdout.isatty() or own_bar:
            return super().instantiate_trainer(logger=loggers, **kwargs)
        trainer = super().instantiate_trainer(logger=loggers, enable_progress_bar=False, **kwargs)
        trainer.callbacks.insert(0, ProgressLines())  # type: ignore[attr-defined]
        return trainer

    def _run_subcommand(self, subcommand: str) -> None:
        """Run the verb, and end its W&B run whatever happens: the next training of this process would go on with it."""
        try:
            super()._run_subcommand(subcommand)
        finally:
            if any(isinstance(logger, WandbLogger) for logger in self.trainer.loggers):
                import wandb

                wandb.finish(exit_code=0 if sys.exc_info()[0] is None else 1)

    def fit(self, model: LightningModule, ckpt_path: str | None, **settings: Any) -> None:
        """Check everything, then start a run, go on with it, or leave it finished. Nothing is written before."""
        if self.settings.trainer.fast_dev_run:
            self.trainer.fit(model, ckpt_path=ckpt_path, **settings)
            return
        root, overwrite = Path(self.trainer.default_root_dir), self.settings.overwrite
        self.datamodule.setup("fit")
        start = Path(ckpt_path) if ckpt_path else None
        own = start is not None and root.resolve() in start.resolve().parents
        if own and overwrite:
            raise SettingError(f"--overwrite would delete {start}, which --ckpt_path names; leave one of them out")
        record = self._record(None if own else start)

        def state_of() -> str:
            return "unfinished" if own and record.difference(root) else record.state(root, overwrite)

        state = state_of()
        if state != "finished":
            self._check_data()
            if self.trainer.is_global_zero:
                locks.take(root)
            state = state_of()  # another process may have held the folder, and ended
        if state == "finished":
            check_file(root / LAST, self.model.kind)
            more = "--trainer.max_epochs N --ckpt_path last trains it longer, --overwrite anew"
            rank_zero_info(f"{root} is trained to its end with these settings and this data: nothing to do; {more}")
            record.compare_masks(root)
            return
        if state == "new":
            self.model.fill()  # the weights to start from are there: now the earlier training can go
            rank_zero_only(provenance.discard)(root)
            rank_zero_only((root / LAST).unlink)(missing_ok=True)
        else:
            start = start if own and start else root / LAST
            check_file(start, self.model.kind)
            record.go_on(root, start)
        self.trainer.callbacks.append(record)  # type: ignore[attr-defined]
        self.trainer.fit(model, ckpt_path=start and str(start), **settings)

    def _check_data(self) -> None:
        """Refuse masks that cannot be used or meant, before the first step; say what cannot be learnt."""
        data, scored = self.datamodule, bool(self.trainer.limit_val_batches)
        if data.labels is None:
            for line in unlearnable(data.train_photos, data.class_names):
                rank_zero_info(f"warning: {line}")
        for photos in (data.labelled(), data.val_photos if scored else []):
            check_masks(photos, data.num_classes)
            masks = [photo.mask for photo in photos if photo.mask is not None]
            if not (masks and record_of(masks[0].parent)):
                require_classes(masks)
            check_sampled_tags(photos, data.class_names)

    def _record(self, start: Path | None) -> RunRecord:
        """What makes it another run when it changes: settings, labels, and the checkpoint that it starts from."""
        self._dump_config()
        no_settings = ("config", "ckpt_path", "overwrite", "weights_only")
        config = {key: value for key, value in self.config_dump.items() if key not in no_settings}
        for logger in _wandb_in(config["trainer"]["logger"]):
            logger["init_args"].pop("id", None)  # the name of a run, no setting
        record, labels, names = dict(config), self.datamodule.labels, list(self.datamodule.class_names)
        if labels is not None and (made := made_with(labels)) is not None:
            record["labels_made_with"] = made
            provenance.require_current(labels, "make them again with `tag2mask labels`")
            classes = record_of(labels)["config"].get("classes")
            if classes not in (None, names):
                before, now, remedy = some_of(classes, names), some_of(names, classes), "make the labels again"
                raise MismatchError(f"{labels} was made for the classes {before}, the data has {now}; {remedy}")
        if start is not None:
            record["starts_from"] = digest_of_file(start)
        return RunRecord(config, record, self.settings.seed_everything, self.datamodule)

    def _use_last(self) -> None:
        """Take the checkpoint of the run folder where none is given."""
        settings, last = self.config_init[self.subcommand], Path(self.trainer.default_root_dir) / LAST
        if settings.ckpt_path is None:
            if not last.is_file():
                raise MissingError(f"no trained network: {last} does not exist; run `tag2mask fit` or give --ckpt_path")
            check_file(last)
            settings.ckpt_path = str(last)
        if self.subcommand == "predict":
            settings.return_predictions = False  # they are written one by one; all of a data set fill the memory
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, PredictionWriter):
                callback.overwrite |= settings.overwrite

    before_validate = before_test = before_predict = _use_last


def lightning(words: list[str]) -> None:
    """Run the verb that ``words`` begin with."""
    words = take_trusted(words)
    check_yaml(words)
    quiet()
    if launched():  # by Lightning: end with the process that did, NCCL would wait for minutes
        end_with_parent()
    names_errors = {"exit_on_error": False}
    TagsToMasksCLI(
        LightningModule,
        WSSSDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        save_config_callback=None,
        seed_everything_default=0,
        trainer_defaults={"callbacks": EndOnTermination()},
        args=words,
        parser_class=_Parser,
        parser_kwargs={"prog": "tag2mask", **names_errors} | dict.fromkeys(LIGHTNING, names_errors | {"epilog": TRUST}),
    )


def _wandb_in(loggers: Any) -> list[Any]:
    """The settings of each ``WandbLogger`` among those of the trainer's loggers."""
    each = loggers if isinstance(loggers, list) else [loggers]
    return [one for one in each if hasattr(one, "get") and "WandbLogger" in str(one.get("class_path"))]


def quiet() -> None:
    """Silence warnings that a user can do nothing about, and reword what Lightning says of a lost process."""
    for message in HARMLESS:
        warnings.filterwarnings("ignore", f".*{message}")
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(lambda r: "litlogger" not in r.getMessage())
    logging.getLogger("lightning.fabric.strategies.launchers.subprocess_script").addFilter(explain_lost_process)


def explain_lost_process(record: logging.LogRecord) -> bool:
    """Reword what Lightning's launcher says of a process that has died, before it kills all others and itself."""
    lost = re.search(r"Child process with PID (\d+) terminated with code (-?\d+)", record.getMessage())
    if lost:
        record.msg, record.args = LOST_PROCESS.format(f"PID {lost[1]}, status {lost[2]}"), ()
    return True
