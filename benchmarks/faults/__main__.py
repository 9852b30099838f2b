"""Spoil files, kill commands, fill disks: does everything end well?

usage: python -m benchmarks.faults [--share 1] [--seed N] [--only mutants|commands] [--out benchmarks/out/faults.json]

Of every reader 300 mutants of a small file are read: each must be refused in one line that names the file, or give a
value that can be true, within ten seconds. Of 100 commands each is killed, with all of its processes, at a random
moment, and given again: it must end well, with the files of an unbroken run, byte by byte. Each of these commands is
also given twice at once, and on disks that are too small. ``--share 0.05`` does a twentieth
of it, of the commands too; the seed is the day's unless it is given, and it is printed. The status is 1 where
something ended badly; the file or the command is printed then, the smallest first.
"""

import argparse
import base64
import random
import shutil
import sys
import tempfile
import time
import warnings
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.faults import kills, readers
from benchmarks.record import write_record

MUTANTS, KILLS, SECONDS = 300, 100, 10.0
DISKS = (0.1, 0.4, 0.7, 0.9)  # parts of what the command writes
Row = dict[str, Any]


def mutants(share: float, seed: int, work: Path) -> list[Row]:
    """Read mutants of every kind of file; a row for each reader."""
    rows, count = [], max(1, round(share * MUTANTS))
    for number, (name, make, read) in enumerate(readers.READERS):
        folder = work / f"reader{number}"
        folder.mkdir(parents=True)
        path, rng = folder / name, random.Random(f"{seed} {number}")
        make(path)
        whole, bad = path.read_bytes(), []
        for _ in range(count):
            path.write_bytes(content := readers.mutant(whole, rng))
            begin = time.monotonic()
            end = readers.bad_end(read, path)
            if time.monotonic() - begin > SECONDS:
                end = end or f"took more than {SECONDS:g} s"
            if end:
                bad.append((len(content), end, base64.b64encode(content).decode()))
        rows.append({"what": f"{name}: {read.__name__}", "tried": count, "bad": [each[1:] for each in sorted(bad)]})
        print(f"{rows[-1]['what']:<40} {count:>5} mutants, {len(bad)} bad ends", flush=True)
    return rows


def commands(share: float, seed: int, work: Path) -> list[Row]:
    """Kill commands, give them twice, fill disks; a row for each."""
    rows, rng = [], random.Random(seed)
    stages = kills.prepared(work / "base")
    if share < 1:  # at least one
        stages = rng.sample(stages, max(1, round(share * len(stages))))
    for number, stage in enumerate(stages):
        expected, seconds = kills.reference(stage, work / f"reference{number}")
        tries = max(1, round(share * stage.share * KILLS / 100))
        outs = [work / f"out{number}_{index}" for index in range(tries)]
        found = [kills.killed(stage, out, expected, seconds, rng) for out in outs]
        rows.append(row(f"{stage.name}: killed", found))
        rows.append(row(f"{stage.name}: twice at once", [kills.twice(stage, work / f"twice{number}", expected)]))
        found = []
        size = sum(path.stat().st_size for path in (work / f"reference{number}").rglob("*") if path.is_file())
        for part in DISKS:
            kilobytes = max(8, round(part * size / 1024))
            with kills.small_disk(work / f"disk{number}_{kilobytes}", kilobytes) as allowed:
                if allowed:
                    found.append(kills.on_small_disk(stage, work / f"disk{number}_{kilobytes}", expected))
        rows.append(row(f"{stage.name}: small disk", found))
    return rows


def row(what: str, found: list[str | None]) -> Row:
    """Print and return a row."""
    bad = [each for each in found if each]
    tried = f"{len(found):>5} times, {len(bad)} bad ends" if found else "not run: no disk may be mounted here"
    print(f"{what:<40} {tried}", *bad, sep="\n    ", flush=True)
    return {"what": what, "tried": len(found), "bad": bad}


def main() -> int:
    """Do the share, print the rows, write JSON; return the status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=int(datetime.now().astimezone().strftime("%Y%m%d")))
    parser.add_argument("--only", choices=("mutants", "commands"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out/faults.json"))
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # of decoders
    print(f"seed {options.seed}, share {options.share:g}")
    work = Path(tempfile.mkdtemp(prefix="faults"))
    try:
        rows = [] if options.only == "commands" else mutants(options.share, options.seed, work)
        rows += [] if options.only == "mutants" else commands(options.share, options.seed, work)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    bad = sum(len(each["bad"]) for each in rows)
    write_record(options.out, {"seed": options.seed, "share": options.share, "rows": rows})
    print(f"{sum(each['tried'] for each in rows)} tried, {bad} bad ends (seed {options.seed}); {options.out}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
