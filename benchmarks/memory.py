"""Memory that a training step will take on a GPU, counted on a CPU.

usage: python -m benchmarks.memory [--configs configs/coco/cam_resnet50.yaml ...] [--out benchmarks/out/memory.json]

For each configuration one training step's forward pass of two random crops runs in bfloat16, as mixed precision would,
and every tensor that autograd keeps for the backward pass is counted once. Expected for a batch: the activations of one
crop times the batch, and 14 bytes a weight: value, gradient and momentum in float32, a copy in half precision. What
cuDNN takes as workspace, and what the allocator loses, comes on top: the figures have not been checked on a GPU.
"""

import argparse
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import ArgumentParser
from lightning.pytorch import LightningModule

from benchmarks.record import write_record
from tag2mask import classes

CONFIGS = (
    "configs/coco/cam_resnet50_plain.yaml",
    "configs/coco/cam_resnet50.yaml",
    "configs/coco/cam_resnest101.yaml",
    "configs/coco/cam_lite0.yaml",
    "configs/coco/affinity_resnet50.yaml",
    "configs/coco/segmentation_resnet50.yaml",
    "configs/coco/segmentation_resnest101.yaml",
)
CROPS = 2


def task_of(config: dict[str, Any]) -> LightningModule:
    """Build the network of a configuration, without trained weights."""
    model = config["model"]
    model["init_args"]["backbone"]["weights"] = "none"
    model["init_args"] |= {"num_classes": 80, "class_names": list(classes.COCO[1:])}
    parser = ArgumentParser()
    parser.add_subclass_arguments(LightningModule, "model")
    task: LightningModule = parser.instantiate(parser.parse_object({"model": model})).model
    return task


def batch_of(side: int, count: int) -> dict[str, Any]:
    """Return ``count`` random crops (count, 3, side, side) with tags and masks of COCO's 80 classes."""
    label = torch.zeros(count, 80)
    label[:, [0, 16, 61]] = 1
    coarse = torch.randint(0, 81, (count, side // 32, side // 32))
    mask = coarse.repeat_interleave(32, 1).repeat_interleave(32, 2)
    names = [f"crop {number}" for number in range(count)]
    return {"image": torch.randn(count, 3, side, side), "label": label, "mask": mask, "name": names}


def measure(config: dict[str, Any], batches: Sequence[int] = ()) -> dict[str, Any]:
    """Count the memory of one step of a configuration, for ``batches`` of so many crops.

    Without ``batches``: the configuration's own on one, two and eight GPUs.
    """
    torch.manual_seed(0)
    task = task_of(config).train()
    data = config["data"]["init_args"]
    batch = batch_of(data["preprocessing"]["crop_size"], CROPS)
    weights = {weight.untyped_storage().data_ptr() for weight in task.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autocast("cpu", torch.bfloat16), torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        task.training_step(batch, 0)
    count = sum(weight.numel() for weight in task.parameters())
    crop, fixed = sum(kept.values()) / CROPS, 14 * count
    found: dict[str, Any] = {"million_weights": round(count / 1e6, 1), "activations_mb_a_crop": round(crop / 1e6)}
    whole = data["batch_size"]
    for crops in batches or (whole // 8, whole // 2, whole):
        found[f"gb_for_{crops}"] = round((fixed + crops * crop) / 1e9, 1)
    return found


def main() -> None:
    """Measure, print and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", type=Path, nargs="+", default=[Path(name) for name in CONFIGS])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out/memory.json"))
    given = parser.parse_args()
    warnings.filterwarnings("ignore", "You are trying to `self.log")
    figures = {}
    for path in given.configs:
        figures[str(path)] = measure(yaml.safe_load(path.read_text()))
        print(path, *(f"{key} {value}" for key, value in figures[str(path)].items()), flush=True)
    write_record(given.out, figures)


if __name__ == "__main__":
    main()
