"""A trained segmentation network as one small file (safetensors) with all that its user must know.

It holds numbers and text alone, so a file from a stranger runs no code. Weights of convolutions are stored in half
precision, those of norms and biases as they are.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save

from tag2mask import __version__
from tag2mask.io.files import atomic
from tag2mask.models.backbones import Backbone
from tag2mask.tasks.settings import MaskInference

ENDING = ".safetensors"
MARK = "tag2mask"  # key of our facts in the file's metadata


def write(path: Path, task: Any) -> None:
    """Write the network of a loaded `SegmentationTask`, its classes, backbone, preprocessing and inference."""
    backbone = asdict(task.net.config)
    facts = {
        "task": task.kind,
        "classes": list(task.class_names),
        "version": __version__,
        "preprocessing": task.preprocessing,
        "backbone": {key: backbone[key] for key in ("name", "output_stride", "dilate")},
        "inference": asdict(task.inference),
    }
    state = {name: value.half() if value.ndim > 1 else value for name, value in task.state_dict().items()}
    content = save({name: value.contiguous() for name, value in state.items()}, {MARK: json.dumps(facts)})
    with atomic(path) as file:
        file.write(content)


def read(path: Path) -> dict[str, Any]:
    """Return what such a file says, in the form of a checkpoint of ours; float32 again.

    Raises:
        Exception: of many kinds, where it is damaged or not of `write`; the caller turns them into one.
    """
    with safe_open(path, "pt") as file:
        facts = json.loads((file.metadata() or {})[MARK])
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no dict
    names, inference = tuple(facts["classes"]), facts["inference"]
    return {
        "tag2mask": facts,
        "state_dict": {name: value.float() if value.dtype == torch.float16 else value for name, value in state.items()},
        "hyper_parameters": {
            "num_classes": len(names),
            "class_names": names,
            "backbone": Backbone(**facts["backbone"], weights="none"),
            "inference": MaskInference(tuple(inference["scales"]), inference["flip"]),
        },
    }
