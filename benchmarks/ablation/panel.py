"""The same photographs under the CAMs of several rows."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.ablation.score import evenly
from benchmarks.ablation.settings import Run
from benchmarks.ablation.train import data_module, evaluated, inference, network
from tag2mask.classes import BACKGROUND
from tag2mask.data.datamodules import WSSSDataModule
from tag2mask.data.datasets import Photo, read_mask
from tag2mask.io.files import read_json
from tag2mask.io.images import read_image
from tag2mask.metrics.functional import at_full_size, confusion, scores
from tag2mask.tasks.cam import CAMTask
from tag2mask.tasks.settings import CAMInference
from tag2mask.viz import plots


@torch.no_grad()
def panel(runs: Mapping[Path, Run], root: Path, cache: Path, count: int) -> np.ndarray:
    """Draw ``count`` photographs of the scored split, evenly spread: under each row its CAM and its label map.

    Args:
        runs: by the path of their records, whose threshold the labels take; the weights lie beside these.
        root: folder of the data set.
        cache: folder of cached features.
        count: how many photographs.

    Returns:
        A picture (H, W, 3) uint8: two lines a photograph, in the upper one the highest CAM of its tags, in the lower
        one the labels, with the mean IoU of the tagged classes.
    """
    data = data_module(root)
    photos = data.photos(next(iter(runs.values())).scored)
    places = evenly(len(photos), count)
    lines = [Lines.of(photos[place], data) for place in places]
    for path, run in runs.items():
        task = network(run, data)
        task.load_state_dict(torch.load(path.with_suffix(".pt"), map_location="cpu"))
        task.eval()
        threshold = read_json(path)["scores"]["all"]["fixed"]["threshold"]
        samples = evaluated(run, photos, data.num_classes, cache)
        for line, place in zip(lines, places, strict=True):
            line.add(path.stem.rpartition("-seed")[0], task, samples[place], inference(run), threshold)
    return plots.column([plots.row(parts, 1.6) for line in lines for parts in (line.heats, line.labels)])


@dataclass
class Lines:
    """The two lines of one photograph: titled pictures, the first of which are the photograph and its true mask."""

    image: np.ndarray
    heats: list[tuple[str, np.ndarray]]
    labels: list[tuple[str, np.ndarray]]

    @classmethod
    def of(cls, photo: Photo, data: WSSSDataModule) -> "Lines":
        """Begin with the photograph and its mask."""
        image = read_image(photo.image)
        tags = [data.class_names[c] for c in np.flatnonzero(photo.label(data.num_classes))]
        truth = read_mask(photo, image.shape[:2], data.num_classes)
        return cls(image, [(f"{photo.name}: {', '.join(tags)}", image)], [("truth", plots.overlay(image, truth))])

    def add(self, name: str, task: CAMTask, sample: dict[str, Any], how: CAMInference, threshold: float) -> None:
        """Add the CAM of a network and its label map."""
        cams, *_ = task.cams(sample["image"][None], sample["label"][None], sample["size"][None], how)
        score, winner = at_full_size(cams.cam, cams.classes, sample["mask"].shape)
        label = torch.where(score > threshold, winner, BACKGROUND)
        iou = scores(confusion(label, sample["mask"], task.num_classes + 1))["iou"][1:]
        self.heats.append((name, plots.heat(self.image, score.numpy())))
        title = f"{iou[sample['label'] > 0].nanmean().item():.2f}"
        self.labels.append((title, plots.overlay(self.image, label.numpy())))
