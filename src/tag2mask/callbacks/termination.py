"""Ending the processes of a distributed run on SIGTERM."""

import os
import signal
from typing import Any, NoReturn

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException


def launched() -> bool:
    """Whether Lightning's launcher has started this process: torchrun and SLURM start and end processes themselves."""
    outside = {"TORCHELASTIC_RUN_ID", "SLURM_PROCID"} & os.environ.keys()
    return not outside and os.environ.get("LOCAL_RANK", "0") != "0"


class EndOnTermination(Callback):
    """Let each process of a distributed run end at once on SIGTERM; one process alone ends after its step.

    Lightning's own handler broadcasts, in the middle of whatever else is being sent: two processes then wait for each
    other for ever. Nothing needs to be agreed upon here, as no checkpoint is written at that moment.
    """

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen from here on: Lightning has put its handlers in place, and takes all of them away when it ends."""

        def end(signum: int, _: Any) -> NoReturn:
            if launched():
                os._exit(0)  # silently: its parent says it, and would be killed by its observer for any other status
            if trainer.strategy.launcher is not None:
                trainer.strategy.launcher.kill(signal.Signals(signum))
            raise SIGTERMException

        if trainer.world_size > 1:
            signal.signal(signal.SIGTERM, end)

    on_train_start = on_validation_start = on_test_start = on_predict_start = on_sanity_check_start
