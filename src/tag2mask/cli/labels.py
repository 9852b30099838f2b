"""The verb ``labels``: a folder of CAM files becomes a folder of pseudo-labels."""

import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace
from tqdm import tqdm

from tag2mask.cli import help
from tag2mask.cli.options import check_options, check_yaml
from tag2mask.cli.settings import SettingsParser
from tag2mask.data.folder import class_names
from tag2mask.errors import MismatchError, MissingError, OccupiedError, SettingError
from tag2mask.io import disk, provenance
from tag2mask.io.folders import photos_in
from tag2mask.io.records import RUN_FILE, made_with, record_of, same_run, write_run
from tag2mask.refine.recipes import FeatureWalk, PseudoLabels, Recipe
from tag2mask.refine.stage import Job, cam_names, made_of, make_labels, remaining, shard, stale
from tag2mask.utils.processes import cores
from tag2mask.utils.progress import progress

ON_ONE_GPU = 4  # processes: each takes half a gigabyte of the GPU before it has done anything
RANKS = (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS"), ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT"))
REQUIRED = {"recipe": Recipe, "cams": Path, "out": Path}
OPTIONAL: dict[str, tuple[Any, Any]] = {
    "photos": (Path | None, None),
    "list": (Path | None, None),
    "soft": (bool, False),
    "steps": (bool, False),
    "workers": (int | None, None),
    "device": (str, "auto"),
    "shard": (str | None, None),
}
"""Option -> type and default; the texts are in `help.LABEL_OPTIONS`."""


def labels(words: list[str]) -> int:
    """Run the verb; return the exit status: 1 where some photographs could not be done."""
    check_yaml(words)
    args = parse(words)
    job, names = _job(args), cam_names(args.cams, args.list)
    index, count = which_shard(args.shard, os.environ)
    share = shard(names, index, count)
    if count > 1:
        print(f"shard {index} of {count}: {len(share)} of {len(names)} photographs")
    provenance.require_current(job.cams, "make them again with `tag2mask predict --overwrite`")
    config, state = _config(job), provenance.state(job.cams)
    if config["classes"] and args.photos is not None:
        require_classes_of(args.photos, job.cams, config["classes"])
    if same_run(job.out, config, args.overwrite):
        _delete_stale(job, share)
    else:
        _clear(job, share)
        write_run(job.out, config, cams_state=state, finished=False)
    todo = remaining(job, share)
    if len(todo) < len(share):
        print(f"{len(share) - len(todo)} labels are in {job.out} already and are kept")
    if todo:
        sizes = [size for name in disk.sample(todo) for size in job.expected_bytes(name)]
        files = len(todo) * len(job.outputs("")) * count
        print(disk.require_room(job.out, files, sizes, "labels" if count == 1 else "labels of all shards"))
    damaged = sorted(_damaged(progress(_run(args, job, todo), len(todo), "photographs")))
    facts = _write_record(job, config, len(names), cams_state=state, damaged=damaged)
    print(f"{len(todo) - len(damaged)} labels made, {facts['files']} of {len(names)} in {job.out}")
    if facts["vanished"]:
        print(f"tag2mask: {provenance.vanished(facts)}", file=sys.stderr)
    if damaged:
        print(f"tag2mask: {len(damaged)} photographs were skipped: {', '.join(damaged)}", file=sys.stderr)
    return 1 if damaged else 0


def parse(words: list[str]) -> Namespace:
    """Read the words of the verb and its configuration."""
    parser = SettingsParser(prog="tag2mask labels", description="CAM files to label PNGs.", exit_on_error=False)
    parser.add_argument("--config", action="config", help=help.LABEL_OPTIONS["config FILE"])
    texts = {option.split()[0]: text for option, text in help.LABEL_OPTIONS.items()}
    for name, kind in REQUIRED.items():
        parser.add_argument(f"--{name}", type=kind, required=True, help=texts.get(name, "how a label is made of a CAM"))
    for name, (kind, default) in OPTIONAL.items():
        parser.add_argument(f"--{name}", type=kind, default=default, help=texts[name])
    parser.add_argument("--overwrite", action="store_true", help=texts["overwrite"])
    check_options(words, parser._option_string_actions, parser.prog)
    args: Namespace = parser.instantiate_classes(parser.parse_args(words))
    return args


def which_shard(option: str | None, environment: Mapping[str, str]) -> tuple[int, int]:
    """Return which part of the work this process does, from 1, and of how many: of ``--shard``, torchrun or SLURM."""
    if option is not None:
        index, _, count = option.partition("/")
        if not (index.isdigit() and count.isdigit()):
            raise SettingError(f"--shard {option}; expected i/n, such as 1/4 to 4/4")
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


def _job(args: Namespace) -> Job:
    """Check photographs and edge network, before anything is written."""
    photos = args.photos
    if photos is not None and (photos / "images").is_dir():
        photos /= "images"  # a folder of one's own, as `fit` and `predict` take it
    if args.recipe.needs_photo and photos is None:
        raise MissingError("the recipe looks at the photographs; give their folder with --photos")
    if args.recipe.needs_photo and not photos.is_dir():
        raise MissingError(f"no folder {photos}; name the one of the photographs with --photos")
    if photos is not None:
        photos_in(photos)  # refuses two of one name
    return Job(args.cams, photos, args.out, with_network(args.recipe, args.cams), args.soft, args.steps)


def with_network(recipe: Recipe, cams: Path) -> Recipe:
    """Check the network that guides the walk; where the recipe names none, name the one that made the CAMs."""
    if not isinstance(recipe, PseudoLabels) or recipe.walk is None:
        return recipe
    from tag2mask.inference.cams import load_guide
    from tag2mask.tasks.checkpoints import check_file

    walk = recipe.walk
    if isinstance(walk, FeatureWalk) and walk.checkpoint is None:
        walk = replace(walk, checkpoint=record_of(cams).get("checkpoint"))
    if walk.checkpoint is None or not Path(walk.checkpoint).is_file():
        raise MissingError(
            f"no checkpoint {walk.checkpoint or f'in {cams / RUN_FILE}'} of the {walk.task} network; train one with "
            f"`tag2mask fit` and a configuration {walk.task}_*.yaml, or leave the walk out (walk: null)"
        )
    check_file(Path(walk.checkpoint), walk.task)
    if isinstance(walk, FeatureWalk):
        load_guide(walk, "cpu")  # refuses a layer that is not there, before worker processes would end of it
    return replace(recipe, walk=walk)


def _config(job: Job) -> dict[str, Any]:
    """What the labels depend on: the recipe, and what CAMs and the network of the walk were made from."""
    recipe = job.recipe
    config = {
        "recipe": {
            "class_path": f"{type(recipe).__module__}.{type(recipe).__qualname__}",
            "init_args": json.loads(json.dumps(vars(recipe), default=vars)),
        },
        "cams": str(job.cams),
        "cams_made_with": made_with(job.cams),
        "classes": record_of(job.cams).get("config", {}).get("classes"),
        "steps": job.steps,
        "soft": job.soft,
        "step_names": list(recipe.step_names),
    }
    if recipe.walk is not None:
        from tag2mask.tasks.checkpoints import file_digest

        assert recipe.walk.checkpoint is not None
        config["walk_network"] = file_digest(Path(recipe.walk.checkpoint))
    return config


def require_classes_of(data: Path, cams: Path, classes: Sequence[str]) -> None:
    """Refuse CAM files of other classes than those of a folder of one's own data; pass over any other folder."""
    if not any((data / name).is_file() for name in ("classes.txt", "tags.csv")):
        return
    names = class_names(data)
    if list(names) != list(classes):
        raise MismatchError(
            f"{cams} was made for the classes {', '.join(classes)}, {data} has {', '.join(names)}; names and order "
            "must be the same: mend classes.txt, or train and predict again"
        )


def _delete_stale(job: Job, names: Sequence[str]) -> None:
    """Delete the labels whose CAM file has changed since; say so."""
    old = stale(job, names)
    _delete(job, old)
    if old:
        print(f"{len(old)} labels were made from other CAM files than now, the first {old[0]}: they are made again")


def _clear(job: Job, names: Sequence[str]) -> None:
    """Delete the outputs of ``names`` alone: other shards may be at work, or somebody else's PNGs be there."""
    if job.out.is_dir() and not (job.out / RUN_FILE).exists() and any(job.out.glob("*.png")):
        raise OccupiedError(f"{job.out} holds PNG files that `tag2mask labels` did not make; name another folder")
    _delete(job, names)


def _delete(job: Job, names: Sequence[str]) -> None:
    for path in (path for name in names for path in job.outputs(name).values()):
        path.unlink(missing_ok=True)


def _run(args: Namespace, job: Job, todo: list[str]) -> Iterator[tuple[str, str | None]]:
    """Make the labels, on this process's share of the cores or GPUs of the machine."""
    device, walk = args.device, job.recipe.walk
    index, processes = on_this_machine(os.environ)
    if device == "auto":
        device = f"cuda:{index % torch.cuda.device_count()}" if torch.cuda.is_available() else "cpu"
    load = None
    if walk is not None:
        from tag2mask.inference.cams import load_guide

        load = partial(load_guide, walk)
    share = max(1, cores() // processes)
    workers = args.workers or (share if device == "cpu" else min(share, ON_ONE_GPU))
    return make_labels(job, todo, load, workers, device)


def _damaged(done: Iterator[tuple[str, str | None]]) -> Iterator[str]:
    """Say what could not be done, and why, as it is met; yield the names."""
    for name, fault in done:
        if fault is not None:
            tqdm.write(f"tag2mask: skipped {name}: {fault}", file=sys.stderr)
            yield name


def _write_record(job: Job, config: dict[str, Any], total: int, **facts: Any) -> dict[str, Any]:
    """Write ``run.json`` and ``inputs.csv``, again where another shard has ended meanwhile; return what they say."""
    facts["files"] = None
    while (count := sum(1 for _ in job.out.glob("*.png"))) != facts["files"]:
        facts |= {**_facts(job.out, config["classes"]), "files": count}
        write_run(job.out, config, **facts, finished=count == total)
    return facts


def _facts(out: Path, classes: Sequence[str] | None) -> dict[str, Any]:
    """Write what each label was made from; return how many tags have no pixel in their label, class by class."""
    made = {path.stem: made_of(path) for path in sorted(out.glob("*.png"))}
    provenance.write_inputs(out, {name: "not known" if one is None else one.cam for name, one in made.items()})
    known = [one for one in made.values() if one is not None]
    counts = sorted(Counter(value for one in known for value in one.vanished).items())
    return {
        "vanished": {classes[value - 1] if classes else f"class {value}": count for value, count in counts},
        "lacking": sum(bool(one.vanished) for one in known),
        "empty": sum(one.tags > 0 and len(one.vanished) == one.tags for one in known),
        "labels": len(known),
    }
