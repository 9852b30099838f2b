"""What `tag2mask run` does with a folder of photographs: its stages, how long each takes, and with which settings.

Costs are seconds by the clock on two cores of an Intel Xeon, photographs of a long side of 384: of a run with forty of
them, and, for learned edges, of the chain in weights/animals_lite0.md. Epochs between forty photographs and 2,281 are
interpolated: a power of the number.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from tag2mask.errors import SettingError
from tag2mask.io.provenance import LAST

ENOUGH_FOR_EDGES = 200
"""Photographs with tags from which on a second network learns edges: 40 are too few for it, 437 gain; nothing between
was measured."""
UNTIL = ("cams", "labels", "masks")
EDGE_WALK, EDGE_EPOCHS = "tag2mask.refine.recipes.EdgeWalk", 3
ON_GPU = {
    "trainer.precision": "16-mixed",
    "data.init_args.batch_size": 16,
    "data.init_args.preprocessing.crop_size": 512,
}
SIDES_ON_GPU = {"cam_plain": [320, 640], "affinity": [320, 640], "segmentation": [256, 1024]}
"""Sizes that the comments of configs/folder name for a GPU. No `run` on a GPU has been measured."""


@dataclass(frozen=True)
class Facts:
    """What a plan depends on: photographs with tags and in all, their typical longer side, cores, a GPU or none."""

    tagged: int
    photographs: int
    side: int  # pixels
    cores: int
    gpu: bool = False


@dataclass(frozen=True)
class Choice:
    """How much work is done: epochs of each network; scales and mirror images of the CAMs; rounds of the probe."""

    cam_epochs: int
    mask_epochs: int
    scales: tuple[float, ...] = (0.5, 1.0, 1.5, 2.0)
    flip: bool = True
    edges: bool = False
    rounds: int = 2  # 0: no probe

    @property
    def quick(self) -> "Choice":
        """About half of the work: half the epochs, CAMs of one scale, one round of the probe."""
        cam, masks = max(1, self.cam_epochs // 2), max(1, self.mask_epochs // 2)
        return replace(self, cam_epochs=cam, mask_epochs=masks, scales=(1.0,), flip=False, rounds=min(self.rounds, 1))


def usual(facts: Facts) -> Choice:
    """Return what is done where nothing else is asked for."""
    tagged, edges = max(facts.tagged, 1), facts.tagged >= ENOUGH_FOR_EDGES
    share = min(1.0, (40 / tagged) ** 0.4)  # 15 epochs of 40 photographs, 3 of 2,281
    return Choice(round(15 * share), max(6, round(30 * share)), edges=edges, rounds=0 if edges else 2)


def seconds(choice: Choice, facts: Facts, until: str = "masks") -> dict[str, float]:
    """Return stage -> seconds on the machine of the measurement, in the order of the stages."""
    area = min(facts.side, 512) ** 2 / 384**2  # larger photographs are shrunk to 512
    views = sum(scale**2 for scale in choice.scales) * (2 if choice.flip else 1)
    tagged, every = facts.tagged, facts.photographs
    costs = {"CAM network": 6 + 0.083 * tagged * choice.cam_epochs, "CAMs": 6 + 0.043 * views * area * every}
    if until != "cams":
        if choice.edges:
            costs |= {"seeds": 6 + 0.37 * area * every, "edge network": 6 + 0.11 * EDGE_EPOCHS * tagged}
        first = 0.29 if choice.edges else 0.45
        costs["pseudo-labels"] = 6 + (first + 0.8 * choice.rounds) * area * every
    if until == "masks":
        costs |= {"segmentation network": 6 + 0.145 * every * choice.mask_epochs, "masks": 3 + 0.55 * area * every}
    return costs


def within(budget: float, usually: Choice, facts: Facts, until: str, speed: float) -> Choice:
    """Return the choice with the most work that fits into ``budget`` seconds; a fifth of the epochs at least.

    ``speed`` is how much faster this machine is than that of the measurement.

    Raises:
        SettingError: even the least work does not fit.
    """
    for start in (usually, usually.quick):
        for fifths in (5, 4, 3, 2, 1):
            cam, masks = (max(1, epochs * fifths // 5) for epochs in (start.cam_epochs, start.mask_epochs))
            choice = replace(start, cam_epochs=cam, mask_epochs=masks)
            if (least := sum(seconds(choice, facts, until).values()) / speed) <= budget:
                return choice
    raise SettingError(
        f"--time is too short: the least takes about {clock(least)}; give more time, or fewer photographs"
    )


def configurations(choice: Choice, facts: Facts, root: str, out: str) -> dict[str, dict[str, Any]]:
    """Return, of each configuration of `folder` that is used, what is set otherwise: setting with dots -> value."""

    def network(name: str, folder: str, epochs: int, more: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "trainer.default_root_dir": f"{out}/{folder}",
            "trainer.max_epochs": epochs,
            "data.init_args.root": root,
            "data.init_args.num_workers": min(4, facts.cores),
            **(ON_GPU | {"data.init_args.preprocessing.long_side": SIDES_ON_GPU[name]} if facts.gpu else {}),
            **more,
        }

    cams, labels, seeds = f"{out}/cam/cams", f"{out}/cam/labels", f"{out}/cam/seeds"
    views = {"model.init_args.inference": {"scales": list(choice.scales), "flip": choice.flip}}
    larger = {"data.init_args.preprocessing.max_side": 800} if facts.gpu else {}
    found = {
        "cam_plain": network("cam_plain", "cam", choice.cam_epochs, views | larger),
        "labels": {"cams": cams, "photos": root, "out": labels},
        "segmentation": network("segmentation", "segmentation", choice.mask_epochs, {"data.init_args.labels": labels}),
    }
    if choice.edges:
        found["seeds"] = {"cams": cams, "photos": root, "out": seeds}
        found["affinity"] = network("affinity", "affinity", EDGE_EPOCHS, {"data.init_args.labels": seeds})
        walk = {"class_path": EDGE_WALK, "init_args": {"checkpoint": f"{out}/affinity/{LAST}"}}
        found["labels"] |= {"recipe.init_args.walk": walk, "probe": None}
    else:
        found["labels"] |= {"probe.rounds": choice.rounds}
    return found


def edited(settings: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration with other values at some places; a place is named with dots."""
    result: dict[str, Any] = dict(settings)
    for place, value in changes.items():
        first, _, rest = place.partition(".")
        result[first] = edited(result.get(first) or {}, {rest: value}) if rest else value
    return result


def clock(time: float) -> str:
    """Return seconds as ``40 s``, ``12 min`` or ``3 h 5 min``."""
    if time < 90:
        return f"{time:.0f} s"
    hours, minutes = divmod(round(time / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def duration(text: str) -> float:
    """Read ``90s``, ``10m``, ``1.5h`` or a number of minutes, as seconds.

    Raises:
        SettingError: it is none of these, or not above 0.
    """
    number, unit = (text[:-1], text[-1].lower()) if text[-1:].isalpha() else (text, "m")
    with suppress(ValueError, KeyError):
        value = float(number) * {"s": 1, "m": 60, "h": 3600}[unit]
        if 0 < value < float("inf"):
            return value
    raise SettingError(f"--time {text}; expected a time above 0 such as 90s, 10m or 2h")
