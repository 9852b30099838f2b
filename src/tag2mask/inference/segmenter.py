"""Masks for anybody's photographs, from a checkpoint alone: no tags, no data set.

Shape letters in this file: G classes with the background, H x W the photograph, h x w what the network sees of it.
"""

import hashlib
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tag2mask.data.transforms import EvaluationTransform, Preprocessing
from tag2mask.errors import InputError
from tag2mask.io import folders
from tag2mask.io.images import read_image, read_note, write_jpeg
from tag2mask.io.labels import write_label
from tag2mask.models.segmentation import class_probabilities, label_map
from tag2mask.refine.dense_crf import CRF
from tag2mask.tasks import checkpoints
from tag2mask.tasks.segmentation import MaskInference, SegmentationTask
from tag2mask.viz import plots

MARK = "tag2mask segment"
OVERLAY_SIDE = 1600
"""Longer side of an overlay, in pixels; larger photographs are shrunk for it."""
ONCE = MaskInference(scales=(1.0,), flip=False)


class Found(NamedTuple):
    """What is in a photograph.

    Attributes:
        label: mask values, (H, W) uint8.
        shares: class name -> (share of the pixels, mean of the network's probability over them), largest first; without
            the background. Both are counted at the size that the network saw.
    """

    label: np.ndarray
    shares: dict[str, tuple[float, float]]


class Segmenter:
    """A trained segmentation network, ready for photographs."""

    def __init__(
        self,
        checkpoint: Path,
        device: str = "cpu",
        inference: MaskInference = ONCE,
        crf: CRF | None = None,
        max_side: int | None = None,
    ) -> None:
        """Load the network of a checkpoint of `SegmentationTask` and the normalisation that it was trained with.

        Args:
            checkpoint: written by `tag2mask fit`.
            device: of the network.
            inference: scales and flips.
            crf: dense CRF over the probabilities; None leaves it out.
            max_side: longer side, in pixels, to which larger photographs are shrunk for the network. None takes that
                of the training's evaluation, or else the largest side of its training images.
        """
        how = Preprocessing(**checkpoints.preprocessing(checkpoint))
        self.how = replace(how, max_side=max_side or how.max_side or max(how.long_side))
        self.transform = EvaluationTransform(self.how)
        task = SegmentationTask.load_from_checkpoint(checkpoint, map_location="cpu", weights_only=True)
        self.class_names, self.inference, self.crf = task.class_names, inference, crf
        self.device = torch.device(device)
        self.net = task.net.to(self.device).eval()

    def __call__(self, image: np.ndarray) -> Found:
        """Return what is in a photograph (H, W, 3) uint8."""
        return self.find(self.transform(image), image.shape[:2])

    @torch.inference_mode()
    def find(self, image: Tensor, size: Sequence[int]) -> Found:
        """Return what is in a photograph of ``size`` (H, W), of which ``image`` (3, h, w) is the network's input."""
        how = self.inference
        before = class_probabilities(self.net, image.to(self.device), how.scales, how.flip)
        after = before
        if self.crf is not None:
            after = self.crf.sharpen(self.how.undo(image), before)
        shares = class_shares(after.argmax(0), before)
        named = {self.class_names[value - 1]: share for value, share in shares.items()}
        return Found(label_map(after, size).cpu().numpy(), named)


def class_shares(label: Tensor, probabilities: Tensor) -> dict[int, tuple[float, float]]:
    """Return mask value -> (share of the pixels, mean probability over them), largest first, no background.

    Args:
        label: (h, w) int64.
        probabilities: (G, h, w).
    """
    counts = torch.bincount(label.flatten(), minlength=len(probabilities))
    own = probabilities.gather(0, label[None]).flatten().double()
    sums = own.new_zeros(len(probabilities)).scatter_add_(0, label.flatten(), own)
    order = [value for value in counts.argsort(descending=True, stable=True).tolist() if value and counts[value]]
    return {v: (counts[v].item() / label.numel(), sums[v].item() / counts[v].item()) for v in order}


def find_photos(given: Iterable[Path], out: Path) -> list[Path]:
    """Return photographs named one by one and those that lie in named folders, each once; not what we wrote to ``out``.

    Raises:
        InputError: there is no such file or folder, or no photograph in it.
    """
    found: dict[Path, Path] = {}
    for path in given:
        if not path.exists():
            near = folders.near_photo(path.parent, path.name)
            raise InputError(f"no photograph or folder {path}{near or '; give photographs, or a folder of them'}")
        photos = _inside(path) if path.is_dir() else [path]
        ours = out.resolve() == photos[0].parent.resolve()
        found |= {photo.resolve(): photo for photo in photos if not (ours and _mark_of(photo))}
    if not found:
        raise InputError(f"all files given were written by `tag2mask segment` into {out}; give photographs")
    return list(found.values())


def _inside(folder: Path) -> list[Path]:
    photos = folders.paths_in(folder, folders.PHOTO_ENDINGS)
    if not photos:
        raise InputError(
            f"no photographs in {folder}; expected {', '.join(folders.PHOTO_ENDINGS)} files in the folder itself "
            "(folders within it are not searched: name them)"
        )
    return photos


def output_names(photos: Sequence[Path]) -> list[str]:
    """Return a name for the mask of each photograph: its stem, with ending or number where another one has that stem.

    Names differ in more than upper and lower case, for the sake of file systems that do not tell those apart.
    """
    stems = Counter(photo.stem.casefold() for photo in photos)
    names: dict[str, str] = {}
    for photo in photos:
        name = photo.stem
        if stems[name.casefold()] > 1:
            wanted = name = f"{photo.stem}_{photo.suffix[1:]}"
            number = 2
            while name.casefold() in names or name.casefold() in stems:
                name, number = f"{wanted}_{number}", number + 1
        names[name.casefold()] = name
    return list(names.values())


def outputs(out: Path, name: str, overlay: bool) -> list[Path]:
    """Return the files that are written for one photograph: mask, and overlay if wanted."""
    return [out / f"{name}.png", *([out / f"{name}_overlay.jpg"] if overlay else [])]


def check_outputs(photos: Sequence[Path], targets: Sequence[Sequence[Path]], overwrite: bool) -> None:
    """Refuse to replace a photograph, a file that is not ours, or, without ``overwrite``, another photograph's mask."""
    inputs = {photo.resolve() for photo in photos}
    for photo, paths in zip(photos, targets, strict=True):
        for path in paths:
            if not path.exists():
                continue
            mark = _mark_of(path)
            if path.resolve() in inputs:
                raise InputError(f"the mask of {photo} would replace a photograph; name another folder with --out")
            if mark is None:
                raise InputError(
                    f"{path} is not of `tag2mask segment` and stands where the mask of {photo} would; name another "
                    "folder with --out"
                )
            if mark != _mark(photo) and not overwrite:
                raise InputError(
                    f"{path} is the mask of another photograph than {photo}; name another folder with --out, or give "
                    "--overwrite"
                )


def _mark(photo: Path) -> str:
    """What is written into the outputs of a photograph: its name, and a digest of where it lies."""
    digest = hashlib.blake2b(str(photo.resolve()).encode(errors="surrogateescape"), digest_size=6).hexdigest()
    return f"{MARK}: {shown(photo.name)} {digest}"


def _mark_of(path: Path) -> str | None:
    note = read_note(path)
    return note if note and note.startswith(MARK) else None


def shown(name: object) -> str:
    """A file name as text that can be printed, whatever bytes it is made of."""
    return str(name).encode(errors="backslashreplace").decode()


class Loaded(NamedTuple):
    """A photograph on its way to the network.

    Attributes:
        image: the network's input, (3, h, w).
        size: H and W.
        small: what the overlay is drawn on, uint8; None where none is wanted.
    """

    image: Tensor
    size: tuple[int, int]
    small: np.ndarray | None


def load(path: Path, transform: Callable[[np.ndarray], Tensor], overlay: bool) -> Loaded | InputError:
    """Read a photograph; return the error where that fails."""
    try:
        image = read_image(path)
        height, width = image.shape[:2]
        return Loaded(transform(image), (height, width), _shrunk(image) if overlay else None)
    except MemoryError:
        return InputError(f"{path} does not fit into memory; shrink it first")
    except InputError as error:
        return error


def _shrunk(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    factor = OVERLAY_SIDE / max(height, width)
    if factor >= 1:
        return image
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))


def segment_all(
    segmenter: Segmenter, photos: Sequence[Path], targets: Sequence[Sequence[Path]]
) -> Iterator[tuple[Path, Found | InputError]]:
    """Write mask and overlay of each photograph; yield what is in it, or why it was left out.

    A thread reads a few photographs ahead, so that memory does not grow with their number.
    """

    def read(photo: Path) -> Loaded | InputError:
        return load(photo, segmenter.transform, overlay=len(targets[0]) > 1)

    for photo, paths, loaded in zip(photos, targets, ahead(read, photos), strict=True):
        if isinstance(loaded, InputError):
            yield photo, loaded
            continue
        try:
            found = segmenter.find(loaded.image, loaded.size)
        except torch.OutOfMemoryError:
            yield photo, InputError(f"{photo} does not fit on the GPU; lower --max-side, or give --device cpu")
            continue
        write_label(paths[0], found.label, _mark(photo))
        if loaded.small is not None:
            size = loaded.small.shape[1], loaded.small.shape[0]
            small = np.asarray(Image.fromarray(found.label).resize(size, Image.Resampling.NEAREST))
            write_jpeg(paths[1], plots.overlay(loaded.small, small), _mark(photo))
        yield photo, found


def ahead(
    read: Callable[[Path], Loaded | InputError], photos: Sequence[Path], count: int = 2
) -> Iterator[Loaded | InputError]:
    """Read photographs in order, in a thread that is at most ``count`` of them ahead."""
    with ThreadPoolExecutor(1) as pool:
        coming = iter(photos)
        waiting: deque[Future[Loaded | InputError]] = deque(pool.submit(read, path) for path in islice(coming, count))
        try:
            while waiting:
                loaded = waiting.popleft().result()
                waiting.extend(pool.submit(read, path) for path in islice(coming, 1))
                yield loaded
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
