"""CAMs of single photographs, from a checkpoint alone: made, looked into, refined and saved.

Shape letters in this file: C foreground classes, K classes of one image, D feature channels, T tiles, H x W the
photograph, h x w its CAM, M x N the map of one tile.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from tag2mask.classes import BACKGROUND
from tag2mask.data.transforms import EvaluationTransform, Preprocessing
from tag2mask.errors import InputError
from tag2mask.io.cams import CAMs
from tag2mask.io.files import read_json
from tag2mask.io.images import read_image, rgb
from tag2mask.io.labels import write_label
from tag2mask.io.records import RUN_FILE
from tag2mask.metrics.functional import at_full_size, confusion, scores
from tag2mask.models.attention import Attention
from tag2mask.models.cam import scale_to_one, two_steps
from tag2mask.models.tiling import untile
from tag2mask.refine.dense_crf import CRF
from tag2mask.refine.recipes import EdgeWalk, PseudoLabels
from tag2mask.refine.seeds import Seed
from tag2mask.tasks import checkpoints
from tag2mask.tasks.affinity import Edges
from tag2mask.tasks.cam import CAMInference, CAMTask, Tiles
from tag2mask.viz import plots

Photograph = str | Path | Image.Image | np.ndarray
"""A path, a PIL image of any mode, or an array (H, W, 3) uint8."""


@dataclass(frozen=True)
class PhotoCAMs:
    """The CAMs of one photograph.

    Attributes:
        image: the photograph, (H, W, 3) uint8.
        cam: in [0, 1], with the mask values of their classes, as `write_cam` writes them.
        probabilities: class name -> the network's probability that the class is there, for every class.
    """

    image: np.ndarray
    cam: CAMs
    probabilities: dict[str, float]

    @property
    def maps(self) -> dict[str, np.ndarray]:
        """Class name -> CAM in [0, 1], (h, w) float32; it covers the whole photograph."""
        return _named(self.cam, list(self.probabilities))

    def label(self, threshold: float = 0.3) -> np.ndarray:
        """Return the mask values of the strongest classes where they are above a threshold, (H, W) uint8."""
        score, winner = at_full_size(self.cam.cam, self.cam.classes, self.cam.size)
        return torch.where(score > threshold, winner, BACKGROUND).numpy().astype(np.uint8)


@dataclass(frozen=True)
class Refined:
    """The mask of one photograph.

    Attributes:
        image: the photograph, (H, W, 3) uint8.
        steps: label map (H, W) uint8 after each step, by its name and in order: ``seed``, ``walk``, ``crf``.
        maps: class name -> the CAM from which the mask was cut, after the random walk if there was one, (h, w).
    """

    image: np.ndarray
    steps: dict[str, np.ndarray]
    maps: dict[str, np.ndarray]

    @property
    def label(self) -> np.ndarray:
        """Mask values after the last step, (H, W) uint8."""
        return list(self.steps.values())[-1]

    def overlay(self) -> Image.Image:
        """Return the mask over the photograph."""
        return Image.fromarray(plots.overlay(self.image, self.label))

    def save(self, path: str | Path) -> None:
        """Write the mask as a palette PNG."""
        write_label(Path(path), self.label)


def _named(cams: CAMs, class_names: Sequence[str]) -> dict[str, np.ndarray]:
    return {
        class_names[value - 1]: values for value, values in zip(cams.classes.tolist(), cams.cam.numpy(), strict=True)
    }


@dataclass(frozen=True)
class Branches:
    """What both branches make of one photograph: class scores before ReLU, each map covering the whole of it.

    Attributes:
        full: class name -> map of the whole image, (h, w).
        tiled: likewise of the tiles, put together.
        refined: likewise after region self-attention (RSA).
        entropy: of the attention, in [0, 1]: 0 where each position looks at itself only, 1 where at all alike.
        guide: what the affinity is made of: of the tiles, (T, G, M, N), or of the image where that is its region.
        settings: of the attention.
    """

    full: dict[str, np.ndarray]
    tiled: dict[str, np.ndarray]
    refined: dict[str, np.ndarray]
    entropy: float
    guide: Tensor
    settings: Attention

    def maps(self, name: str) -> dict[str, np.ndarray]:
        """Return the three maps of a class as CAMs: cut at zero and divided by their maxima, in [0, 1]."""
        branches = {"whole image": self.full, "tiles": self.tiled, "tiles after attention": self.refined}
        return {branch: scale_to_one(torch.from_numpy(maps[name]).relu()).numpy() for branch, maps in branches.items()}

    def moved(self, name: str) -> np.ndarray:
        """Return what RSA adds to the tiles' map of a class, cut at zero, where it is positive, and takes, (h, w)."""
        return np.asarray(self.refined[name].clip(0) - self.tiled[name].clip(0))

    def attention(self, x: float, y: float) -> np.ndarray:
        """Return how a point takes its CAM from its tile, or image: its row of the affinity of Eq. 4, which sums to 1.

        Args:
            x: the point, as share of the width in [0, 1].
            y: as share of the height, likewise.

        Returns:
            (h, w) float32; 0 outside of the tile.
        """
        count, _, height, width = self.guide.shape
        grid = round(count**0.5)
        down, across = _position(y, grid * height), _position(x, grid * width)
        tile = down // height * grid + across // width
        position = down % height * width + across % width
        each = torch.eye(height * width).view(1, -1, height, width)  # what comes of a CAM of that position alone
        spread, _ = replace(self.settings, restore=False).refine(self.guide[tile : tile + 1], each)
        weights = torch.zeros(count, 1, height, width)
        weights[tile, 0] = spread[0].flatten(1)[:, position].view(height, width)
        return untile(weights, grid)[0, 0].numpy()


def _position(share: float, positions: int) -> int:
    if not 0 <= share <= 1:
        raise InputError(f"the point lies at {share} of the photograph's side; expected a share from 0 to 1")
    return min(int(share * positions), positions - 1)


class CAMMaker:
    """A trained CAM network, ready for photographs."""

    def __init__(self, checkpoint: str | Path, device: str = "cpu", inference: CAMInference | None = None) -> None:
        """Load a network, and the normalisation that it was trained with.

        Args:
            checkpoint: of `CAMTask`, written by `tag2mask fit`.
            device: of the network.
            inference: scales, flip and size of the CAMs; None takes those of the training's configuration.
        """
        checkpoints.check_file(Path(checkpoint), "cam")
        self.transform = EvaluationTransform(Preprocessing(**checkpoints.preprocessing(Path(checkpoint))))
        task = CAMTask.load_from_checkpoint(checkpoint, map_location="cpu", weights_only=True)
        self.task = task.to(device).eval()
        self.class_names, self.inference = task.class_names, inference or task.inference

    @torch.inference_mode()
    def __call__(self, photo: Photograph, tags: Sequence[str | int] | None = None) -> PhotoCAMs:
        """Make the CAMs of a photograph.

        Args:
            photo: of any size.
            tags: names or mask values of its classes; None takes those that the network predicts.
        """
        image = read(photo)
        label, size = self._label(tags), torch.tensor([image.shape[:2]])
        cams, scores, _ = self.task.cams(self._input(image), label, size, self.inference)
        cams = CAMs(cams.cam.float().cpu(), cams.classes.cpu(), cams.size)
        return PhotoCAMs(image, cams, dict(zip(self.class_names, scores.sigmoid().tolist(), strict=True)))

    @torch.inference_mode()
    def branches(self, photo: Photograph) -> Branches:
        """Run both branches at a size of which the tiles are whole, without scales and flips.

        A network that was trained without tiles is looked at as if it had those of the defaults. Without attention in
        its training it is that of its CAMs (`CAMInference.attention`), over the whole image, else that of the defaults.
        """
        tiles, net = self.task.tiles or Tiles(attention=None), self.task.net
        unit, image = tiles.grid * net.stride, self._input(read(photo))
        sides = [max(1, round(side / unit)) * unit for side in image.shape[-2:]]
        image = F.interpolate(image, sides, mode="bicubic", align_corners=False)
        made = self.task.inference.attention
        settings = tiles.attention or (replace(made, region="image") if made else Attention())
        before, after = (two_steps(net, image, tiles.grid, how, tiles.scale) for how in (None, settings))
        full, tiled, refined = (self._by_class(x) for x in (before.full, before.tiled, after.tiled))
        guide = untile(after.guide, tiles.grid) if settings.region == "image" else after.guide
        assert after.entropy is not None
        return Branches(full, tiled, refined, after.entropy.item(), guide.float().cpu(), settings)

    def _input(self, image: np.ndarray) -> Tensor:
        return self.transform(image)[None].to(self.task.device)

    def _by_class(self, maps: Tensor) -> dict[str, np.ndarray]:
        return dict(zip(self.class_names, maps[0].float().cpu().numpy(), strict=True))

    def _label(self, tags: Sequence[str | int] | None) -> Tensor:
        """Tags as 0/1, (1, C), or -1 throughout."""
        label = torch.full((1, len(self.class_names)), -1.0 if tags is None else 0.0, device=self.task.device)
        for tag in [tags] if isinstance(tags, str) else tags or ():
            place = self.class_names.index(tag) if tag in self.class_names else tag - 1 if isinstance(tag, int) else -1
            if not 0 <= place < len(self.class_names):
                raise InputError(f"unknown tag {tag!r}; the network's classes are {', '.join(self.class_names)}")
            label[0, place] = 1
        return label


def cam_runs(folder: str | Path) -> dict[str, Path]:
    """Return name -> last checkpoint of each run of a CAM network in a folder.

    Raises:
        InputError: there is none.
    """
    found = {}
    for path in sorted(Path(folder).glob(f"*/{RUN_FILE}")):
        model = read_json(path).get("config", {}).get("model") or {}
        last = path.parent / "checkpoints" / "last.ckpt"
        if str(model.get("class_path")).endswith(f".{CAMTask.__name__}") and last.is_file():
            found[path.parent.name] = last
    if not found:
        raise InputError(f"no run of a CAM network in {folder}; train one with `tag2mask fit`, or name another folder")
    return found


class Refiner:
    """Turns the CAMs of a photograph into its mask: random walk, threshold, dense CRF."""

    def __init__(
        self,
        edges: str | Path | Edges | None = None,
        threshold: float = 0.3,
        walk_steps: int = 256,
        crf: CRF | None = CRF(),
        device: str = "cpu",
    ) -> None:
        """Set up the steps.

        Args:
            edges: the edge network, or its checkpoint; None leaves the random walk out.
            threshold: score of the background, in [0, 1].
            walk_steps: of the random walk.
            crf: None leaves the dense CRF out.
            device: that all steps compute on; an edge network that is given is there already.
        """
        if isinstance(edges, str | Path):
            checkpoints.check_file(Path(edges), "affinity")
            edges = Edges(Path(edges), device)
        self.edges, self.device = edges, device
        walk = None if edges is None else EdgeWalk("loaded", steps=walk_steps)
        self.recipe = PseudoLabels(Seed(threshold), walk, crf)

    @torch.inference_mode()
    def __call__(self, cams: PhotoCAMs) -> Refined:
        """Make the mask of one photograph."""
        result = self.recipe(cams.cam, cams.image, self.edges, self.device)
        return Refined(cams.image, result.steps, _named(result.soft, list(cams.probabilities)))


def read(photo: Photograph) -> np.ndarray:
    """Return a photograph as RGB, (H, W, 3) uint8."""
    if isinstance(photo, str | Path):
        return read_image(Path(photo))
    image = rgb(ImageOps.exif_transpose(photo)) if isinstance(photo, Image.Image) else np.array(photo)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise InputError(f"the photograph is an array {image.shape} of {image.dtype}; expected (H, W, 3) of uint8")
    return image


def iou(label: np.ndarray, truth: np.ndarray, class_names: Sequence[str]) -> dict[str, float]:
    """Return the IoU of each class that a label map or its truth shows, the background's and the ``mean`` of all.

    Args:
        label: mask values, (H, W).
        truth: likewise; ``IGNORE`` is left out.
        class_names: of the foreground.
    """
    predicted, target = (torch.from_numpy(np.array(x)) for x in (label, truth))
    found = scores(confusion(predicted, target, 1 + len(class_names)))
    named = zip(("background", *class_names), found["iou"].tolist(), strict=True)
    return {name: value for name, value in named if value == value} | {"mean": found["miou"].item()}
