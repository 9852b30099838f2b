"""What `tag2mask run` does with a folder of photographs: its stages, how long each takes, and with which settings.

Costs were measured with forty photographs of a long side of 384 (docs/experiments/forty-photographs.md).
Epochs between forty photographs and 2,281 are interpolated: a power of the number.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from tag2mask.errors import SettingError

ENOUGH_FOR_EDGES = 200
"""Photographs with tags from which on a second network learns edges: with 40 that does harm, with 437 it gains."""
UNTIL = ("cams", "labels", "masks")
EDGE_WALK = "tag2mask.refine.recipes.EdgeWalk"


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
    """Return stage -> seconds of one core of the machine of the measurement, in the order of the stages."""
    area = min(facts.side, 512) ** 2 / 384**2  # larger photographs are shrunk to 512
    views = sum(scale**2 for scale in choice.scales) * (2 if choice.flip else 1)
    tagged, every = facts.tagged, facts.photographs
    costs = {
        "CAM network": 6 + 0.12 * tagged * choice.cam_epochs,
        "CAMs": 6 + 0.09 * views * area * every,
    }
    if until != "cams":
        if choice.edges:
            costs |= {"seeds": 5 + 0.3 * area * every, "edge network": 6 + 0.22 * 3 * tagged}
        costs["pseudo-labels"] = 6 + (0.6 + 0.85 * choice.rounds) * area * every
    if until == "masks":
        costs |= {"segmentation network": 6 + 0.23 * every * choice.mask_epochs, "masks": 3 + 1.1 * area * every}
    return costs


def within(budget: float, usually: Choice, facts: Facts, until: str, speed: float) -> Choice:
    """Return the choice with the most work that fits into ``budget`` seconds; a fifth of the epochs at least.

    ``speed`` is how much faster this machine is than one core of that of the measurement.

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
    workers = min(4, facts.cores)
    sizes = {"num_workers": workers} | ({"batch_size": 16} if facts.gpu else {})
    trainer = {"trainer.precision": "16-mixed"} if facts.gpu else {}
    large = {"preprocessing.crop_size": 512} if facts.gpu else {}

    def network(folder: str, epochs: int, **data: Any) -> dict[str, Any]:
        inner = {"root": root, **sizes, **large, **data}
        return {
            "trainer.default_root_dir": f"{out}/{folder}",
            "trainer.max_epochs": epochs,
            **trainer,
            **{f"data.init_args.{key}": value for key, value in inner.items()},
        }

    sides = {"preprocessing.long_side": [320, 640], "preprocessing.max_side": 800} if facts.gpu else {}
    cams, labels, seeds = f"{out}/cam/cams", f"{out}/cam/labels", f"{out}/cam/seeds"
    found: dict[str, dict[str, Any]] = {
        "cam_plain": network("cam", choice.cam_epochs, **sides)
        | {"model.init_args.inference": {"scales": list(choice.scales), "flip": choice.flip}},
        "labels": {"cams": cams, "photos": root, "out": labels},
        "segmentation": network("segmentation", choice.mask_epochs, labels=labels)
        | ({"data.init_args.preprocessing.long_side": [256, 1024]} if facts.gpu else {}),
    }
    if choice.edges:
        sides.pop("preprocessing.max_side", None)
        found["seeds"] = {"cams": cams, "photos": root, "out": seeds}
        found["affinity"] = network("affinity", 3, labels=seeds, **sides)
        walk = {"class_path": EDGE_WALK, "init_args": {"checkpoint": f"{out}/affinity/checkpoints/last.ckpt"}}
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
        ValueError: it is none of these, or not above 0.
    """
    units = {"s": 1.0, "m": 60.0, "h": 3600.0}
    unit = text[-1:].lower()
    value = float(text[:-1] if unit in units else text) * units.get(unit, 60.0)
    if not 0 < value < float("inf"):
        raise ValueError(text)
    return value
