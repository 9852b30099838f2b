"""The stage that turns a folder of CAM files into a folder of label PNGs, on all cores, resumably and in shards."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from tag2mask.classes import IGNORE
from tag2mask.errors import DamagedError, InputError, MismatchError, MissingError, SettingError
from tag2mask.io import disk, folders, provenance
from tag2mask.io.cams import CAMs, read_cam, write_cam
from tag2mask.io.files import remove_parts
from tag2mask.io.images import read_image, read_note, read_size, sizes_hint, write_picture
from tag2mask.io.labels import write_label
from tag2mask.io.names import file_in
from tag2mask.io.records import EDGES, RUN_FILE, SOFT, STEPS, record_of
from tag2mask.refine.probe import Probe
from tag2mask.refine.recipes import EdgeWalk, Guide, Recipe, Result, auto_threshold, strength
from tag2mask.utils.processes import one_thread, spread

Maps = Callable[[str, np.ndarray, CAMs], CAMs]
"""Name of a photograph, the photograph (H, W, 3) uint8 and its CAMs -> the maps that take the place of these CAMs."""


class Networks(NamedTuple):
    """The networks of a job, on a device."""

    guide: Guide | None = None  # of the walk
    maps: Maps | None = None  # of a second round


LoadNetworks = Callable[[str], Networks]  # to a device


@dataclass(frozen=True)
class Job:
    """Label PNGs ``out`` of CAM files ``cams`` and photographs, which are None where the job needs none.

    ``network``, a checkpoint of a segmentation network, or ``probe``, a linear probe, gives the maps that labels are
    made of; the CAM files then only say which tags each photograph has (`inference.second_round`).
    ``soft`` also writes the CAM that each label was cut from, as a CAM file, into ``out/soft``, and the edges that
    stopped the walk, as a grey PNG, into ``out/edges``; ``steps`` the label map after each step before the last, into
    ``out/steps/<step>``.
    """

    cams: Path
    photos: Path | None
    out: Path
    recipe: Recipe
    soft: bool = False
    steps: bool = False
    network: Path | None = None
    probe: Probe | None = None

    @property
    def needs_photo(self) -> bool:
        """Whether the labels depend on the photographs, not on the CAMs alone."""
        return self.recipe.needs_photo or self.network is not None or self.probe is not None

    def outputs(self, name: str) -> dict[str, Path]:
        """Return the files of one photograph: steps, ``soft``, ``edges``, the label itself (the last step) last."""
        *before, last = self.recipe.step_names
        paths = {step: file_in(self.out / STEPS / step, name, ".png") for step in before if self.steps}
        if self.soft:
            paths[SOFT] = file_in(self.out / SOFT, name, ".npz")
            if isinstance(self.recipe.walk, EdgeWalk):
                paths[EDGES] = file_in(self.out / EDGES, name, ".png")
        return {**paths, last: file_in(self.out, name, ".png")}

    def leavings(self, name: str) -> list[Path]:
        """Return all files that any recipe and options may have left of one photograph, the label first."""
        folders = [self.out, self.out / EDGES, *(self.out / STEPS).glob("*")]
        return [*(file_in(folder, name, ".png") for folder in folders), file_in(self.out / SOFT, name, ".npz")]

    def expected_bytes(self, name: str) -> list[float]:
        """Estimate the sizes of these files; none where the CAM file cannot be read: that is reported in its turn."""
        path = self.cams / f"{name}.npz"
        try:
            label = disk.label_bytes(*read_cam(path).size)
        except InputError:
            return []
        return [path.stat().st_size if key == SOFT else label for key in self.outputs(name)]


class Made(NamedTuple):
    """What a label PNG was made from; it stands in the PNG as a JSON note."""

    cam: str  # digest of the CAM file, `io.provenance.of_cam`
    vanished: tuple[int, ...]  # mask values of the tags that have no pixel in the label
    tags: int  # how many


def made_of(path: Path) -> Made | None:
    """Read what a label PNG was made from; None where there is no such file or its note is not of this stage."""
    try:
        note = json.loads(read_note(path) or "")
        made = Made(str(note["cam"]), tuple(map(int, note["vanished"])), int(note["tags"]))
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None
    return made if all(0 < value < IGNORE for value in made.vanished) else None


def stale(job: Job, names: Sequence[str]) -> list[str]:
    """Return the photographs whose label was made from another CAM file than there is now."""
    made = {name: made_of(job.out / f"{name}.png") for name in names}
    return [name for name, one in made.items() if one and one.cam != provenance.of_cam(job.cams / f"{name}.npz")]


def cam_names(cams: Path, listed: Path | None = None) -> list[str]:
    """Return the names of the CAM files, sorted, or only of the photographs on a list; each of these must have one."""
    there = folders.files_in(cams, folders.CAM_ENDINGS)
    if not there:
        raise MissingError(f"no CAM files in {cams}; make them with `tag2mask predict`")
    names = sorted(there) if listed is None else folders.read_list(listed)
    missing = [name for name in names if name not in there]
    if missing or not names:
        first = f", the first {missing[0]}" if missing else ""
        raise MissingError(
            f"{len(missing)} of {len(names)} names in {listed} have no CAM file in {cams}{first}; make them with "
            "`tag2mask predict`, or shorten the list"
        )
    return [there[name].stem for name in names]


def settled(job: Job, load: LoadNetworks | None = None, workers: int = 1, device: str = "cpu") -> Job:
    """Return the job with numbers in place of thresholds "auto", chosen from maps of `disk.sample` of its CAM files.

    These are evenly spaced among all files, so a command that goes on, or makes another shard, chooses the same.
    """
    if not job.recipe.auto:
        return job
    names = disk.sample(cam_names(job.cams))
    if workers > 1:
        found = list(spread(_judge, names, min(workers, len(names)), _start, (job, load, device), _modules(load)))
    else:
        worker = _Worker(job, load, device)
        with one_thread():
            found = [worker.strength(name) for name in names]
    strengths = [each for each in found if each is not None]
    if not strengths:
        raise MissingError(f"no CAM in {job.cams} to choose a threshold from; give a number in place of auto")
    return replace(job, recipe=job.recipe.settled(auto_threshold(strengths)))


def shard(names: Sequence[str], index: int, count: int) -> list[str]:
    """Return the share ``index`` (1 to ``count``) of ``names``: every ``count``-th."""
    if not 1 <= index <= count:
        raise SettingError(f"shard {index}/{count}; expected 1/{count} to {count}/{count}")
    return list(names[index - 1 :: count])


def remaining(job: Job, names: Sequence[str]) -> list[str]:
    """Return the photographs whose label is not there yet; remove what a killed process left half-written."""
    if not job.out.is_dir():
        return list(names)
    for folder in {path.parent for path in job.outputs("").values()}:
        remove_parts(folder, set(names))
    done = {path.stem for path in job.out.glob("*.png")}
    return [name for name in names if name not in done]


def make_labels(
    job: Job, names: Sequence[str], load: LoadNetworks | None = None, workers: int = 1, device: str = "cpu"
) -> Iterator[tuple[str, str | None]]:
    """Make the labels of ``names``; yield each name as it is done, and what was wrong with its files, or None.

    ``load``, needed where the job has networks, is called with the device of torch in each of ``workers`` processes.
    """
    if workers > 1:
        yield from spread(_work, names, min(workers, len(names) or 1), _start, (job, load, device), _modules(load))
        return
    worker = _Worker(job, load, device)
    with one_thread():  # as the processes of a pool: the same files, bit by bit
        for name in names:
            yield worker(name)


class _Worker:
    """Makes the files of one photograph after another."""

    def __init__(self, job: Job, load: LoadNetworks | None, device: str) -> None:
        self.job, self.device = job, device
        self.networks = Networks() if load is None else load(device)
        self.photos = {} if job.photos is None else folders.photos_in(job.photos)
        classes = record_of(job.cams).get("config", {}).get("classes")
        self.num_classes = len(classes) if classes else IGNORE - 1

    @torch.inference_mode()
    def __call__(self, name: str) -> tuple[str, str | None]:
        """Write the files of one photograph; return its name, and what was wrong with what it is made from."""
        try:
            cams, image = self.inputs(name)
        except InputError as error:
            return name, str(error)
        result = self.job.recipe(cams, image, self.networks.guide, self.device)
        if (regions := self.job.recipe.regions) is not None:
            try:
                result.steps["regions"] = regions.snap(list(result.steps.values())[-1], image, name)
            except InputError as error:
                return name, str(error)
        self._write(name, cams, result)
        return name, None

    @torch.inference_mode()
    def strength(self, name: str) -> float | None:
        """Return the `strength` of the maps that the threshold of one photograph cuts; None where it has none."""
        try:
            cams, image = self.inputs(name)
        except InputError:  # named when its turn comes
            return None
        if not len(cams.classes):
            return None
        return strength(self.job.recipe.judged(cams, image, self.networks.guide, self.device))

    def inputs(self, name: str) -> tuple[CAMs, np.ndarray | None]:
        """Return what a label is made of: CAMs, or the maps in place of them, and the photograph if it is needed."""
        path = self.job.cams / f"{name}.npz"
        cams = read_cam(path)
        if (highest := max(cams.classes.tolist(), default=0)) > self.num_classes:
            raise MismatchError(
                f"{path} holds the class {highest} of {self.num_classes} that {RUN_FILE} beside it names; "
                "delete it and run `tag2mask predict` again"
            )
        image = self._photo(name, cams.size)
        if self.networks.maps is not None:
            assert image is not None
            cams = self.networks.maps(name, image, cams)
            if not cams.cam.isfinite().all():
                raise DamagedError(f"the network's maps of {name} hold what is no finite number; train it again")
        return cams, image

    def _photo(self, name: str, size: tuple[int, int]) -> np.ndarray | None:
        """Read the photograph if the job needs it; where it is not needed but there, compare its size alone."""
        path, needed = self.photos.get(folders.unified(name)), self.job.needs_photo
        if path is None:
            if not needed:
                return None
            near = folders.near_photo(self.job.photos, name) if self.job.photos else ""
            expected = f"; expected {name}.jpg, .png or the like: name its folder"
            raise MissingError(f"no photograph {name} in {self.job.photos}{near or expected}")
        image = read_image(path) if needed else None
        own = read_size(path) if image is None else image.shape[:2]
        if own != size:
            raise MismatchError(
                f"the CAM file of {name} is of a photograph of {size[0]} x {size[1]} pixels (height x width), "
                f"the one in {self.job.photos} has {own[0]} x {own[1]}; {sizes_hint(path, own, size)}"
            )
        return image

    def _write(self, name: str, cams: CAMs, result: Result) -> None:
        """Write the label last: where it stands, all is done."""
        last = self.job.recipe.step_names[-1]
        vanished = np.setdiff1d(cams.classes.numpy(), np.unique(result.steps[last])).tolist()
        made = Made(provenance.of_cam(self.job.cams / f"{name}.npz"), tuple(vanished), len(cams.classes))
        for step, path in self.job.outputs(name).items():
            if step == SOFT:
                write_cam(path, result.soft)
            elif step == EDGES:
                assert result.edges is not None
                write_picture(path, (result.edges * 255).round().to(torch.uint8).numpy())
            else:
                write_label(path, result.steps[step], json.dumps(made._asdict()) if step == last else None)


_workers: list[_Worker] = []  # the one of this process


def _start(job: Job, load: LoadNetworks | None, device: str) -> None:
    torch.set_num_threads(1)  # the processes are the parallelism
    _workers.append(_Worker(job, load, device))


def _modules(load: LoadNetworks | None) -> list[str]:
    """What the processes need: this module, and that of the function which loads networks."""
    return [__name__, *([] if load is None else [getattr(load, "func", load).__module__])]


def _judge(name: str) -> float | None:
    return _workers[0].strength(name)


def _work(name: str) -> tuple[str, str | None]:
    return _workers[0](name)
