"""The sample set: drawn scenes in the folder format, made in seconds, for demo, tests and notebooks.

Every object is a large plain body, of a colour that says nothing about its class, with a small badge whose pattern is
the class. A classifier needs the badge only, so a plain CAM lights the badge alone; masks cover the whole object.
"""

import math
from pathlib import Path

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageFilter

from tag2mask.errors import SettingError
from tag2mask.io import files, labels, records
from tag2mask.utils.progress import progress

CLASSES = ("cross", "dots", "ring", "stripes", "triangle")
COLOURS = ((214, 69, 65), (65, 131, 215), (245, 171, 53), (38, 166, 91), (155, 89, 182), (240, 240, 235))
SCALE = 3  # drawn larger, then shrunk, for smooth edges


def write_sample(root: Path, count: int = 160, validation: int = 40, seed: int = 0, overwrite: bool = False) -> bool:
    """Write a sample set of ``count`` scenes, of which ``val.txt`` lists ``validation`` and ``train.txt`` the others.

    Returns False where it stands already; ``overwrite`` replaces another one, of another ``seed`` or size.
    """
    config = {"prepare": "sample", "count": count, "validation": validation, "seed": seed}
    if records.same_run(root, config, overwrite):
        return False
    if not 0 <= validation < count:
        raise SettingError(f"{validation} of {count} scenes for validation; expected fewer than there are")
    (root / records.RUN_FILE).unlink(missing_ok=True)  # first: what is killed now is not "there already"
    for old in (*(root / "images").glob("scene_*.jpg"), *(root / "masks").glob("scene_*.png")):
        old.unlink()
    for folder in ("images", "masks"):
        files.remove_parts(root / folder, {f"scene_{number:04d}" for number in range(count)})
    rows, names = ["name,tags"], [f"scene_{number:04d}" for number in range(count)]
    for number, name in enumerate(progress(names, count, "scenes")):
        image, mask = draw_scene(np.random.default_rng([seed, number]))
        with files.atomic(root / "images" / f"{name}.jpg") as file:
            image.save(file, format="JPEG", quality=92)
        labels.write_label(root / "masks" / f"{name}.png", mask)
        rows.append(f"{name}," + " ".join(CLASSES[value - 1] for value in np.unique(mask) if value))
    train, val = names[: count - validation], names[count - validation :]
    lists = {"tags.csv": rows, "classes.txt": CLASSES, "train.txt": train, "val.txt": val}
    for file_name, lines in lists.items():
        with files.atomic(root / file_name) as file:
            file.write("\n".join([*lines, ""]).encode())
    records.write_run(root, config)
    return True


def draw_scene(rng: Generator) -> tuple[Image.Image, np.ndarray]:
    """Draw one scene: a photograph-like RGB image of 192 to 256 pixels a side, and its mask (H, W) uint8."""
    width, height = (int(side) for side in rng.integers(192, 257, 2))
    ground = np.clip(rng.integers(70, 170, 3) + rng.normal(0, 22, (6, 8, 3)), 0, 255).astype(np.uint8)  # muted, blotchy
    image = Image.fromarray(ground).resize((width * SCALE, height * SCALE), Image.Resampling.BICUBIC)
    image = image.filter(ImageFilter.GaussianBlur(SCALE))
    mask = Image.new("L", image.size, 0)
    kinds = rng.choice(len(CLASSES), size=1 + int(rng.random() < 0.6), replace=False)
    for place, kind in enumerate(kinds):
        _draw_object(rng, image, mask, int(kind), (place / len(kinds), (place + 1) / len(kinds)))
    small = image.resize((width, height), Image.Resampling.BOX)
    noisy = np.clip(np.asarray(small) + rng.normal(0, 4, (height, width, 3)), 0, 255).astype(np.uint8)
    return Image.fromarray(noisy), np.asarray(mask.resize((width, height), Image.Resampling.NEAREST))


def _draw_object(rng: Generator, image: Image.Image, mask: Image.Image, kind: int, span: tuple[float, float]) -> None:
    """Draw a body, a wobbly ellipse, with its badge into the part of the image between two shares of its width."""
    width, height = image.size
    room = (span[1] - span[0]) * width
    rx = room * rng.uniform(0.36, 0.48)
    ry = min(height * rng.uniform(0.3, 0.46), rx * 1.8)
    cx = span[0] * width + rng.uniform(rx, room - rx)
    cy = rng.uniform(ry, height - ry)
    colour = COLOURS[int(rng.integers(len(COLOURS)))]
    phase, lobes, depth = rng.uniform(0, 2 * math.pi), int(rng.integers(2, 6)), rng.uniform(0, 0.14)
    angles = np.linspace(0, 2 * math.pi, 90, endpoint=False)
    radius = 1 - depth + depth * np.cos(lobes * angles + phase)
    body = [(cx + rx * r * math.cos(a), cy + ry * r * math.sin(a)) for a, r in zip(angles, radius, strict=True)]
    ImageDraw.Draw(image).polygon(body, fill=colour)
    ImageDraw.Draw(mask).polygon(body, fill=kind + 1)
    angle = rng.uniform(0, 2 * math.pi)
    x, y = cx + 0.5 * rx * math.cos(angle), cy + 0.5 * ry * math.sin(angle)
    _draw_badge(ImageDraw.Draw(image), CLASSES[kind], x, y, max(9 * SCALE, min(rx, ry) * 0.2))


def _draw_badge(draw: ImageDraw.ImageDraw, name: str, x: float, y: float, size: float) -> None:
    """Draw a white disc around (x, y) with the pattern of the class in black; ``size`` is its radius."""

    def box(dx: float, dy: float, half_width: float, half_height: float) -> tuple[float, float, float, float]:
        left, top = x + (dx - half_width) * size, y + (dy - half_height) * size
        return left, top, left + 2 * half_width * size, top + 2 * half_height * size

    draw.ellipse(box(0, 0, 1, 1), fill=(255, 255, 255))
    black = (20, 20, 20)
    if name == "cross":
        draw.rectangle(box(0, 0, 0.2, 0.8), fill=black)
        draw.rectangle(box(0, 0, 0.8, 0.2), fill=black)
    elif name == "dots":
        for dx, dy in ((-0.4, -0.4), (0.4, -0.4), (-0.4, 0.4), (0.4, 0.4)):
            draw.ellipse(box(dx, dy, 0.26, 0.26), fill=black)
    elif name == "ring":
        draw.ellipse(box(0, 0, 0.75, 0.75), outline=black, width=max(1, round(0.3 * size)))
    elif name == "stripes":
        for dy in (-0.5, 0.0, 0.5):
            draw.rectangle(box(0, dy, 0.7, 0.13), fill=black)
    else:
        draw.polygon([(x + dx * size, y + dy * size) for dx, dy in ((0, -0.8), (0.75, 0.5), (-0.75, 0.5))], fill=black)
