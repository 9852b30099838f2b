"""The stage that turns a folder of CAM files into a folder of label PNGs, on all cores, resumably and in shards."""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from multiprocessing import get_context, parent_process
from pathlib import Path

import numpy as np
import torch

from tag2mask import files
from tag2mask.errors import InputError
from tag2mask.refine.recipes import EdgeFinder, Recipe, Result

PHOTO_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
STEPS, SOFT = "steps", "soft"


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


def cam_names(cams: Path, listed: Path | None = None) -> list[str]:
    """Return the photographs with a CAM file, sorted; or those of a list, of which each must have one."""
    there = {path.stem for path in cams.glob("*.npz")} if cams.is_dir() else set()
    if not there:
        raise InputError(f"no CAM files in {cams}; make them with `tag2mask predict`")
    if listed is None:
        return sorted(there)
    if not listed.is_file():
        raise InputError(f"no list {listed}; expected names of photographs, one a line")
    names = list(dict.fromkeys(listed.read_text(encoding="utf-8-sig").split()))
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
    for part in job.out.rglob(".*.part"):
        if part.name[1:].rsplit(".", 3)[0] in own:
            part.unlink(missing_ok=True)
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
        yield from _alone(_Worker(job, load_edges, device), names)
        return
    count = min(workers, len(names) or 1)
    with ProcessPoolExecutor(count, get_context("spawn"), _start, (job, load_edges, device)) as pool:
        try:
            yield from _as_completed(pool, iter(names), ahead=4 * workers)
        except BrokenProcessPool:
            raise InputError(
                "a process was killed, most likely for want of memory; give the same command with fewer --workers: it "
                "goes on where it stopped"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


def _alone(worker: "_Worker", names: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Work in this process, on one thread as the processes of a pool do: the same files, bit by bit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for name in names:
            yield name, worker(name)
    finally:
        torch.set_num_threads(threads)


def _as_completed(pool: ProcessPoolExecutor, names: Iterator[str], ahead: int) -> Iterator[tuple[str, str | None]]:
    """Hand out names a few ahead, so that a million of them need no million futures."""
    running: dict[Future[str | None], str] = {pool.submit(_work, name): name for name in islice(names, ahead)}
    while running:
        done, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            yield running.pop(future), future.result()
        running |= {pool.submit(_work, name): name for name in islice(names, len(done))}


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
        image = files.read_image(photo_path(self.job.photos, name))
        if image.shape[:2] != tuple(cam.size):
            raise InputError(
                f"the CAM file of {name} is of a photograph of {cam.size[0]} x {cam.size[1]} pixels (height x width), "
                f"the one in {self.job.photos} has {image.shape[0]} x {image.shape[1]}; they must be of one size"
            )
        return image

    def _write(self, name: str, result: Result) -> None:
        for key, path in self.job.outputs(name).items():
            if key == SOFT:
                files.write_cam(path, result.soft)
            else:
                files.write_label(path, result.steps[key])


def photo_path(folder: Path, name: str) -> Path:
    """Find the photograph of that name, whatever its ending."""
    for ending in PHOTO_ENDINGS:
        for path in (folder / f"{name}{ending}", folder / f"{name}{ending.upper()}"):
            if path.is_file():
                return path
    raise InputError(f"no photograph {name} in {folder}; expected {name}.jpg, .png or the like: name its folder")


_worker: _Worker | None = None


def _start(job: Job, load_edges: Callable[[str], EdgeFinder] | None, device: str) -> None:
    """Make a process ready; it must not outlive the one that started it."""
    global _worker
    threading.Thread(target=_die_with_parent, daemon=True).start()
    torch.set_num_threads(1)  # the processes are the parallelism
    _worker = _Worker(job, load_edges, device)


def _die_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(name: str) -> str | None:
    assert _worker is not None
    return _worker(name)
