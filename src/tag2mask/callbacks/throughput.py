"""How fast a training goes, and how much memory of the GPU it takes."""

import time
from collections import deque
from typing import Any

import torch
from lightning.pytorch import Callback


class Throughput(Callback):
    """Log ``throughput/images_per_second`` of all devices together, over the last ``batches``.

    Loading images counts; validation and the first batch of an epoch do not. On a GPU also
    ``throughput/gpu_memory_gb``: the most that PyTorch has held on the first one so far, in GiB.
    """

    def __init__(self, batches: int = 20) -> None:
        self.ends: deque[float] = deque(maxlen=batches + 1)

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin to count, also after a validation in the middle of an epoch."""
        self.ends.clear()

    on_validation_end = on_train_epoch_start

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Take the time."""
        self.ends.append(time.perf_counter())
        if len(self.ends) > 1:
            images = len(batch["name"]) * trainer.world_size * (len(self.ends) - 1)
            pl_module.log("throughput/images_per_second", images / max(self.ends[-1] - self.ends[0], 1e-9))
            if pl_module.device.type == "cuda":
                pl_module.log("throughput/gpu_memory_gb", torch.cuda.max_memory_allocated(pl_module.device) / 2**30)
