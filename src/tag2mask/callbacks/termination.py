"""Ending the processes of a distributed run on SIGTERM."""

import os
import signal
from typing import Any, NoReturn

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException


def launched() -> bool:
    """Whether Lightning's launcher has started this process; torchrun and SLURM start and end processes themselves."""
    others = {"TORCHELASTIC_RUN_ID", "SLURM_PROCID"} & os.environ.keys()
    return not others and os.environ.get("LOCAL_RANK", "0") != "0"


class EndOnTermination(Callback):
    """Let each process of a distributed run end at once on SIGTERM; one process alone ends after its step.

    By hand, because Lightning's own handler sends a message while a gradient may be on its way: two processes then wait
    for each other for ever. Nothing has to be sent, as no checkpoint is written at that moment.
    """

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the handler over Lightning's, which are in place by now; Lightning removes all handlers when it ends."""

        def end(signum: int, _: Any) -> NoReturn:
            if launched():
                os._exit(0)  # in silence: for any other status the launcher would kill the first process, which says it
            if trainer.strategy.launcher is not None:
                trainer.strategy.launcher.kill(signal.Signals(signum))
            raise SIGTERMException

        if trainer.world_size > 1:
            signal.signal(signal.SIGTERM, end)

    on_train_start = on_validation_start = on_test_start = on_predict_start = on_sanity_check_start
