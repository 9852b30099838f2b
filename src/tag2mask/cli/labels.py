"""The verb ``labels``: CAM files become label PNGs; its options and their texts are `LABEL_OPTIONS`."""

import json
import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace

from tag2mask.classes import IGNORE
from tag2mask.cli.help import LABEL_OPTIONS
from tag2mask.cli.options import check_options
from tag2mask.cli.settings import TRUST, SettingsParser, check_yaml, take_trusted
from tag2mask.data.folder import class_names
from tag2mask.errors import InputError, MismatchError, MissingError, OccupiedError, SettingError
from tag2mask.io import disk, locks, provenance
from tag2mask.io.folders import files_in, photos_in, unified
from tag2mask.io.records import (
    ROUNDS,
    RUN_FILE,
    changed_setting,
    digest_of_data,
    made_with,
    other_configuration,
    record_of,
    same_run,
    write_run,
)
from tag2mask.refine.probe import Probe, fit
from tag2mask.refine.recipes import FeatureWalk, Recipe
from tag2mask.refine.stage import Job, LoadNetworks, cam_names, made_of, make_labels, remaining, settled, shard, stale
from tag2mask.utils.processes import cores, one_thread
from tag2mask.utils.progress import progress, warn


def labels(words: list[str]) -> int:
    """Run the verb; return the exit status: 1 where some photographs could not be done."""
    args = parse(words)
    job, load = _job(args)
    names = cam_names(args.cams, args.list)
    index, count = which_shard(args.shard, os.environ)
    share = shard(names, index, count)
    if count > 1:
        print(f"shard {index} of {count}: {len(share)} of {len(names)} photographs")
    provenance.require_current(job.cams, "make them again with `tag2mask predict --overwrite`")
    local, processes = on_this_machine(os.environ)
    gpu = f"cuda:{local % torch.cuda.device_count()}" if torch.cuda.is_available() else "cpu"
    device = gpu if args.device == "auto" else args.device
    workers = max(1, cores() // processes)
    if device != "cpu":
        workers = min(workers, 4)  # each takes half a gigabyte of the GPU before it has done anything
    workers = args.workers or workers
    locks.take(job.out, shared=count > 1)
    make = partial(_make, names=names, share=share, count=count, workers=workers, device=device)
    if job.probe is None:
        status = make(job, load, args.overwrite)
        _discard_rounds(job.out, kept=0)
        return status
    if count > 1:
        raise SettingError("a probe learns from the labels of all photographs; leave shards out, or the probe")
    rounds = [job.out / ROUNDS / str(turn) for turn in range(job.probe.rounds)]
    early = [replace(job, out=out, soft=False, steps=False) for out in rounds]
    for each in early:
        locks.take(each.out)
    if not args.overwrite:
        _require_as_asked(job)
    print("first labels, from the CAMs")
    status = make(replace(early[0], probe=None), load, args.overwrite)
    for turn, (before, now) in enumerate(zip(rounds, [*early[1:], job], strict=True), 1):
        print(f"round {turn} of {len(rounds)}")
        load, learned_from = _with_probe(now, before, names, device)
        status |= make(now, load, args.overwrite, learned_from)
    _discard_rounds(job.out, kept=len(rounds))
    return status


def _make(
    job: Job,
    load: LoadNetworks | None,
    overwrite: bool,
    learned_from: str | None = None,
    *,
    names: Sequence[str],
    share: Sequence[str],
    count: int,
    workers: int,
    device: str,
) -> int:
    """Make the labels of a share of the photographs, into a folder that this process has taken; return the status.

    ``learned_from`` is the digest of the labels that a probe has learned from.
    """
    asked = job.recipe
    if asked.auto:
        job = settled(job, load, workers, device)
        source = "CAMs" if job.probe is None and job.network is None else "maps"
        chosen = ", ".join(f"{name} {value}" for name, value in job.recipe.thresholds.items())
        print(f"chosen from the {source}: {chosen}")
    config, state = _config(job, asked, learned_from), provenance.state(job.cams)
    _clear(job, share, config, state, overwrite, alone=count == 1)
    todo = remaining(job, share)
    if len(todo) < len(share):
        print(f"{len(share) - len(todo)} labels are in {job.out} already and are kept")
    if todo:
        sizes = [size for name in disk.sample(todo) for size in job.expected_bytes(name)]
        files = len(todo) * len(job.outputs("")) * count
        print(disk.require_room(job.out, files, sizes, "labels" if count == 1 else "labels of all shards"))
    damaged, made = [], make_labels(job, todo, load, workers, device)
    for name, fault in progress(made, len(todo), "photographs"):
        if fault is not None:
            warn(f"skipped {name}: {fault}")
            damaged.append(name)
    facts = _write_record(job.out, config, len(names), cams_state=state, damaged=sorted(damaged))
    print(f"{len(todo) - len(damaged)} labels made, {facts['files']} of {len(names)} in {job.out}")
    if facts["vanished"]:
        warn(provenance.vanished(facts))
    if damaged:
        warn(f"{len(damaged)} photographs were skipped: {', '.join(sorted(damaged))}")
    return 1 if damaged else 0


def parse(words: list[str]) -> Namespace:
    """Read the words of the verb and its configuration."""
    words = take_trusted(words)
    check_yaml(words)
    parser = SettingsParser(prog="tag2mask labels", epilog=TRUST, exit_on_error=False)
    types: dict[str, dict[str, Any]] = {"--recipe": {"type": Recipe}, "--probe": {"type": Probe | None}}
    for option, keywords in LABEL_OPTIONS.items():
        parser.add_argument(option, **keywords | types.get(option, {}))
    check_options(words, parser._option_string_actions, parser.prog)
    args: Namespace = parser.instantiate(parser.parse_args(words))
    return args


def which_shard(option: str | None, environment: Mapping[str, str]) -> tuple[int, int]:
    """Return which part of the work this process does, from 1, and of how many: of ``--shard``, torchrun or SLURM."""
    if option is not None:
        index, _, count = option.partition("/")
        if not (index.isdigit() and count.isdigit()):
            raise SettingError(f"--shard {option}; expected i/n, such as 1/4 to 4/4")
        return int(index), int(count)
    ranks = {"RANK": "WORLD_SIZE", "SLURM_PROCID": "SLURM_NTASKS", "SLURM_ARRAY_TASK_ID": "SLURM_ARRAY_TASK_COUNT"}
    for rank, world in ranks.items():
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


def _job(args: Namespace) -> tuple[Job, LoadNetworks | None]:
    """The job and the loader of its networks, once photographs, network and classes of one's own data fit."""
    photos, recipe, network, probe, load = args.photos, args.recipe, args.network, args.probe, None
    if network is not None and probe is not None:
        raise SettingError("network and probe are two ways to make a second round; leave one of them out")
    if photos is not None and (photos / "images").is_dir():
        photos /= "images"  # a folder of one's own, as `fit` and `predict` take it
    needs_photo = recipe.needs_photo or network is not None or probe is not None
    if needs_photo and photos is None:
        raise MissingError("the recipe looks at the photographs; give their folder with --photos")
    if needs_photo and not photos.is_dir():
        raise MissingError(f"no folder {photos}; name the one of the photographs with --photos")
    if photos is not None:
        photos_in(photos)  # refuses two of one name
    of_cams = record_of(args.cams).get("checkpoint")
    if isinstance(recipe.walk, FeatureWalk) and recipe.walk.checkpoint is None:
        recipe = replace(recipe, walk=replace(recipe.walk, checkpoint=of_cams))
    if probe is not None and probe.checkpoint is None:
        probe = replace(probe, checkpoint=of_cams)
    for name, task, part in (("walk", getattr(recipe.walk, "task", ""), recipe.walk), ("probe", "cam", probe)):
        if part is not None and (part.checkpoint is None or not Path(part.checkpoint).is_file()):
            place = part.checkpoint or f"in {args.cams / RUN_FILE}"
            remedy = f"train one with `tag2mask fit` and {task}_*.yaml, or leave the {name} out ({name}: null)"
            raise MissingError(f"no checkpoint {place} of the {task} network; {remedy}")
    if recipe.regions is not None:
        recipe.regions.require()
    if recipe.walk is not None or network is not None or probe is not None:
        from tag2mask.inference.second_round import load_networks

        load = partial(load_networks, recipe.walk, network, probe)
        load("cpu")  # refuses another network, or a missing layer, before worker processes would end of it
    classes = record_of(args.cams).get("config", {}).get("classes")
    own = args.photos is not None and any((args.photos / name).is_file() for name in ("classes.txt", "tags.csv"))
    if classes and own and (names := class_names(args.photos)) != tuple(classes):
        before, remedy = ", ".join(classes), "mend classes.txt, or train and predict again"
        raise MismatchError(f"{args.cams} was made for the classes {before}, the data has {', '.join(names)}; {remedy}")
    if classes and network is not None:
        from tag2mask.tasks.checkpoints import check_file, require_same_classes

        require_same_classes(check_file(network), classes)
    return Job(args.cams, photos, args.out, recipe, args.soft, args.steps, network, probe), load


def _with_probe(job: Job, before: Path, names: Sequence[str], device: str) -> tuple[LoadNetworks, str]:
    """Fit the probe of a job to the labels in ``before``; return what loads it, and the digest of these labels.

    A photograph that cannot be read, or has no label there, is not learned from; its own turn names the reason.
    """
    from tag2mask.inference.second_round import Positions, load_networks

    assert job.probe is not None
    assert job.photos is not None
    labels, photos = files_in(before, (".png",)), photos_in(job.photos)
    there = [name for name in names if unified(name) in labels and unified(name) in photos]
    classes = record_of(job.cams).get("config", {}).get("classes")
    take = Positions(job.probe, len(there), len(classes) if classes else IGNORE - 1, device)
    learned = {}
    with one_thread():
        for name in progress(there, len(there), "photographs for the probe"):
            try:
                learned[name] = take(name, photos[unified(name)], labels[unified(name)])
            except InputError as error:
                warn(f"the probe does not learn from {name}: {error}")
        fitted = fit(learned, job.probe)
    state = digest_of_data({name: provenance.of_label(labels[unified(name)]) for name in learned})
    return partial(load_networks, job.recipe.walk, None, job.probe, fitted=fitted), state


def _discard_rounds(out: Path, kept: int) -> None:
    """Delete what a command with more rounds, or with a probe, has left in a folder of labels."""
    for record in (out / ROUNDS).glob(f"*/{RUN_FILE}"):
        if record.parent.name not in map(str, range(kept)):
            shutil.rmtree(record.parent)
    with suppress(OSError):  # it is not empty, or not there
        (out / ROUNDS).rmdir()


def _config(job: Job, asked: Recipe, learned_from: str | None) -> dict[str, Any]:
    """What the labels depend on: the recipe, the networks, and what the CAMs were made from.

    ``recipe`` has the thresholds that were chosen, ``asked`` the word auto in their place.
    """

    def described(recipe: Recipe) -> dict[str, Any]:
        kind = f"{type(recipe).__module__}.{type(recipe).__qualname__}"
        return {"class_path": kind, "init_args": json.loads(json.dumps(vars(recipe), default=vars))}

    recipe, probe = job.recipe, job.probe
    config = {
        "recipe": described(recipe),
        "cams": str(job.cams),
        "cams_made_with": made_with(job.cams),
        "classes": record_of(job.cams).get("config", {}).get("classes"),
        "steps": job.steps,
        "soft": job.soft,
        "step_names": list(recipe.step_names),
    }
    if asked.auto:
        config["asked"] = described(asked)
    if recipe.regions is not None and recipe.regions.folder is not None:
        config["regions"] = recipe.regions.state()
    if probe is not None:
        config |= {"probe": json.loads(json.dumps(vars(probe))), "learned_from": learned_from}
    networks = {
        "walk_network": None if recipe.walk is None else recipe.walk.checkpoint,
        "probe_network": None if probe is None else probe.checkpoint,
        "network": job.network,
    }
    for key, checkpoint in networks.items():
        if checkpoint is not None:
            from tag2mask.tasks.checkpoints import file_digest

            config[key] = file_digest(Path(checkpoint))
    return config


def _as_asked(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a configuration that a person gives: without what follows from the data."""
    of_data = {"learned_from", *(["recipe"] if "asked" in config else [])}
    return {key: value for key, value in config.items() if key not in of_data}


def _require_as_asked(job: Job) -> None:
    """Refuse a folder of labels that another recipe has made, before the rounds that lead there are made."""
    if record := record_of(job.out):
        changed = changed_setting({"config": _as_asked(record["config"])}, _as_asked(_config(job, job.recipe, None)))
        if changed:
            raise other_configuration(job.out, changed)


def _clear(
    job: Job, names: Sequence[str], config: dict[str, Any], state: str | None, overwrite: bool, alone: bool
) -> None:
    """Go on in the folder of the labels, or start there: delete what is to be made anew, for ``names`` alone.

    Where the data alone has led to other thresholds or first labels, all is made anew, unless there are other shards.
    """
    record = {} if overwrite else record_of(job.out)
    if alone and record and changed_setting(record, config):
        overwrite = changed_setting({"config": _as_asked(record["config"])}, _as_asked(config)) is None
        if overwrite:
            print(f"the CAM files have changed, and with them what {job.out} was made from: all labels are made again")
    goes_on = same_run(job.out, config, overwrite)
    if not (job.out / RUN_FILE).exists() and any(job.out.glob("*.png")):
        raise OccupiedError(f"{job.out} holds PNG files that `tag2mask labels` did not make; name another folder")
    old = stale(job, names) if goes_on else names
    for path in (path for name in old for path in job.leavings(name)):  # also what is not made again
        path.unlink(missing_ok=True)
    if not goes_on:
        write_run(job.out, config, cams_state=state, finished=False)
    elif old:
        print(f"{len(old)} labels were made from other CAM files than now, the first {old[0]}: they are made again")


def _write_record(out: Path, config: dict[str, Any], total: int, **facts: Any) -> dict[str, Any]:
    """Write what labels were made from and which tags have no pixel, again where another shard has ended meanwhile."""
    facts["files"], classes = None, config["classes"]
    while (count := len(paths := sorted(out.glob("*.png")))) != facts["files"]:
        made = {path.stem: made_of(path) for path in paths}
        provenance.write_inputs(out, {name: one.cam if one else "not known" for name, one in made.items()})
        known = [one for one in made.values() if one is not None]
        counts = sorted(Counter(value for one in known for value in one.vanished).items())
        facts["vanished"] = {classes[value - 1] if classes else f"class {value}": count for value, count in counts}
        facts["lacking"] = sum(bool(one.vanished) for one in known)
        facts["empty"] = sum(one.tags > 0 and len(one.vanished) == one.tags for one in known)
        facts |= {"labels": len(known), "files": count}
        write_run(out, config, **facts, finished=count == total)
    return facts
