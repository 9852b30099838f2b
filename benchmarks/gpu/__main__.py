"""What a GPU must show, in one command and in pieces: speed, memory, going on after a kill, the ablation with seeds.

usage: python -m benchmarks.gpu [--data VOC2012] [--out benchmarks/out/gpu] [--size full] [--minutes 8] [PIECE ...]

Without names all pieces are run, short ones first:

- step-PRECISION: a training step of ResNet-50 at 512, 32 crops: a plain CAM, Puzzle-CAM and the default method through
  Lightning, against a plain loop of Puzzle-CAM's form. Images a second, peak memory, first losses.
- cams, crf, walk: CAMs at four scales with flips; our dense CRF and the random walk on the GPU, beside the CPU.
- memory-CONFIG: the peak of a training step of 4, 16 and 32 crops, beside what docs/scaling.md expects.
- resume-PRECISION: `tag2mask fit` on drawn scenes, killed and gone on with, against an unbroken run.
- voc-full-ROWS-seedN: rows of the ablation that share a training, on the photographs of ``--data``.
- voc-full: the ablation's table of all rows, mean and standard deviation over seeds.

Each piece writes ``OUT/PIECE.json``: its figures, settings, device, commit and versions. A piece that is there with the
same settings is not run again, also where the commit or the GPU is another one: a line says of which it is. Delete the
file to measure again; name another ``--out`` for another GPU. A piece that fails notes its reason; the others go on.

No piece takes longer than ``--minutes``, but for a scoring that has begun in the first half of them, or for a GPU on
which eight steps take longer. A training of the ablation stops at a checkpoint, and the next call goes on: with 8
minutes the same command is given a few times, with ``--minutes 600`` once. The status is 0 where all pieces are there.
"""

import argparse
import gc
import json
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.ablation.__main__ import main as ablation
from benchmarks.ablation.settings import ROWS
from benchmarks.gpu import resume, stages, steps
from benchmarks.gpu.sizes import SIZES, Setup, Size
from benchmarks.limit import OutOfTime, TimeLimit
from benchmarks.record import write_record
from tag2mask.errors import InputError, MissingError, SettingError, UnreachableError
from tag2mask.io.files import read_json
from tag2mask.io.records import first_difference
from tag2mask.models.backbones import first_line


class Piece(NamedTuple):
    """A measurement: what returns its figures, and whether these are of the photographs of ``--data``."""

    run: Callable[[Setup], dict[str, Any]]
    photographs: bool = False


def pieces(size: Size) -> dict[str, Piece]:
    """Return all pieces by name, in the order in which they are run."""
    found = {f"step-{name}": Piece(partial(steps.step, precision=name)) for name in size.precisions}
    found |= {"cams": Piece(stages.cams), "crf": Piece(stages.crf), "walk": Piece(stages.walk)}
    for config in stages.CONFIGS:
        found[f"memory-{Path(config).stem}"] = Piece(partial(stages.step_memory, config=config))
    found |= {f"resume-{name}": Piece(partial(resume.resume, precision=name)) for name in size.resumed}
    for seed in size.seeds:
        for rows in trainings(size.rows):
            name = f"{size.preset}-{'-'.join(rows)}-seed{seed}"
            found[name] = Piece(partial(ablated, rows=rows, seeds=[seed]), photographs=True)
    found[size.preset] = Piece(table, photographs=True)
    return found


def trainings(rows: Sequence[str]) -> list[list[str]]:
    """Return the rows of the ablation by training: they differ only in how CAMs are made."""
    by_method: dict[Any, list[str]] = {}
    for row in rows:
        by_method.setdefault(ROWS[row].tiles, []).append(row)
    return list(by_method.values())


def ablated(setup: Setup, rows: Sequence[str], seeds: Sequence[int]) -> dict[str, Any]:
    """Run rows of the ablation, and return their table; ``OutOfTime`` where something is left to do."""
    data = resume.sample_of(setup) if setup.size.preset == "smoke" else setup.data
    if data is None or not data.is_dir():
        raise MissingError(f"no photographs at {data}; give --data VOC2012 of the devkit (make: DATA=...)")
    out = setup.out / "ablation"
    words = [setup.size.preset, "--data", str(data), "--out", str(out), "--cache", str(out / "cache")]
    words += ["--rows", *rows, "--seeds", *map(str, seeds), "--minutes", str(setup.limit.minutes)]
    ablation([*words, "--set", *setup.size.options])
    return {"data": str(data.resolve()), "rows": read_json(out / setup.size.preset / "table.json")}


def table(setup: Setup) -> dict[str, Any]:
    """Return the ablation's table of all rows and seeds; nothing is trained for it."""
    there = [setup.out / f"{name}.json" for name in pieces(setup.size) if name.startswith(f"{setup.size.preset}-")]
    if lacking := [path.stem for path in there if not done(path)]:
        raise OutOfTime(f"{len(lacking)} of {len(there)} trainings are not there yet, the first {lacking[0]}")
    return ablated(setup, setup.size.rows, setup.size.seeds)


def done(path: Path) -> bool:
    """Say whether a piece has its figures."""
    return path.is_file() and "failed" not in read_json(path)


def attempt(name: str, piece: Piece, setup: Setup) -> str:
    """Run a piece where it is not there; return ``there``, ``done``, ``left`` or ``failed``."""
    path = setup.out / f"{name}.json"
    settings = settings_of(setup, piece)
    found = read_json(path) if done(path) else {}
    if found.get("settings") == settings:
        print(f"{name}: there, of commit {found['commit']} on {found['device']['name']}", flush=True)
        return "there"
    if found:
        print(f"{name}: again, for {first_difference(found['settings'], settings)}", flush=True)
    facts = {"settings": settings, "device": device(setup.size)}
    begun = time.monotonic()
    try:
        figures = piece.run(setup)
    except OutOfTime as stop:
        print(f"{name}: left, {stop}", flush=True)
        return "left"
    except Exception as error:  # the other pieces go on, whatever it was
        reason = f"{type(error).__name__}: {first_line(error)}"
        if not isinstance(error, InputError | OSError | torch.OutOfMemoryError):
            traceback.print_exc()
        write_record(path, {"failed": reason, **facts})
        print(f"{name}: failed, {reason}", flush=True)
        return "failed"
    finally:
        gc.collect()
        torch.cuda.empty_cache()
    seconds = round(time.monotonic() - begun, 1)
    write_record(path, {**figures, "seconds": seconds, **facts})
    print(f"{name}: done in {seconds:.0f} s, {path}", flush=True)
    return "done"


def settings_of(setup: Setup, piece: Piece) -> dict[str, Any]:
    """Return the settings of a piece, as JSON gives them back."""
    data = {"data": str(setup.data and setup.data.resolve())} if piece.photographs else {}
    settings: dict[str, Any] = json.loads(json.dumps({**asdict(setup.size), **data}))
    return settings


def device(size: Size) -> dict[str, Any]:
    """Describe what the figures are measured on."""
    name = torch.cuda.get_device_name() if size.accelerator == "gpu" else "CPU"
    precision = {"matmul": torch.get_float32_matmul_precision(), "cudnn_tf32": torch.backends.cudnn.allow_tf32}
    return {"name": name, "cuda": torch.version.cuda, "float32": precision, "threads": torch.get_num_threads()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing; return the status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pieces", nargs="*", metavar="PIECE")
    parser.add_argument("--data", type=Path, help="VOC2012 of the devkit")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out/gpu"))
    parser.add_argument("--size", choices=SIZES, default="full")
    parser.add_argument("--minutes", type=float, default=8.0, help="longest time of a piece in one call")
    given = parser.parse_args(arguments)
    size = SIZES[given.size]
    known = pieces(size)
    if unknown := [name for name in given.pieces if name not in known]:
        raise SettingError(f"no piece {unknown[0]!r}; expected some of {', '.join(known)}")
    if size.accelerator == "gpu" and not torch.cuda.is_available():
        raise UnreachableError("no GPU that torch can use was found; run this on one, or try --size tiny on a CPU")
    return report(
        {
            name: attempt(name, piece, Setup(size, given.out, given.data, TimeLimit(given.minutes)))
            for name, piece in known.items()
            if name in (given.pieces or known)
        }
    )


def report(outcomes: Mapping[str, str]) -> int:
    """Say what failed and what is left; return 1 where there is any of it, else 0."""
    lacking = {kind: [name for name, outcome in outcomes.items() if outcome == kind] for kind in ("failed", "left")}
    for kind, names in lacking.items():
        if names:
            print(f"{kind}: {', '.join(names)}", flush=True)
    if lacking["left"]:
        print("the same command goes on with what is left", flush=True)
    return int(any(lacking.values()))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except InputError as error:
        raise SystemExit(f"error: {error}") from None
