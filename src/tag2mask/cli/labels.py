"""The verb ``labels``: a folder of CAM files becomes a folder of pseudo-labels."""

import json
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentParser, Namespace
from tqdm import tqdm

from tag2mask.cli.options import check_options, check_yaml
from tag2mask.data.folder import class_names
from tag2mask.errors import InputError, MissingError
from tag2mask.io import disk, provenance
from tag2mask.io.files import read_json
from tag2mask.io.folders import photos_in
from tag2mask.io.records import RUN_FILE, made_with, same_run, write_run
from tag2mask.refine.recipes import FeatureWalk, PseudoLabels, Recipe
from tag2mask.refine.stage import Job, cam_names, made_of, make_labels, remaining, shard, stale
from tag2mask.utils.processes import cores
from tag2mask.utils.progress import progress

DESCRIPTION = """Turn a folder of CAM files into a folder of label PNGs, on all cores. What is there already is kept,
if it was made with the same configuration: the same command goes on where it was interrupted."""
ON_ONE_GPU = 4  # processes: each takes half a gigabyte of the GPU before it has done anything
RANKS = (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS"), ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT"))


def labels(words: list[str]) -> int:
    """Run the verb; return the exit status: 1 where some photographs could not be done."""
    check_yaml(words)
    given = parse(words)
    job, listed = _job(given), cam_names(given.cams, given.list)
    index, count = which_shard(given.shard, os.environ)
    share = shard(listed, index, count)
    if count > 1:
        print(f"shard {index} of {count}: {len(share)} of {len(listed)} photographs")
    provenance.require_current(job.cams, "make them again with `tag2mask predict --overwrite`")
    config, facts = _config(given, job), {"cams_state": provenance.state(job.cams)}
    if config["classes"] and given.photos is not None:
        require_classes_of(given.photos, job.cams, config["classes"])
    if same_run(job.out, config, given.overwrite):
        _redo(job, share)
    else:
        _clear(job, share)
        write_run(job.out, config, **facts, finished=False)
    todo = remaining(job, share)
    if len(todo) < len(share):
        print(f"{len(share) - len(todo)} labels are in {job.out} already and are kept")
    if todo:
        sizes = [size for name in disk.sample(todo) for size in job.expected_bytes(name)]
        outputs = len(todo) * len(job.outputs(""))
        print(disk.require_room(job.out, outputs * count, sizes, "labels" if count == 1 else "labels of all shards"))
    faults = dict(_faults(progress(_run(given, job, todo), len(todo), "photographs")))
    recorded = None
    while (there := sum(1 for _ in job.out.glob("*.png"))) != recorded:  # another shard may have ended meanwhile
        facts |= _of_labels(job.out, config["classes"])
        finished = there == len(listed)
        write_run(job.out, config, **facts, finished=finished, files=there, damaged=sorted(faults))
        recorded = there
    print(f"{len(todo) - len(faults)} labels made, {there} of {len(listed)} in {job.out}")
    if facts["vanished"]:
        print(f"tag2mask: {provenance.vanished(facts)}", file=sys.stderr)
    if faults:
        print(f"tag2mask: {len(faults)} photographs were skipped: {', '.join(sorted(faults))}", file=sys.stderr)
    return 1 if faults else 0


def parse(words: list[str]) -> Namespace:
    """Read the words of the verb and its configuration."""
    parser = ArgumentParser(prog="tag2mask labels", description=DESCRIPTION, exit_on_error=False)
    parser.add_argument(
        "--config", action="config", help="YAML with the options below, such as configs/voc/labels.yaml"
    )
    parser.add_argument("--recipe", type=Recipe, required=True, help="how a label is made from a CAM")
    parser.add_argument("--cams", type=Path, required=True, help="folder of CAM files")
    parser.add_argument(
        "--photos",
        type=Path | None,
        default=None,
        help="folder of the photographs, or one with images/, for walk and CRF",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the label PNGs")
    parser.add_argument("--list", type=Path | None, default=None, help="names to do, one a line; null: all CAM files")
    parser.add_argument("--soft", type=bool, default=False, help="also write the CAM after the walk, into OUT/soft")
    parser.add_argument(
        "--steps", type=bool, default=False, help="also write the label after each step, into OUT/steps"
    )
    parser.add_argument("--workers", type=int | None, default=None, help="processes; null: one a core")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1; auto: a GPU where there is one")
    parser.add_argument(
        "--shard",
        type=str | None,
        default=None,
        help="i/n, from 1/n to n/n: this part of the work only; without it torchrun's and SLURM's variables tell",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace labels made with another configuration")
    check_options(words, parser._option_string_actions, parser.prog)
    given: Namespace = parser.instantiate_classes(parser.parse_args(words))
    return given


def which_shard(given: str | None, environment: Mapping[str, str]) -> tuple[int, int]:
    """Return which part of the work this process does, from 1, and of how many."""
    if given is not None:
        index, _, count = given.partition("/")
        if not (index.isdigit() and count.isdigit()):
            raise InputError(f"--shard {given}; expected i/n, such as 1/4 to 4/4")
        return int(index), int(count)
    for rank, world in RANKS:
        if rank in environment and int(environment.get(world, "1")) > 1:
            first = int(environment.get("SLURM_ARRAY_TASK_MIN", "0")) if rank == "SLURM_ARRAY_TASK_ID" else 0
            return int(environment[rank]) - first + 1, int(environment[world])
    return 1, 1


def on_this_machine(environment: Mapping[str, str]) -> tuple[int, int]:
    """Return which of the processes on this machine this is, from 0, and how many there are."""
    for rank, count in (("LOCAL_RANK", "LOCAL_WORLD_SIZE"), ("SLURM_LOCALID", "SLURM_NTASKS_PER_NODE")):
        if rank in environment:
            return int(environment[rank]), int(environment.get(count, "1"))
    return 0, 1


def _job(given: Namespace) -> Job:
    photos = given.photos
    if photos is not None and (photos / "images").is_dir():
        photos /= "images"  # a folder of one's own, as `fit` and `predict` take it
    if given.recipe.needs_photo:
        if photos is None:
            raise InputError("the recipe looks at the photographs; give their folder with --photos")
        if not photos.is_dir():
            raise InputError(f"no folder {photos}; name the one of the photographs with --photos")
    if photos is not None:
        photos_in(photos)  # refuses two of one name before anything is written
    return Job(given.cams, photos, given.out, with_network(given.recipe, given.cams), given.soft, given.steps)


def with_network(recipe: Recipe, cams: Path) -> Recipe:
    """Check the network that guides the walk; where the recipe names none, name the one that made the CAMs."""
    if not isinstance(recipe, PseudoLabels) or recipe.walk is None:
        return recipe
    from tag2mask.tasks.checkpoints import check_file

    walk = recipe.walk
    if isinstance(walk, FeatureWalk) and walk.checkpoint is None:
        walk = replace(walk, checkpoint=provenance.record_of(cams).get("checkpoint"))
    if walk.checkpoint is None or not Path(walk.checkpoint).is_file():
        raise MissingError(
            f"no checkpoint {walk.checkpoint or f'in {cams / RUN_FILE}'} of the {walk.task} network; train one with "
            f"`tag2mask fit` and a configuration {walk.task}_*.yaml, or leave the walk out (walk: null)"
        )
    check_file(Path(walk.checkpoint), walk.task)
    if isinstance(walk, FeatureWalk):
        from tag2mask.inference.guides import load_guide

        load_guide(walk, "cpu")  # refuses a layer that is not there, before worker processes would end of it
    return replace(recipe, walk=walk)


def _config(given: Namespace, job: Job) -> dict[str, Any]:
    """What the labels depend on: the recipe, and what CAMs and the network of the walk were made from."""
    record = job.cams / RUN_FILE
    made = read_json(record).get("config", {}) if record.is_file() else {}
    config = {
        "recipe": _plain(job.recipe),
        "cams": str(job.cams),
        "cams_made_with": made_with(job.cams),
        "classes": made.get("classes"),
        "steps": job.steps,
        "soft": job.soft,
        "step_names": list(job.recipe.step_names),
    }
    if job.recipe.walk is not None:
        from tag2mask.tasks.checkpoints import file_digest

        assert job.recipe.walk.checkpoint is not None
        config["walk_network"] = file_digest(Path(job.recipe.walk.checkpoint))
    return config


def require_classes_of(data: Path, cams: Path, classes: Sequence[str]) -> None:
    """Refuse CAM files of other classes than those of one's own data folder, where that is what was given."""
    if not any((data / name).is_file() for name in ("classes.txt", "tags.csv")):
        return
    names = class_names(data)
    if list(names) != list(classes):
        raise InputError(
            f"{cams} was made for the classes {', '.join(classes)}, {data} has {', '.join(names)}; names and order "
            "must be the same: mend classes.txt, or train and predict again"
        )


def _redo(job: Job, names: list[str]) -> None:
    """Delete the labels whose CAM file has changed since; say so."""
    old = stale(job, names)
    for path in (path for name in old for path in job.outputs(name).values()):
        path.unlink(missing_ok=True)
    if old:
        print(f"{len(old)} labels were made from other CAM files than now, the first {old[0]}: they are made again")


def _of_labels(out: Path, classes: Sequence[str] | None) -> dict[str, Any]:
    """Keep what each label was made from; return how many tags have no pixel in their label, class by class."""
    made = {path.stem: made_of(path) for path in sorted(out.glob("*.png"))}
    provenance.write_inputs(out, {name: "not known" if one is None else one.cam for name, one in made.items()})
    known = [one for one in made.values() if one is not None]
    counts = Counter(value for one in known for value in one.vanished)
    names = {value: classes[value - 1] if classes else f"class {value}" for value in sorted(counts)}
    return {
        "vanished": {names[value]: counts[value] for value in sorted(counts)},
        "lacking": sum(bool(one.vanished) for one in known),
        "empty": sum(one.tags > 0 and len(one.vanished) == one.tags for one in known),
        "labels": len(known),
    }


def _plain(recipe: Recipe) -> dict[str, Any]:
    """The settings of a recipe as plain data."""
    settings = json.loads(json.dumps(vars(recipe), default=vars))
    return {"class_path": f"{type(recipe).__module__}.{type(recipe).__qualname__}", "init_args": settings}


def _clear(job: Job, names: list[str]) -> None:
    """Delete the outputs of ``names`` and no other file: other shards may be at work, or a stranger's PNGs be there."""
    if job.out.is_dir() and not (job.out / RUN_FILE).exists() and any(job.out.glob("*.png")):
        raise InputError(f"{job.out} holds PNG files that `tag2mask labels` did not make; name another folder")
    for name in names:
        for path in job.outputs(name).values():
            path.unlink(missing_ok=True)


def _run(given: Namespace, job: Job, todo: list[str]) -> Iterator[tuple[str, str | None]]:
    device = given.device
    index, beside = on_this_machine(os.environ)
    if device == "auto":
        device = f"cuda:{index % torch.cuda.device_count()}" if torch.cuda.is_available() else "cpu"
    load = None
    if job.recipe.walk is not None:
        from tag2mask.inference.guides import load_guide

        load = partial(load_guide, job.recipe.walk)
    share = max(1, cores() // beside)
    workers = given.workers or (share if device == "cpu" else min(share, ON_ONE_GPU))
    return make_labels(job, todo, load, workers, device)


def _faults(done: Iterable[tuple[str, str | None]]) -> Iterator[tuple[str, str]]:
    """Name what could not be done as it is met."""
    for name, fault in done:
        if fault is not None:
            tqdm.write(f"tag2mask: skipped {name}: {fault}", file=sys.stderr)
            yield name, fault
