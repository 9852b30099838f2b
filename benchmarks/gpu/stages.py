"""CAMs, dense CRF, random walk, and the memory of a training step beside what was expected."""

import time
import warnings
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from torch import Tensor

from benchmarks import dense_crf, memory
from benchmarks.gpu.sizes import Setup, Size
from benchmarks.gpu.steps import Held, network, trained, with_peak
from benchmarks.random_walk import seconds, smooth
from tag2mask.data.sample import draw_scene
from tag2mask.models.attention import Attention
from tag2mask.refine.random_walk import edge_transition, random_walk
from tag2mask.tasks.cam import CAMTask
from tag2mask.tasks.settings import CAMInference

WAYS = {"as printed": CAMInference(), "with attention": CAMInference(attention=Attention(layer="layer2"))}
"""How CAMs are made: four scales with flips, without and with self-attention at inference."""
CONFIGS = (
    "configs/coco/cam_resnet50.yaml",
    "configs/coco/cam_resnet50_plain.yaml",
    "configs/coco/affinity_resnet50.yaml",
    "configs/coco/segmentation_resnet50.yaml",
)
"""Those of docs/scaling.md whose memory is measured."""


def cams(setup: Setup) -> dict[str, Any]:
    """Measure images a second of CAMs, in each precision and each of `WAYS`."""
    size, found = setup.size, {}
    task = network(size, None).to(size.device).eval()
    for precision in size.precisions:
        for name, how in WAYS.items():
            taken, peak = with_peak(size.device, partial(seconds_of_cams, size, task, how, precision != "32-true"))
            found[f"{name}, {precision}"] = {"images_per_second": round(1 / median(taken), 2), "peak_gb": peak}
    return found


@torch.inference_mode()
def seconds_of_cams(size: Size, task: CAMTask, how: CAMInference, half: bool) -> list[float]:
    """Return the seconds of each photograph, with two tags, until its CAMs lie on the CPU; two others warm up."""
    image, shape = torch.randn(1, 3, *size.photo, device=size.device), torch.tensor([size.photo])
    label, taken = torch.zeros(1, task.num_classes, device=size.device), []
    label[0, [7, 14]] = 1
    for _ in range(2 + size.photos):
        begun = time.perf_counter()
        with torch.autocast(size.device.type, torch.bfloat16, enabled=half):
            task.cams(image, label, shape, how)[0].cam.cpu()
        taken.append(time.perf_counter() - begun)
    return taken[2:]


def crf(setup: Setup) -> dict[str, Any]:
    """Measure our dense CRF on the device against pydensecrf on the CPU, on drawn scenes of a photograph's size."""
    rows: dict[str, dict[str, dict[str, float]]] = {form: {} for form in dense_crf.BILATERAL}
    height, width = setup.size.photo
    for seed in range(setup.size.photos):
        scene, mask = draw_scene(np.random.default_rng([0, seed]))
        image = np.array(scene.resize((width, height)))
        large = Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST)
        _, label = torch.from_numpy(np.array(large)).long().unique(return_inverse=True)
        for form, unary in dense_crf.starts(label, seed).items():
            kernel = dense_crf.BILATERAL[form]
            rows[form][str(seed)] = dense_crf.compare(image, unary, kernel, setup.size.device.type)
    on = {"torch_seconds": str(setup.size.device), "pydensecrf_seconds": "cpu"}
    return {"on": on, "forms": {form: dense_crf.summary(of_form) for form, of_form in rows.items()}}


def walk(setup: Setup) -> dict[str, Any]:
    """Measure the random walk on the device, matrix included, against the same on the CPU."""
    device, found = setup.size.device, []
    for shape in setup.size.maps:
        cam, edge = smooth(*shape, 0), smooth(1, *shape[1:], 1)[0] ** 3
        there, edge_there = cam.to(device), edge.to(device)
        result, taken = dense_crf.timed(partial(walked, there, edge_there))
        found.append(
            {
                "map": list(shape),
                "seconds_on_device": taken,
                "cpu_seconds": seconds(partial(walked, cam, edge), 3),
                "difference": (result - walked(cam, edge)).abs().max().item(),
            }
        )
    return {"on": {"seconds_on_device": str(device), "cpu_seconds": "cpu"}, "walks": found}


def walked(cam: Tensor, edge: Tensor) -> Tensor:
    """Return a CAM (K, h, w) after the walk along the edges (h, w)."""
    return random_walk(cam, edge_transition(edge))


def step_memory(setup: Setup, config: str) -> dict[str, Any]:
    """Measure the peak of three training steps of a configuration for each batch, beside what `memory` expects.

    A batch that does not fit is noted as ``out of memory``: this is the figure that was asked for.
    """
    size = setup.size
    measured: dict[str, Any] = {}
    for crops in size.crops:
        torch.manual_seed(0)
        task, batch = memory.task_of(read(config, size)), memory.batch_of(size.side, crops)
        there = {key: value.to(size.device) if torch.is_tensor(value) else value for key, value in batch.items()}
        loader = Held(there, 3)
        try:
            run = partial(trained, task, loader, "bf16-mixed", size.accelerator)
            measured[f"gb_for_{crops}"] = with_peak(size.device, run)[1]
        except torch.OutOfMemoryError:
            measured[f"gb_for_{crops}"] = "out of memory"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "You are trying to `self.log")
        return {"measured": measured, "expected": memory.measure(read(config, size), size.crops)}


def read(config: str, size: Size) -> dict[str, Any]:
    """Read a configuration, with backbone, crop and tiles of the size, and a learning rate for any batch."""
    settings: dict[str, Any] = yaml.safe_load(Path(config).read_text())
    size.with_tiles(settings["model"])["init_args"]["backbone"]["name"] = size.backbone.name
    settings["model"]["init_args"]["optimizer"]["for_batch"] = None
    settings["data"]["init_args"]["preprocessing"]["crop_size"] = size.side
    return settings
