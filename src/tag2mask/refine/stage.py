"""The stage that turns a folder of CAM files into a folder of label PNGs, on all cores, resumably and in shards."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from tag2mask.classes import IGNORE
from tag2mask.errors import InputError
from tag2mask.io import disk, folders, provenance
from tag2mask.io.cams import CAMs, read_cam, write_cam
from tag2mask.io.files import read_json, remove_parts
from tag2mask.io.images import read_image, read_note, read_size, sizes_hint
from tag2mask.io.labels import write_label
from tag2mask.io.records import RUN_FILE, STEPS
from tag2mask.refine.recipes import EdgeFinder, Recipe, Result
from tag2mask.utils.processes import one_thread, spread

SOFT = "soft"
MARK = "tag2mask labels, from"
"""How the note of a label PNG begins."""


@dataclass(frozen=True)
class Job:
    """What is made from what.

    Attributes:
        cams: folder of CAM files.
        photos: folder of the photographs; None where the recipe needs none.
        out: folder of the label PNGs.
        recipe: how a label map is made.
        soft: also write the CAM that each label was cut from, as a CAM file, into ``out/soft``.
        steps: also write the label map after each step before the last, into ``out/steps/<step>``.
    """

    cams: Path
    photos: Path | None
    out: Path
    recipe: Recipe
    soft: bool = False
    steps: bool = False

    def outputs(self, name: str) -> dict[str, Path]:
        """Return the files of one photograph: step names and ``soft``, the label itself (the last step) last."""
        names = self.recipe.step_names
        paths = {step: self.out / STEPS / step / f"{name}.png" for step in names[:-1]} if self.steps else {}
        if self.soft:
            paths[SOFT] = self.out / SOFT / f"{name}.npz"
        return {**paths, names[-1]: self.out / f"{name}.png"}

    def expected_bytes(self, name: str) -> list[float]:
        """Estimate the sizes of these files; none where the CAM file cannot be read, which is said in its turn."""
        path = self.cams / f"{name}.npz"
        try:
            height, width = read_cam(path).size
        except InputError:
            return []
        label = disk.label_bytes(height, width)
        return [path.stat().st_size if key == SOFT else label for key in self.outputs(name)]


class Made(NamedTuple):
    """What a label PNG says of itself.

    Attributes:
        cam: of the CAM file that it was made from, `io.provenance.of_cam`.
        vanished: mask values of the tags that have no pixel in it.
        tags: how many there are.
    """

    cam: str
    vanished: tuple[int, ...]
    tags: int

    def note(self) -> str:
        """Return the note that the label PNG carries."""
        return f"{MARK} {self.cam}; {self.tags} tags, without a pixel: {' '.join(map(str, self.vanished)) or 'none'}"


def made_of(path: Path) -> Made | None:
    """Read what a label PNG says of itself; None where it says nothing."""
    found = re.fullmatch(rf"{MARK} (.+); (\d+) tags, without a pixel: ([\d ]+|none)", read_note(path) or "")
    if found is None:
        return None
    vanished = () if found[3] == "none" else tuple(map(int, found[3].split()))
    return Made(found[1], vanished, int(found[2]))


def stale(job: Job, names: Sequence[str]) -> list[str]:
    """Return the photographs whose label was made from another CAM file than there is now."""
    found = []
    for name in names:
        made = made_of(job.out / f"{name}.png") if (job.out / f"{name}.png").is_file() else None
        if made is not None and made.cam != provenance.of_cam(job.cams / f"{name}.npz"):
            found.append(name)
    return found


def cam_names(cams: Path, listed: Path | None = None) -> list[str]:
    """Return the names of the CAM files, sorted; or of those on a list of photographs, of which each must have one."""
    there = folders.files_in(cams, folders.CAM_ENDINGS)
    if not there:
        raise InputError(f"no CAM files in {cams}; make them with `tag2mask predict`")
    names = sorted(there) if listed is None else folders.read_list(listed)
    missing = [name for name in names if name not in there]
    if missing or not names:
        raise InputError(
            f"{len(missing)} of {len(names)} names in {listed} have no CAM file in {cams}"
            + (f", the first {missing[0]}" if missing else "")
            + "; make them with `tag2mask predict`, or shorten the list"
        )
    return [there[name].stem for name in names]


def shard(names: Sequence[str], index: int, count: int) -> list[str]:
    """Return the share ``index`` (1 to ``count``) of ``names``: every ``count``-th."""
    if not 1 <= index <= count:
        raise InputError(f"shard {index}/{count}; expected 1/{count} to {count}/{count}")
    return list(names[index - 1 :: count])


def remaining(job: Job, names: Sequence[str]) -> list[str]:
    """Return the photographs whose label is not there yet; remove what a killed process left half-written."""
    if not job.out.is_dir():
        return list(names)
    own = set(names)
    for folder in {path.parent for name in names[:1] for path in job.outputs(name).values()}:
        remove_parts(folder, own)
    done = {path.stem for path in job.out.glob("*.png")}
    return [name for name in names if name not in done]


def make_labels(
    job: Job,
    names: Sequence[str],
    load_edges: Callable[[str], EdgeFinder] | None = None,
    workers: int = 1,
    device: str = "cpu",
) -> Iterator[tuple[str, str | None]]:
    """Make the labels of ``names``, in any order.

    Args:
        job: what is made from what.
        names: photographs to do.
        load_edges: loads the edge network to a device, in each process; needed where the recipe walks.
        workers: processes.
        device: that torch computes on.

    Yields:
        The name of each photograph as it is done, and what was wrong with its files, or None.
    """
    if workers <= 1:
        worker = _Worker(job, load_edges, device)
        with one_thread():  # as the processes of a pool: the same files, bit by bit
            for name in names:
                yield name, worker(name)
        return
    yield from spread(_work, names, min(workers, len(names) or 1), _start, (job, load_edges, device))


def _classes_of(cams: Path) -> int:
    """Return how many classes the CAM files of a folder are of, or the most there can be where nothing says."""
    record = cams / RUN_FILE
    known = read_json(record).get("config", {}).get("classes") if record.is_file() else None
    return len(known) if known else IGNORE - 1


class _Worker:
    """Makes the files of one photograph after another."""

    def __init__(self, job: Job, load_edges: Callable[[str], EdgeFinder] | None, device: str) -> None:
        self.job, self.device = job, device
        self.edges = load_edges(device) if load_edges is not None and job.recipe.walk is not None else None
        self.photos = {} if job.photos is None else folders.photos_in(job.photos)
        self.highest = _classes_of(job.cams)

    @torch.inference_mode()
    def __call__(self, name: str) -> str | None:
        """Write the files of one photograph; return what was wrong with what it is made from."""
        try:
            cam = self._cam(self.job.cams / f"{name}.npz")
            image = self._photo(name, cam)
        except InputError as error:
            return str(error)
        self._write(name, cam, self.job.recipe(cam, image, self.edges, self.device))
        return None

    def _cam(self, path: Path) -> CAMs:
        cam = read_cam(path)
        if (highest := max(cam.classes.tolist(), default=0)) > self.highest:
            raise InputError(
                f"{path} holds the class {highest} of {self.highest} that {RUN_FILE} beside it names; "
                "delete it and run `tag2mask predict` again"
            )
        return cam

    def _photo(self, name: str, cam: CAMs) -> np.ndarray | None:
        """Read the photograph, if the recipe needs it; else compare its size alone, where there is one."""
        path, needed = self.photos.get(folders.unified(name)), self.job.recipe.needs_photo
        if path is None and needed:
            near = folders.near_photo(self.job.photos, name) if self.job.photos else ""
            expected = f"; expected {name}.jpg, .png or the like: name its folder"
            raise InputError(f"no photograph {name} in {self.job.photos}{near or expected}")
        if path is None:
            return None
        image = read_image(path) if needed else None
        size = read_size(path) if image is None else image.shape[:2]
        wanted = cam.size
        if size != wanted:
            raise InputError(
                f"the CAM file of {name} is of a photograph of {cam.size[0]} x {cam.size[1]} pixels (height x width), "
                f"the one in {self.job.photos} has {size[0]} x {size[1]}; "
                f"{sizes_hint(path, size, wanted)}"
            )
        return image

    def _write(self, name: str, cam: CAMs, result: Result) -> None:
        *before, last = self.job.outputs(name).items()
        for key, path in before:
            if key == SOFT:
                write_cam(path, result.soft)
            else:
                write_label(path, result.steps[key])
        label = result.steps[last[0]]
        vanished = np.setdiff1d(cam.classes.numpy(), np.unique(label)).tolist()
        made = Made(provenance.of_cam(self.job.cams / f"{name}.npz"), tuple(vanished), len(cam.classes))
        write_label(last[1], label, made.note())


_worker: _Worker | None = None


def _start(job: Job, load_edges: Callable[[str], EdgeFinder] | None, device: str) -> None:
    """Make a process ready."""
    global _worker
    torch.set_num_threads(1)  # the processes are the parallelism
    _worker = _Worker(job, load_edges, device)


def _work(name: str) -> tuple[str, str | None]:
    assert _worker is not None
    return name, _worker(name)
