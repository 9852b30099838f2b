"""The ablation of Table 7: plain CAM, Puzzle-CAM, +CFC, +RSA, both, with seeds, same data, budget and backbone.

usage: python -m benchmarks.ablation voc-fast --data VOC2012 [--rows plain puzzle] [--seeds 0 1 2]
           [--set tiles.attention.temperature=0.3 epochs=2] [--label warm] [--out DIR] [--cache DIR]

A row and seed is one JSON file in ``out/PRESET``; what stands there with the same settings is not run again, so that an
interrupted ablation goes on and any row is reproduced by ``--rows NAME --seeds 0``. At the end the table of these rows
is printed and written (``table.md``, ``table.json``, ``curves.png``). ``--set`` changes a setting of every row that has
it (`settings.Run`); ``--label`` keeps such rows beside the others, as NAME@LABEL. ``--rows grid`` is Table 1.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.ablation import table
from benchmarks.ablation.settings import GRID, MAIN, PRESETS, Run, with_options, with_row
from benchmarks.ablation.train import train
from benchmarks.record import write_record
from tag2mask import files
from tag2mask.errors import InputError


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing and write the table."""
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
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    names = [n for name in given.rows for n in (GRID if name == "grid" else [name])]
    folder = given.out / given.preset
    records: dict[str, list[dict[str, Any]]] = {}
    for seed in given.seeds:
        for name in names:
            run = with_options(with_row(replace(PRESETS[given.preset], seed=seed), name), given.set)
            shown = f"{name}@{given.label}" if given.label else name
            record = one(run, given.data, given.cache, folder / f"{shown}-seed{seed}.json", given.save)
            records.setdefault(shown, []).append(record)
    rows = table.summary(records)
    files.write_json(folder / "table.json", rows)
    text = table.markdown(rows)
    (folder / "table.md").write_text(text + "\n")
    table.draw_curves(records, folder / "curves.png")
    print(text)


def one(run: Run, data: Path, cache: Path, path: Path, save: bool) -> dict[str, Any]:
    """Return what ``path`` holds where it was made with these settings, else train that row and seed."""
    settings = json.loads(json.dumps({**asdict(run), "data": str(data.resolve())}))
    if path.is_file():
        record: dict[str, Any] = files.read_json(path)
        if record.get("settings") == settings:
            return record
        print(f"{path}: again, for {files.first_difference(record.get('settings'), settings)}", flush=True)
    task, found = train(run, data, cache)
    record = write_record(path, {**found, "settings": settings})
    if save:
        torch.save(task.state_dict(), path.with_suffix(".pt"))
    fixed = found["scores"]["all"]["fixed"]
    line = " ".join(f"{key} {100 * fixed[key]:.1f}" for key in ("miou", "mfdr", "mfnr"))
    print(f"{path.stem}: {line} at {fixed['threshold']}, {found['seconds']['all']:.0f} s", flush=True)
    return record


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        raise SystemExit(f"error: {error}") from None
