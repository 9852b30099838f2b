"""CAMs (h, w) and masks of photographs (H, W) from checkpoints alone, and what guides their random walk."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from tag2mask.classes import BACKGROUND
from tag2mask.data.transforms import EvaluationTransform, Preprocessing
from tag2mask.errors import MissingError, SettingError
from tag2mask.io.cams import CAMs
from tag2mask.io.images import read_image, rgb
from tag2mask.io.labels import write_label
from tag2mask.io.provenance import LAST, record_of
from tag2mask.metrics.functional import at_full_size, confusion, scores
from tag2mask.models.attention import Attention
from tag2mask.models.cam import captured, part, scale_to_one, two_steps
from tag2mask.models.edges import edge_map
from tag2mask.models.tiling import untile
from tag2mask.refine.dense_crf import CRF
from tag2mask.refine.recipes import EdgeWalk, FeatureWalk, Guide, PseudoLabels, Seed, Walk
from tag2mask.tasks import checkpoints
from tag2mask.tasks.affinity import AffinityTask
from tag2mask.tasks.cam import CAMTask
from tag2mask.tasks.settings import CAMInference, Tiles
from tag2mask.viz import plots

Photograph = str | Path | Image.Image | np.ndarray  # a path, a PIL image of any mode, or an array (H, W, 3) uint8


@dataclass(frozen=True)
class PhotoCAMs:
    """A photograph ``image`` (H, W, 3) uint8, its ``cams``, and the probability of every class by its name."""

    image: np.ndarray
    cams: CAMs
    probabilities: dict[str, float]

    @property
    def maps(self) -> dict[str, np.ndarray]:
        """Class name -> CAM in [0, 1], (h, w) float32; it covers the whole photograph."""
        names = [list(self.probabilities)[value - 1] for value in self.cams.classes.tolist()]
        return dict(zip(names, self.cams.cam.numpy(), strict=True))

    def label(self, threshold: float = 0.3) -> np.ndarray:
        """Return the mask values of the strongest classes where they are above a threshold, (H, W) uint8."""
        score, winner = at_full_size(self.cams.cam, self.cams.classes, self.cams.size)
        return torch.where(score > threshold, winner, BACKGROUND).numpy().astype(np.uint8)


@dataclass(frozen=True)
class Branches:
    """What both branches make of one photograph."""

    scores: dict[str, np.ndarray]  # class -> maps before ReLU, (3, h, w): whole image, tiles, tiles after attention
    entropy: float  # of the attention, in [0, 1]: 0 where each position looks at itself only, 1 where at all alike
    guide: Tensor  # what the affinity is made of: the features of each tile, (T, D, M, N), or of all, (1, D, h, w)
    settings: Attention

    def maps(self, name: str) -> dict[str, np.ndarray]:
        """Return the three maps of a class as CAMs: cut at zero and divided by their maxima, in [0, 1]."""
        cams = scale_to_one(torch.from_numpy(self.scores[name]).relu()).numpy()
        return dict(zip(("whole image", "tiles", "tiles after attention"), cams, strict=True))

    def attention(self, x: float, y: float) -> np.ndarray:
        """Return the affinity (Eq. 4) of a point, in shares of the sides, to all, (h, w): sum 1, 0 outside its tile."""
        if not (0 <= x <= 1 and 0 <= y <= 1):
            raise SettingError(f"the point lies at {x}, {y} of the photograph's sides; expected shares from 0 to 1")
        count, _, height, width = self.guide.shape
        grid = round(count**0.5)
        row, column = min(int(y * grid * height), grid * height - 1), min(int(x * grid * width), grid * width - 1)
        tile, position = row // height * grid + column // width, row % height * width + column % width
        one_hot = torch.eye(height * width).view(1, -1, height, width)  # a CAM for each position, 1 there alone
        spread, _ = self.settings.refine(self.guide[tile : tile + 1], one_hot)
        weights = torch.zeros(count, 1, height, width)
        weights[tile, 0] = spread[0].flatten(1)[:, position].view(height, width)
        return untile(weights, grid)[0, 0].numpy()


class CAMMaker:
    """A trained CAM network, ready for photographs."""

    def __init__(self, checkpoint: str | Path, device: str = "cpu", inference: CAMInference | None = None) -> None:
        """Load the network of a checkpoint of `CAMTask`; ``inference`` None is that of the training's configuration."""
        self.task = checkpoints.load(CAMTask, checkpoint, device)
        self.preprocessing = Preprocessing(**self.task.preprocessing)
        self.transform = EvaluationTransform(self.preprocessing)
        self.class_names, self.inference = self.task.class_names, inference or self.task.inference

    @torch.inference_mode()
    def __call__(self, photo: Photograph, tags: Sequence[str | int] | None = None) -> PhotoCAMs:
        """Make the CAMs of tags, names or mask values; None takes those that the network predicts."""
        image = read(photo)
        label = torch.full((1, len(self.class_names)), -1.0 if tags is None else 0.0, device=self.task.device)
        for tag in [tags] if isinstance(tags, str) else tags or ():
            value = 1 + self.class_names.index(tag) if tag in self.class_names else tag
            if not isinstance(value, int) or not 1 <= value <= len(self.class_names):
                raise SettingError(f"unknown tag {tag!r}; the network's classes are {', '.join(self.class_names)}")
            label[0, value - 1] = 1
        cams, scores, _ = self.task.cams(self.pixels(image), label, torch.tensor([image.shape[:2]]), self.inference)
        cams = CAMs(cams.cam.float().cpu(), cams.classes.cpu(), cams.size)
        return PhotoCAMs(image, cams, dict(zip(self.class_names, scores.sigmoid().tolist(), strict=True)))

    @torch.inference_mode()
    def branches(self, photo: Photograph) -> Branches:
        """Run both branches, at a size of which the tiles are whole, without scales and flips."""
        tiles, net = self.task.tiles or Tiles(min_side=0, attention=None, refined="all", moves="network"), self.task.net
        image = self.pixels(read(photo), tiles.grid * net.stride)
        of_cams = self.task.inference.attention  # for a training without: over the whole image; else the defaults
        if of_cams and of_cams.kernel != "network":  # which does not reach from tile to tile
            of_cams = replace(of_cams, region="image")
        settings = tiles.attention or of_cams or Attention()
        how = tiles.min_side, tiles.refined
        plain, attended = (two_steps(net, image, tiles.grid, each, *how) for each in (None, settings))
        maps = torch.cat([plain.full, plain.tiled, attended.target]).transpose(0, 1).float().cpu().numpy()
        scores = dict(zip(self.class_names, maps, strict=True))
        guide = untile(attended.guide, tiles.grid) if settings.region == "image" else attended.guide
        assert attended.entropy is not None
        return Branches(scores, attended.entropy.item(), guide.float().cpu(), settings)

    def pixels(self, image: np.ndarray, unit: int = 1, mode: str = "bicubic") -> Tensor:
        """Return the network's input, (1, 3, h, w), scaled so that its sides are multiples of ``unit``."""
        pixels = self.transform(image)[None].to(self.task.device)
        sides = [max(1, round(side / unit)) * unit for side in pixels.shape[-2:]]
        return pixels if unit == 1 else F.interpolate(pixels, sides, mode=mode, align_corners=False)


class Edges:
    """A trained edge network, ready for photographs: (H, W, 3) uint8 -> edge map (H / 4, W / 4) in [0, 1]."""

    def __init__(self, checkpoint: Path, device: str = "cpu") -> None:
        task = checkpoints.load(AffinityTask, checkpoint, device)
        self.net, trained = task.net, task.preprocessing
        self.mean, self.std = (torch.tensor(trained[key], device=device)[:, None, None] for key in ("mean", "std"))

    def __call__(self, image: np.ndarray) -> Tensor:
        """Return the boundaries of one photograph, on the device of the network."""
        pixels = torch.from_numpy(image).to(self.mean.device).permute(2, 0, 1).float() / 255
        return edge_map(self.net, (pixels - self.mean) / self.std)


class Features:
    """Layers of a trained CAM network, ready for photographs: (H, W, 3) uint8 -> features (D, h, w).

    Features of several layers are put together, at the size of the last layer.
    """

    def __init__(self, checkpoint: Path, layers: Sequence[str], device: str = "cpu") -> None:
        self.maker, self.layers = CAMMaker(checkpoint, device), layers
        for layer in layers:
            part(self.maker.task.net.backbone, layer)  # refuses a layer that it does not have

    def __call__(self, image: np.ndarray) -> Tensor:
        """Return the features of one photograph, resized so that the map of every layer covers exactly all of it."""
        net = self.maker.task.net
        pixels = self.maker.pixels(image, net.stride, "bilinear")
        height, width = pixels.shape[-2:]
        with torch.no_grad(), ExitStack() as stack:
            maps = [stack.enter_context(captured(net.backbone, each, (height, width))) for each in self.layers]
            net(pixels)
        rows, columns = maps[-1][0].shape[-2:]
        return torch.cat([F.adaptive_avg_pool2d(each[0][0].float(), (rows, columns)) for each in maps])


def load_guide(walk: Walk, device: str) -> Guide:
    """Load the network that a walk names, to a device."""
    checkpoint = Path(walk.checkpoint or "")
    return Features(checkpoint, [walk.layer], device) if isinstance(walk, FeatureWalk) else Edges(checkpoint, device)


@dataclass(frozen=True)
class Mask:
    """A photograph (H, W, 3), its label maps (H, W) after ``seed``, ``walk``, ``crf``, and by class the walked CAMs."""

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


@dataclass
class Refiner:
    """Turns the CAMs of a photograph into its mask: random walk, threshold, dense CRF.

    ``edges`` is the edge network on the ``device``, or its checkpoint; None leaves the walk out, ``crf`` None the CRF.
    """

    edges: str | Path | Edges | None = None
    threshold: float = 0.3  # the score of the background, in [0, 1]
    walk_steps: int = 256
    crf: CRF | None = CRF()
    device: str = "cpu"

    def __post_init__(self) -> None:
        self.guide = Edges(Path(self.edges), self.device) if isinstance(self.edges, str | Path) else self.edges
        walk = None if self.edges is None else EdgeWalk("loaded", steps=self.walk_steps)
        self.recipe = PseudoLabels(Seed(self.threshold), walk, self.crf)

    @torch.inference_mode()
    def __call__(self, photo: PhotoCAMs) -> Mask:
        """Make the mask of one photograph."""
        result = self.recipe(photo.cams, photo.image, self.guide, self.device)
        return Mask(photo.image, result.steps, replace(photo, cams=result.soft).maps)


def cam_runs(folder: str | Path) -> dict[str, Path]:
    """Return name -> last checkpoint of each run of a CAM network in a folder; raises where there is none."""
    lasts = {path.parents[1]: path for path in sorted(Path(folder).glob(f"*/{LAST}"))}
    models = {run: record_of(run).get("config", {}).get("model") or {} for run in lasts}
    runs = {run.name: lasts[run] for run, model in models.items() if str(model.get("class_path")).endswith(".CAMTask")}
    if not runs:
        raise MissingError(f"no run of a CAM network in {folder}; train one with `tag2mask fit`, or name another")
    return runs


def read(photo: Photograph) -> np.ndarray:
    """Return a photograph as RGB, (H, W, 3) uint8."""
    if isinstance(photo, str | Path):
        return read_image(Path(photo))
    image = rgb(ImageOps.exif_transpose(photo)) if isinstance(photo, Image.Image) else np.array(photo)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise SettingError(f"the photograph is an array {image.shape} of {image.dtype}; expected (H, W, 3) of uint8")
    return image


def iou(label: np.ndarray, truth: np.ndarray, class_names: Sequence[str]) -> dict[str, float]:
    """Return the IoU of each class that a label map (H, W) or its truth shows, and the ``mean``; see `scores`."""
    scored = scores(confusion(torch.tensor(label), torch.tensor(truth), 1 + len(class_names)))
    named = zip(("background", *class_names), scored["iou"].tolist(), strict=True)
    return {name: value for name, value in named if value == value} | {"mean": scored["miou"].item()}
