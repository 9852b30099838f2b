"""The stage that turns a folder of CAM files into a folder of label PNGs, on all cores, resumably and in shards."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from tag2mask import disk, files
from tag2mask.errors import InputError
from tag2mask.processes import spread
from tag2mask.refine.recipes import EdgeFinder, Recipe, Result
from tag2mask.threads import one_thread

SOFT = "soft"


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
        paths = {step: self.out / files.STEPS / step / f"{name}.png" for step in names[:-1]} if self.steps else {}
        if self.soft:
            paths[SOFT] = self.out / SOFT / f"{name}.npz"
        return {**paths, names[-1]: self.out / f"{name}.png"}

    def expected_bytes(self, name: str) -> list[float]:
        """Estimate the sizes of these files; none where the CAM file cannot be read, which is said in its turn."""
        path = self.cams / f"{name}.npz"
        try:
            height, width = map(int, files.read_cam(path).size)
        except InputError:
            return []
        label = disk.label_bytes(height, width)
        return [path.stat().st_size if key == SOFT else label for key in self.outputs(name)]


def cam_names(cams: Path, listed: Path | None = None) -> list[str]:
    """Return the photographs with a CAM file, sorted; or those of a list, of which each must have one."""
    there = {path.stem for path in cams.glob("*.npz")} if cams.is_dir() else set()
    if not there:
        raise InputError(f"no CAM files in {cams}; make them with `tag2mask predict`")
    if listed is None:
        return sorted(there)
    if not listed.is_file():
        raise InputError(f"no list {listed}; expected names of photographs, one a line")
    names = list(dict.fromkeys(files.read_text(listed).split()))
    missing = [name for name in names if name not in there]
    if missing or not names:
        raise InputError(
            f"{len(missing)} of {len(names)} names in {listed} have no CAM file in {cams}"
            + (f", the first {missing[0]}" if missing else "")
            + "; make them with `tag2mask predict`, or shorten the list"
        )
    return names


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
        files.remove_parts(folder, own)
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


class _Worker:
    """Makes the files of one photograph after another."""

    def __init__(self, job: Job, load_edges: Callable[[str], EdgeFinder] | None, device: str) -> None:
        self.job, self.device = job, device
        self.edges = load_edges(device) if load_edges is not None and job.recipe.walk is not None else None

    @torch.inference_mode()
    def __call__(self, name: str) -> str | None:
        """Write the files of one photograph; return what was wrong with what it is made from."""
        try:
            cam = files.read_cam(self.job.cams / f"{name}.npz")
            image = self._photo(name, cam) if self.job.recipe.needs_photo else None
        except InputError as error:
            return str(error)
        self._write(name, self.job.recipe(cam, image, self.edges, self.device))
        return None

    def _photo(self, name: str, cam: files.CAM) -> np.ndarray:
        assert self.job.photos is not None
        path = files.find_photo(self.job.photos, name)
        if path is None:
            near = files.near_photo(self.job.photos, name)
            expected = f"; expected {name}.jpg, .png or the like: name its folder"
            raise InputError(f"no photograph {name} in {self.job.photos}{near or expected}")
        image = files.read_image(path)
        if image.shape[:2] != tuple(cam.size):
            raise InputError(
                f"the CAM file of {name} is of a photograph of {cam.size[0]} x {cam.size[1]} pixels (height x width), "
                f"the one in {self.job.photos} has {image.shape[0]} x {image.shape[1]}; "
                f"{files.sizes_hint(path, image.shape[:2], tuple(map(int, cam.size)))}"
            )
        return image

    def _write(self, name: str, result: Result) -> None:
        for key, path in self.job.outputs(name).items():
            if key == SOFT:
                files.write_cam(path, result.soft)
            else:
                files.write_label(path, result.steps[key])


_worker: _Worker | None = None


def _start(job: Job, load_edges: Callable[[str], EdgeFinder] | None, device: str) -> None:
    """Make a process ready."""
    global _worker
    torch.set_num_threads(1)  # the processes are the parallelism
    _worker = _Worker(job, load_edges, device)


def _work(name: str) -> tuple[str, str | None]:
    assert _worker is not None
    return name, _worker(name)
