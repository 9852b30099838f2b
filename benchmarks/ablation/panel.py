"""The same photographs under the CAMs of several rows."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from benchmarks.ablation.score import part_of
from benchmarks.ablation.settings import Run
from benchmarks.ablation.train import data_module, evaluated, inference, network
from tag2mask import files, plots
from tag2mask.counts import at_full_size, confusion, scores


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
    chosen = [index * len(photos) // min(count, len(photos)) for index in range(min(count, len(photos)))]
    upper, lower = [], []
    for photo in (photos[index] for index in chosen):
        tags = [data.class_names[c] for c in np.flatnonzero(photo.label(data.num_classes))]
        upper.append([(f"{photo.name}: {', '.join(tags)}", files.read_image(photo.image))])
        lower.append([])
    for path, run in runs.items():
        task = network(run, data)
        task.load_state_dict(torch.load(path.with_suffix(".pt"), map_location="cpu"))
        task.eval()
        threshold = files.read_json(path)["scores"]["tune"]["fixed"]["threshold"]
        samples = part_of(evaluated(run, photos, data.num_classes, cache), count)
        for line, below, at in zip(upper, lower, range(len(chosen)), strict=True):
            sample, image = samples[at], line[0][1]
            cams, _ = task.cams(sample["image"][None], sample["label"][None], sample["size"][None], inference(run))
            score, winner = at_full_size(cams.cam, cams.classes, sample["mask"].shape)
            label = torch.where(score > threshold, winner, 0)
            iou = scores(confusion(label, sample["mask"], data.num_classes + 1))["iou"]
            tagged = iou[1:][sample["label"] > 0].nanmean().item()
            if not below:
                below.append(("truth", plots.overlay(image, sample["mask"].numpy())))
            line.append((path.stem.rpartition("-seed")[0], plots.heat(image, score.numpy())))
            below.append((f"{tagged:.2f}", plots.overlay(image, label.numpy())))
    return plots.column([plots.row(parts, 1.6) for pair in zip(upper, lower, strict=True) for parts in pair])
