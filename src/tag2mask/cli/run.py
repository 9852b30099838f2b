"""Everything for photographs of your own: from a folder with tags to masks, a network and a report.

Settings are chosen from the number and size of the photographs and from the machine, shown, and
written as whole configurations into the run folder: edit them, or give them to `fit`, `labels`, ...

reads   FOLDER: images/ and tags.csv
writes  the run folder, runs/ and the name of FOLDER: configurations, networks, CAMs, labels,
        report.html, and masks/ with a mask and an overlay of each photograph
again   the same command goes on where it stopped; photographs that have changed stop it

Examples:
  tag2mask run photographs
  tag2mask run photographs --time 10m --until labels
"""

from dataclasses import asdict
from pathlib import Path
from statistics import median
from time import monotonic, perf_counter
from typing import Any, NamedTuple

import numpy as np
import yaml

from tag2mask.cli import plan
from tag2mask.cli.configs import shipped
from tag2mask.cli.main import dispatch
from tag2mask.cli.options import Parser
from tag2mask.data.folder import folder_photos
from tag2mask.io import disk
from tag2mask.io.files import atomic, decoding, read_json, write_json
from tag2mask.io.images import read_size
from tag2mask.io.labels import read_label
from tag2mask.io.provenance import LAST, vanished
from tag2mask.io.records import changed_setting, other_configuration, record_of
from tag2mask.report import write_report
from tag2mask.utils.processes import cores
from tag2mask.utils.progress import shown

PLAN = "plan.json"
FORWARD = 0.3
"""Seconds of the forward pass of `_speed` on the machine of the measurement (0.27 to 0.38 in nine tries)."""
STAGES = {
    "CAM network": ("fit", "cam_plain"),
    "CAMs": ("predict", "cam_plain"),
    "seeds": ("labels", "seeds"),
    "edge network": ("fit", "affinity"),
    "pseudo-labels": ("labels", "labels"),
    "segmentation network": ("fit", "segmentation"),
}
"""Stage -> verb and configuration; the stage of the masks, `segment`, has none."""


class Results(NamedTuple):
    """Where `run` has put what it made; None for what it did not make."""

    masks: Path | None
    report: Path
    network: Path | None


class Clock:
    """Shares of the work, and the time left, by what each stage should cost and what the stages before took."""

    def __init__(self, costs: dict[str, float], speed: float) -> None:
        """Begin; ``speed`` is that of `_speed`, until stages have shown theirs."""
        self.costs, self.speed, self.left = costs, speed, sum(costs.values())
        self.shown = self.spent = 0.0
        self.last: tuple[float, float] | None = None

    def line(self, stage: str) -> str:
        """Return the line that stands before a stage."""
        now, cost, total = monotonic(), self.costs[stage], sum(self.costs.values())
        if self.last is not None:
            expected, took = self.last[1], now - self.last[0]
            if took * self.speed > expected / 5:  # else most of it was done before
                self.shown, self.spent = self.shown + expected, self.spent + took
        speed = self.shown / self.spent if self.spent else self.speed
        number, left = list(self.costs).index(stage) + 1, plan.clock(self.left / speed)
        self.last, self.left = (now, cost), self.left - cost
        return f"{number} of {len(self.costs)}: {stage}, {cost / total:.0%} of the work; about {left} to the end"


def run(words: list[str]) -> int:
    """Run the verb; return the exit status: 1 where some photographs were skipped."""
    parser = Parser("tag2mask run", __doc__)
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="with images/ and tags.csv")
    parser.add_argument("--out", type=Path, help="run folder (runs/ and the name of FOLDER)")
    parser.add_argument("--until", choices=plan.UNTIL, default="masks", help="the last thing to make (masks)")
    parser.add_argument("--time", help="such as 90s, 10m, 2h: less work if need be")
    parser.add_argument("--quick", action="store_true", help="about half of the work")
    parser.add_argument("--overwrite", action="store_true", help="choose anew, and replace what is there")
    args = parser.parse_args(words)
    status, _ = run_folder(args.folder, args.out, args.until, args.time, args.quick, args.overwrite)
    return status


def run_folder(
    folder: Path,
    out: Path | None = None,
    until: str = "masks",
    time: str | None = None,
    quick: bool = False,
    overwrite: bool = False,
) -> tuple[int, Results]:
    """Do all stages for a folder of photographs with tags; return the exit status and where the results are.

    Raises:
        InputError: of each stage; a ``time`` that is no time, or too short.
    """
    out = out or Path("runs") / folder.resolve().name
    asked = {"folder": str(folder.resolve()), "time": None if time is None else plan.duration(time), "quick": quick}
    dispatch(["prepare", "folder", str(folder)])
    facts = _facts(folder)
    speed = _speed(facts)
    choice = _choice(out, facts, until, asked, speed, overwrite)
    files = _configurations(choice, facts, folder, out, overwrite)
    clock, status = Clock(plan.seconds(choice, facts, until), speed), 0
    for stage in clock.costs:
        print(f"\n{clock.line(stage)}", flush=True)
        if stage == "masks":
            network = ["--checkpoint", str(out / "segmentation" / LAST), "--out", str(out / "masks")]
            views = ["--scales", "0.75,1,1.5", "--flip"]
            command = ["segment", str(folder / "images"), *network, *views]
        else:
            verb, name = STAGES[stage]
            command = [verb, "--config", str(files[name]), *(["--overwrite"] if overwrite else [])]
        status |= dispatch(command)
    print()
    write_report(out)
    results = Results(
        out / "masks" if until == "masks" else None,
        out / "report.html",
        out / "segmentation" / LAST if until == "masks" else None,
    )
    print("\n".join(_ending(folder, out, results)))
    return status, results


def _facts(folder: Path) -> plan.Facts:
    """Look at the photographs and at the machine."""
    import torch

    every, tagged = folder_photos(folder, "all"), folder_photos(folder, "train")
    side = int(median(max(read_size(photo.image)) for photo in disk.sample(every)))
    return plan.Facts(len(tagged), len(every), side, cores(), torch.cuda.is_available())


def _speed(facts: plan.Facts) -> float:
    """Return how much faster this machine is than that of the measurement, by a network's forward pass."""
    import timm
    import torch

    device = "cuda" if facts.gpu else "cpu"
    net = timm.create_model("tf_efficientnet_lite0", pretrained=False).to(device).eval()
    images, times = torch.zeros(8, 3, 256, 256, device=device), []
    with torch.inference_mode():
        for _ in range(5):
            start = perf_counter()
            net(images).cpu()
            times.append(perf_counter() - start)
    return FORWARD / median(times[1:])


def _choice(
    out: Path, facts: plan.Facts, until: str, asked: dict[str, Any], speed: float, overwrite: bool
) -> plan.Choice:
    """Choose, or take what an earlier call has chosen for the same wishes."""
    path = out / PLAN
    if path.is_file() and not overwrite:
        before = read_json(path)
        with decoding(path, "a plan of `tag2mask run`", "delete it, or give --overwrite"):
            changed = changed_setting(before, asked)
            choice = plan.Choice(**{**before["choice"], "scales": tuple(before["choice"]["scales"])})
        if changed:
            raise other_configuration(out, changed)
        return choice
    choice = plan.usual(facts).quick if asked["quick"] else plan.usual(facts)
    if asked["time"] is not None:
        choice = plan.within(asked["time"], choice, facts, until, speed)
    write_json(path, {"config": asked, "choice": asdict(choice), "facts": asdict(facts), "speed": speed})
    return choice


def _configurations(
    choice: plan.Choice, facts: plan.Facts, folder: Path, out: Path, overwrite: bool
) -> dict[str, Path]:
    """Write each configuration that does not stand there yet, and show what was chosen; return name -> file."""
    found = plan.configurations(choice, facts, str(folder), str(out))
    files = {name: out / f"{name}.yaml" for name in found}
    for name, path in files.items():
        changes = found[name]
        if path.exists() and not overwrite:
            print(f"{path}: as it stands")
            continue
        settings = plan.edited(yaml.safe_load(shipped(f"folder/{name}").read_text(encoding="utf-8")), changes)
        chosen = shown(", ".join(f"{key.rsplit('.', 1)[-1]} {value}" for key, value in changes.items()))
        head = f"# folder/{name} of tag2mask, whose comments give the reasons, with {chosen}\n"
        with atomic(path) as file:
            file.write((head + yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)).encode())
        print(f"{path}: folder/{name} with {chosen}")
    return files


def _ending(folder: Path, out: Path, results: Results) -> list[str]:
    """Say where everything is, how far it can be trusted, and what comes next."""
    lines = []
    labels = record_of(out / "cam" / "labels")
    if labels and labels.get("vanished"):
        lines.append(f"labels: {vanished(labels)}")
    if results.masks is not None:
        missing, tagged = _lacking(folder, results.masks)
        lines.append(f"masks: {results.masks}: NAME.png and NAME_overlay.jpg; run.json there names the classes")
        lines.append(f"the mask lacks a tag in {len(missing)} of {tagged} photographs with tags")
        if missing:
            lines[-1] += f"; look at these first: {', '.join(missing[:10])}{', ...' if len(missing) > 10 else ''}"
    lines.append(f"report: {results.report}")
    if results.network is not None:
        lines.append(f"next: tag2mask segment OTHER_PHOTOGRAPHS --checkpoint {results.network}")
    return lines


def _lacking(folder: Path, masks: Path) -> tuple[list[str], int]:
    """Return the photographs whose mask lacks a tag, and count all that have tags and a mask."""
    whole = {}
    for photo in folder_photos(folder, "train"):
        path = masks / f"{photo.image.stem}.png"
        if photo.tags and path.is_file():
            whole[photo.name] = set(photo.tags) <= set(np.unique(read_label(path)))
    return [name for name, every in whole.items() if not every], len(whole)
