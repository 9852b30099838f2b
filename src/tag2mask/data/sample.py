"""The sample set: drawn scenes in the folder format, made in seconds, for demo, tests and notebooks.

Every object is a large plain body, of a colour that says nothing about its class, with a small telling badge whose
pattern is the class. A classifier needs the badge only, so a plain CAM lights the badge, and there is something to
extend. Masks cover the whole object.
"""

import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from tag2mask.errors import InputError
from tag2mask.io.files import atomic
from tag2mask.io.labels import write_label
from tag2mask.io.records import same_run, write_run
from tag2mask.utils.progress import progress

CLASSES = ("cross", "dots", "ring", "stripes", "triangle")
COLOURS = ((214, 69, 65), (65, 131, 215), (245, 171, 53), (38, 166, 91), (155, 89, 182), (240, 240, 235))
SCALE = 3  # drawn larger, then shrunk, for smooth edges


def write_sample(root: Path, count: int = 160, validation: int = 40, seed: int = 0, overwrite: bool = False) -> bool:
    """Write the sample set; return False where it stands already.

    Args:
        root: folder that is made or filled: ``images``, ``masks``, ``tags.csv``, ``classes.txt``, ``train.txt``,
            ``val.txt``, and ``run.json``.
        count: scenes in all.
        validation: how many of them are listed in ``val.txt`` and not in ``train.txt``.
        seed: of the drawing.
        overwrite: replace another sample set.
    """
    config = {"prepare": "sample", "count": count, "validation": validation, "seed": seed}
    if same_run(root, config, overwrite):
        return False
    if not 0 <= validation < count:
        raise InputError(f"{validation} of {count} scenes for validation; expected fewer than there are")
    for old in (*(root / "images").glob("scene_*.jpg"), *(root / "masks").glob("scene_*.png")):
        old.unlink()
    rows, names = ["name,tags"], []
    for number in progress(range(count), count, "scenes"):
        image, mask = draw_scene(np.random.default_rng([seed, number]))
        name = f"scene_{number:04d}"
        names.append(name)
        with atomic(root / "images" / f"{name}.jpg") as file:
            image.save(file, format="JPEG", quality=92)
        write_label(root / "masks" / f"{name}.png", mask)
        rows.append(f"{name}," + " ".join(CLASSES[value - 1] for value in np.unique(mask) if value))
    lists = {
        "tags.csv": rows,
        "classes.txt": list(CLASSES),
        "train.txt": names[: count - validation],
        "val.txt": names[count - validation :],
    }
    for file_name, lines in lists.items():
        with atomic(root / file_name) as file:
            file.write("\n".join([*lines, ""]).encode())
    write_run(root, config)
    return True


def draw_scene(rng: np.random.Generator) -> tuple[Image.Image, np.ndarray]:
    """Draw one scene: a photograph-like RGB image of 192 to 256 pixels a side, and its mask (H, W) uint8."""
    width, height = (int(side) for side in rng.integers(192, 257, 2))
    image = _background(rng, width * SCALE, height * SCALE)
    mask = Image.new("L", image.size, 0)
    kinds = rng.choice(len(CLASSES), size=1 + int(rng.random() < 0.6), replace=False)
    for place, kind in enumerate(kinds):
        left, right = place / len(kinds), (place + 1) / len(kinds)
        _object(rng, image, mask, int(kind), (left, right))
    small = image.resize((width, height), Image.Resampling.BOX)
    noise = rng.normal(0, 4, (height, width, 3))
    noisy = Image.fromarray(np.clip(np.asarray(small) + noise, 0, 255).astype(np.uint8))
    return noisy, np.asarray(mask.resize((width, height), Image.Resampling.NEAREST))


def _background(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Muted, blotchy ground."""
    base = rng.integers(70, 170, 3)
    coarse = np.clip(base + rng.normal(0, 22, (6, 8, 3)), 0, 255).astype(np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    return image.filter(ImageFilter.GaussianBlur(SCALE))


def _object(
    rng: np.random.Generator, image: Image.Image, mask: Image.Image, kind: int, span: tuple[float, float]
) -> None:
    """Draw a body with its badge into the part of the image between two shares of its width."""
    width, height = image.size
    room = (span[1] - span[0]) * width
    rx = room * rng.uniform(0.36, 0.48)
    ry = min(height * rng.uniform(0.3, 0.46), rx * 1.8)
    cx = span[0] * width + rng.uniform(rx, room - rx)
    cy = rng.uniform(ry, height - ry)
    colour = COLOURS[int(rng.integers(len(COLOURS)))]
    outline = _body(rng, cx, cy, rx, ry)
    ImageDraw.Draw(image).polygon(outline, fill=colour)
    ImageDraw.Draw(mask).polygon(outline, fill=kind + 1)
    size = max(9 * SCALE, min(rx, ry) * 0.2)
    angle = rng.uniform(0, 2 * math.pi)
    at = (cx + 0.5 * rx * math.cos(angle), cy + 0.5 * ry * math.sin(angle))
    _badge(ImageDraw.Draw(image), CLASSES[kind], at, size)


def _body(rng: np.random.Generator, cx: float, cy: float, rx: float, ry: float) -> list[tuple[float, float]]:
    """A wobbly ellipse as a polygon."""
    phase, lobes, depth = rng.uniform(0, 2 * math.pi), int(rng.integers(2, 6)), rng.uniform(0, 0.14)
    angles = np.linspace(0, 2 * math.pi, 90, endpoint=False)
    radius = 1 - depth + depth * np.cos(lobes * angles + phase)
    return [(cx + rx * r * math.cos(a), cy + ry * r * math.sin(a)) for a, r in zip(angles, radius, strict=True)]


def _badge(draw: ImageDraw.ImageDraw, name: str, at: tuple[float, float], size: float) -> None:
    """A white disc with the pattern of the class in black."""
    x, y = at
    s = size

    def box(radius: float, dx: float = 0, dy: float = 0) -> tuple[float, float, float, float]:
        return x + dx - radius, y + dy - radius, x + dx + radius, y + dy + radius

    draw.ellipse(box(s), fill=(255, 255, 255))
    black = (20, 20, 20)
    if name == "cross":
        draw.rectangle((x - 0.2 * s, y - 0.8 * s, x + 0.2 * s, y + 0.8 * s), fill=black)
        draw.rectangle((x - 0.8 * s, y - 0.2 * s, x + 0.8 * s, y + 0.2 * s), fill=black)
    elif name == "dots":
        for dx, dy in ((-0.4, -0.4), (0.4, -0.4), (-0.4, 0.4), (0.4, 0.4)):
            draw.ellipse(box(0.26 * s, dx * s, dy * s), fill=black)
    elif name == "ring":
        draw.ellipse(box(0.75 * s), outline=black, width=max(1, round(0.3 * s)))
    elif name == "stripes":
        for dy in (-0.5, 0.0, 0.5):
            draw.rectangle((x - 0.7 * s, y + (dy - 0.13) * s, x + 0.7 * s, y + (dy + 0.13) * s), fill=black)
    else:
        draw.polygon([(x, y - 0.8 * s), (x + 0.75 * s, y + 0.5 * s), (x - 0.75 * s, y + 0.5 * s)], fill=black)
