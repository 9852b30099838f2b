"""The ablation of Table 7: plain CAM, Puzzle-CAM, +CFC, +RSA, both, with seeds, same data, budget and backbone.

usage: python -m benchmarks.ablation voc-fast --data VOC2012 [--rows plain puzzle] [--seeds 0 1 2]
           [--set tiles.attention.temperature=0.3 epochs=2] [--label warm] [--out DIR] [--cache DIR]
           [--minutes 8]

A row and seed is one JSON file in ``out/PRESET``; what stands there with the same settings is not run again, so that an
interrupted ablation goes on and any row is reproduced by ``--rows NAME --seeds 0``. A training goes on from its last
checkpoint (``training-*.ckpt``), with the result of an unbroken one; with ``--minutes`` it stops, and the same command
goes on. At the end the table of these rows is printed and written (``table.md``, ``table.json``,
``curves.png``). ``--set`` changes a setting of every row that has it (`settings.Run`); ``--label`` keeps such rows
beside the others, as NAME@LABEL. ``--rows grid`` is Table 1. ``--panel 8`` draws eight photographs under the CAMs of
each row (``panel-seed0.png``).
"""

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.ablation import table
from benchmarks.ablation.panel import panel
from benchmarks.ablation.settings import GRID, MAIN, PRESETS, Run, with_options, with_row
from benchmarks.ablation.train import train
from benchmarks.limit import OutOfTime, TimeLimit
from benchmarks.record import write_record
from tag2mask.errors import InputError
from tag2mask.io.files import atomic, read_json, write_json
from tag2mask.io.images import write_picture
from tag2mask.io.records import digest_of_data, first_difference


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing and write the table; ``OutOfTime`` where the minutes were too few for all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("preset", choices=PRESETS)
    parser.add_argument("--data", type=Path, required=True, help="VOC2012 of the devkit, or a folder with tags.csv")
    parser.add_argument("--rows", nargs="+", default=list(MAIN))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE")
    parser.add_argument("--label", default="")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out/ablation"))
    parser.add_argument("--cache", type=Path, default=Path("benchmarks/out/ablation/cache"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--save", action="store_true", help="keep the trained weights beside each record")
    parser.add_argument(
        "--panel", type=int, default=0, metavar="N", help="draw N photographs under every row; --save too"
    )
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop after so many; the next call goes on")
    given = parser.parse_args(arguments)
    limit = TimeLimit(given.minutes)
    if given.panel < 0:
        parser.error(f"--panel {given.panel}: expected a number of photographs, 0 for none")
    torch.set_num_threads(given.threads)
    names = [n for name in given.rows for n in (GRID if name == "grid" else [name])]
    folder = given.out / given.preset
    records: dict[str, list[dict[str, Any]]] = {}
    for seed in given.seeds:
        runs: dict[Path, Run] = {}
        for name in names:
            run = with_options(with_row(replace(PRESETS[given.preset], seed=seed), name), given.set)
            shown = f"{name}@{given.label}" if given.label else name
            runs[folder / f"{shown}-seed{seed}.json"] = run
        save = given.save or given.panel > 0
        for path, record in recorded(runs, given.data, given.cache, save, limit).items():
            records.setdefault(path.stem.removesuffix(f"-seed{seed}"), []).append(record)
        if given.panel:
            write_picture(folder / f"panel-seed{seed}.png", panel(runs, given.data, given.cache, given.panel))
    rows = table.summary(records)
    write_json(folder / "table.json", rows)
    text = table.markdown(rows)
    (folder / "table.md").write_text(text + "\n")
    table.draw_curves(records, folder / "curves.png")
    print(text)


def recorded(
    runs: Mapping[Path, Run], data: Path, cache: Path, save: bool, limit: TimeLimit
) -> dict[Path, dict[str, Any]]:
    """Return what the paths hold where it was made with these settings, else train, as where weights to save lack.

    Runs that differ only in how their CAMs are made are trained once. The checkpoint of a training is named by the
    digest of all settings: one of other settings is never gone on with.
    """
    folder = str(data.resolve())
    settings = {path: json.loads(json.dumps({**asdict(run), "data": folder})) for path, run in runs.items()}
    missing: dict[str, list[Path]] = {}
    for path in runs:
        found = read_json(path).get("settings") if path.is_file() else None
        if found == settings[path] and (path.with_suffix(".pt").is_file() or not save):
            continue
        if found is not None:
            why = first_difference(found, settings[path]) if found != settings[path] else "no weights were kept"
            print(f"{path}: again, for {why}", flush=True)
        missing.setdefault(json.dumps({**settings[path], "inference": None}), []).append(path)
    for paths in missing.values():
        digest = digest_of_data([settings[path] for path in paths])
        checkpoint = paths[0].with_name(f"training-{digest[:12]}.ckpt")
        task, records = train([runs[path] for path in paths], data, cache, checkpoint, limit)
        for path, record in zip(paths, records, strict=True):
            path.with_suffix(".pt").unlink(missing_ok=True)  # of other settings
            if save:
                with atomic(path.with_suffix(".pt")) as out:
                    torch.save(task.state_dict(), out)
            write_record(path, {**record, "settings": settings[path]})
            fixed = record["scores"]["all"]["fixed"]
            line = " ".join(f"{key} {100 * fixed[key]:.1f}" for key in ("miou", "mfdr", "mfnr"))
            print(f"{path.stem}: {line} at {fixed['threshold']}, {record['seconds']['all']:.0f} s", flush=True)
        checkpoint.unlink()
    return {path: read_json(path) for path in runs}


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        raise SystemExit(f"error: {error}") from None
    except OutOfTime as stop:
        raise SystemExit(f"out of time: {stop}; the same command goes on") from None
