"""Masks of photographs (H, W) from a checkpoint of a segmentation network: no tags, no data set; and their files."""

import hashlib
import itertools
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tag2mask.classes import BACKGROUND
from tag2mask.data.transforms import EvaluationTransform, Preprocessing
from tag2mask.errors import InputError, MissingError, OccupiedError, SpaceError
from tag2mask.io import folders
from tag2mask.io.images import read_image, read_note, write_jpeg
from tag2mask.io.labels import write_label
from tag2mask.models.segmentation import class_probabilities, label_map
from tag2mask.refine.dense_crf import CRF
from tag2mask.tasks import checkpoints
from tag2mask.tasks.segmentation import SegmentationTask
from tag2mask.tasks.settings import MaskInference
from tag2mask.viz import plots

ANIMALS = Path(__file__).parents[1] / "weights" / "animals_lite0.safetensors"  # in a checkout a link to weights/
MARK = "tag2mask segment"  # with which a note in our files begins
Shares = dict[str, tuple[float, float]]
"""Class name -> share of the pixels, and mean probability over them; largest first, without the background."""


class Segmenter:
    """A trained segmentation network, ready for photographs."""

    def __init__(
        self,
        checkpoint: str | Path = ANIMALS,
        device: str = "cpu",
        inference: MaskInference | None = MaskInference(scales=(1.0,), flip=False),
        crf: CRF | None = None,
        max_side: int | None = None,
    ) -> None:
        """Load the network of a checkpoint of `SegmentationTask`; ``crf`` works on the probabilities.

        Without ``checkpoint``, the network is that of weights/animals_lite0.md: cats, dogs, horses and so on.

        ``inference`` None is that of the training's configuration.
        Photographs of a longer side than ``max_side`` pixels are shrunk for it; None is the side of the training's
        evaluation, or else of the largest of its images.
        """
        task = checkpoints.load(SegmentationTask, checkpoint, device)
        trained = Preprocessing(**task.preprocessing)
        self.preprocessing = replace(trained, max_side=max_side or trained.max_side or max(trained.long_side))
        self.transform = EvaluationTransform(self.preprocessing)
        self.net, self.class_names = task.net, task.class_names
        self.device, self.inference, self.crf = device, inference or task.inference, crf

    @torch.inference_mode()
    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, Shares]:
        """Return the mask values of a photograph (H, W, 3) uint8, (H, W) uint8, and the share of each class."""
        pixels = self.transform(image)
        probabilities = self.probabilities(pixels)
        final = probabilities if self.crf is None else self.crf.sharpen(self.preprocessing.undo(pixels), probabilities)
        shares = class_shares(final.argmax(0), probabilities)
        named = {self.class_names[value - 1]: share for value, share in shares.items()}
        return label_map(final, image.shape[:2]).cpu().numpy(), named

    def probabilities(self, pixels: Tensor) -> Tensor:
        """Return the probability of each class at each pixel, (G, h, w), of a transformed photograph (3, h, w)."""
        return class_probabilities(self.net, pixels.to(self.device), self.inference.scales, self.inference.flip)


def class_shares(label: Tensor, probabilities: Tensor) -> dict[int, tuple[float, float]]:
    """Return `Shares` by mask value, of a label map (h, w) int64 and the probabilities (classes, h, w)."""
    own = probabilities.gather(0, label[None])[0].double()
    counts = zip(*(x.tolist() for x in label.unique(return_counts=True)), strict=True)
    shares = {v: (count / label.numel(), own[label == v].mean().item()) for v, count in counts if v != BACKGROUND}
    return dict(sorted(shares.items(), key=lambda item: item[1][0], reverse=True))


def find_photos(paths: Iterable[Path], out: Path) -> list[Path]:
    """Return the photographs among files and in folders, each once, without pictures that we wrote into ``out``."""
    photos: dict[Path, Path] = {}
    for path in paths:
        if not path.exists():
            near = folders.near_photo(path.parent, path.name)
            raise MissingError(f"no photograph or folder {path}{near or '; give photographs, or a folder of them'}")
        inside = folders.paths_in(path, folders.PHOTO_ENDINGS) if path.is_dir() else [path]
        if not inside:
            endings = ", ".join(folders.PHOTO_ENDINGS)
            raise MissingError(f"no photographs in {path}; expected {endings} in it; give folders within it by name")
        if out.resolve() == inside[0].parent.resolve():
            inside = [photo for photo in inside if not (read_note(photo) or "").startswith(MARK)]
        photos |= {photo.resolve(): photo for photo in inside}
    if not photos:
        raise MissingError(f"all files given were written by `tag2mask segment` into {out}; give photographs")
    return list(photos.values())


def outputs(photos: Sequence[Path], out: Path, overlay: bool) -> dict[Path, list[Path]]:
    """Return the files of each photograph: ``out/NAME.png``, the mask, and ``out/NAME_overlay.jpg`` if wanted.

    NAME is its stem, with ending or number where another one has that stem, in whatever case: some disks ignore it.
    """
    endings = [".png", "_overlay.jpg"] if overlay else [".png"]
    taken, files = Counter(photo.stem.casefold() for photo in photos), {}
    for photo in photos:
        name = photo.stem
        if taken[name.casefold()] > 1:
            long = f"{name}_{photo.suffix[1:]}"
            numbered = itertools.chain([long], (f"{long}_{number}" for number in itertools.count(2)))
            name = next(one for one in numbered if one.casefold() not in taken)
            taken[name.casefold()] = 1
        files[photo] = [out / f"{name}{ending}" for ending in endings]
    return files


def check_outputs(targets: Mapping[Path, Sequence[Path]], overwrite: bool) -> None:
    """Refuse to replace a file that is not ours, or, without ``overwrite``, the mask of another photograph."""
    for photo, path in ((photo, path) for photo, paths in targets.items() for path in paths if path.exists()):
        note = read_note(path) or ""
        if not note.startswith(MARK):
            raise OccupiedError(f"{path} is no file of `tag2mask segment`; name another --out for {photo}")
        if note != _mark(photo) and not overwrite:
            raise OccupiedError(f"{path} is of another photograph than {photo}; give another --out, or --overwrite")


def _mark(photo: Path) -> str:
    """Return the note in the outputs of a photograph: its name, and a digest of where it lies."""
    digest = hashlib.blake2b(str(photo.resolve()).encode(errors="surrogateescape"), digest_size=6).hexdigest()
    return f"{MARK}: {printable(photo.name)} {digest}"


def printable(name: object) -> str:
    """Return a file name as text that can be printed, whatever bytes it is made of."""
    return str(name).encode(errors="backslashreplace").decode()


def segment_all(
    segmenter: Segmenter, targets: Mapping[Path, Sequence[Path]]
) -> Iterator[tuple[Path, Shares | InputError]]:
    """Write mask and overlay of each photograph; yield the shares of its classes, or why it was left out."""
    for (photo, paths), coming in zip(targets.items(), ahead(read_image, targets), strict=True):
        result: Shares | InputError
        try:
            image = coming.result()
            label, result = segmenter(image)
            write_label(paths[0], label, _mark(photo))
            for path in paths[1:]:  # the overlay
                small = plots.fit(image, 1600)  # pixels of the longer side
                fitted = Image.fromarray(label).resize(small.shape[1::-1], Image.Resampling.NEAREST)
                write_jpeg(path, plots.overlay(small, np.asarray(fitted)), _mark(photo))
        except InputError as error:
            result = error
        except MemoryError:
            result = SpaceError(f"{photo} does not fit into memory; shrink it first")
        except torch.OutOfMemoryError:
            result = SpaceError(f"{photo} does not fit on the GPU; lower --max-side, or give --device cpu")
        yield photo, result


def ahead(read: Callable[[Path], Any], photos: Iterable[Path], count: int = 2) -> Iterator[Future[Any]]:
    """Read photographs in order, in a thread that is at most ``count`` of them ahead."""
    left = iter(photos)
    with ThreadPoolExecutor(1) as pool:
        waiting = deque(pool.submit(read, photo) for photo in itertools.islice(left, count + 1))
        while waiting:
            yield waiting.popleft()
            waiting.extend(pool.submit(read, photo) for photo in itertools.islice(left, 1))
