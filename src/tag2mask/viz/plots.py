"""Pictures as RGB arrays (H, W, 3) uint8. H x W is the size of a photograph, h x w that of a map of it.

``strength`` is always the largest share of the colours that are laid over a photograph.
"""

import math
import textwrap
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from cycler import cycler
from matplotlib import colormaps, rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager, get_font
from matplotlib.patches import Patch
from PIL import Image, ImageDraw, ImageFont

from tag2mask import classes

PREFERRED = (
    *("DejaVu Sans", "Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans CJK TC", "Noto Sans CJK KR"),
    *("WenQuanYi Zen Hei", "IPAGothic", "Hiragino Sans", "PingFang SC", "Yu Gothic", "Microsoft YaHei"),
    *("Malgun Gothic", "Apple SD Gothic Neo", "Nirmala UI", "Noto Sans Devanagari", "Arial Unicode MS"),
)
FONTS = [font for font in PREFERRED if font in fontManager.get_font_names()]
"""A letter is drawn in the first of these fonts that has it; the first one of all comes with matplotlib."""
BLUE, ORANGE, *_ = COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
"""Colours of charts, by Okabe and Ito: colour-blind people can tell them apart."""
SMALL, DPI, GAP = 9, 100, 6
"""Size of letters in points, pixels to an inch, and pixels between the pictures of a row."""
STYLE: Any = {
    "font.family": FONTS,
    "text.parse_math": False,  # a name with dollars is no formula
    **dict.fromkeys(("axes.titlesize", "axes.labelsize"), SMALL),
    **dict.fromkeys(("legend.fontsize", "xtick.labelsize", "ytick.labelsize"), SMALL - 1),
    "axes.prop_cycle": cycler(color=COLOURS),
    "figure.dpi": DPI,
    "legend.frameon": False,
}
BESIDE: Any = {"loc": "upper left", "bbox_to_anchor": (1, 1)}  # a legend there hides nothing


def heat(image: np.ndarray, cam: np.ndarray, strength: float = 0.6) -> np.ndarray:
    """Lay a CAM (h, w) in [0, 1] over its photograph (H, W, 3) uint8."""
    value = np.clip(_as_large(cam, image), 0, 1)
    colours = colormaps["turbo"]((value * 255).astype(np.uint8), bytes=True)[..., :3]
    return _blend(image, colours, strength * (0.35 + 0.65 * value))


def overlay(image: np.ndarray, label: np.ndarray, strength: float = 0.5) -> np.ndarray:
    """Lay the objects of a label map (H, W) over its photograph (H, W, 3) uint8, with outlines of the whole colour."""
    label = np.asarray(label, np.uint8)
    edge = np.zeros(label.shape, bool)
    edge[:, 1:] |= label[:, 1:] != label[:, :-1]
    edge[1:] |= label[1:] != label[:-1]
    return _blend(image, label_colours(label), np.where(edge, 1, strength) * (label != classes.BACKGROUND))


def label_colours(label: np.ndarray) -> np.ndarray:
    """Colour a label map (H, W) with the VOC palette."""
    return classes.palette()[np.asarray(label, np.uint8)]


def difference(image: np.ndarray, change: np.ndarray, strength: float = 0.9) -> np.ndarray:
    """Lay the change of a map (h, w) over a photograph (H, W, 3) in grey, orange where it grew, else blue."""
    scaled = _as_large(change, image)
    colours = np.where((scaled > 0)[..., None], to_rgb(ORANGE), to_rgb(BLUE)) * 255
    return _blend(_grey(image), colours, strength * np.abs(scaled) / max(float(np.abs(scaled).max()), 1e-12))


def attended(image: np.ndarray, weights: np.ndarray, at: tuple[float, float]) -> np.ndarray:
    """Lay weights (h, w) >= 0 over a photograph as heat, grey where 0; mark the point ``at``, (x, y) in [0, 1]."""
    height, width = image.shape[:2]
    positive = Image.fromarray(weights > 0).resize((width, height), Image.Resampling.NEAREST)
    warm = heat(image, weights / max(float(weights.max()), 1e-12))
    picture = Image.fromarray(np.where(np.asarray(positive)[..., None], warm, _grey(image)))
    x, y = min(int(at[0] * width), width - 1), min(int(at[1] * height), height - 1)
    arm, thick = max(height, width) // 20, max(1, max(height, width) // 200)
    for colour, rim in (("black", thick), ("white", 0)):
        reach, line = arm + rim, 2 * (thick + rim)
        ImageDraw.Draw(picture).line((x - reach, y, x + reach, y), colour, line)
        ImageDraw.Draw(picture).line((x, y - reach, x, y + reach), colour, line)
    return np.array(picture)


def _as_large(values: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Scale a map (h, w) to the size of a photograph, (H, W) float32."""
    (height, width), small = image.shape[:2], Image.fromarray(np.asarray(values, np.float32))
    return np.asarray(small.resize((width, height), Image.Resampling.BILINEAR))


def _grey(image: np.ndarray) -> np.ndarray:
    return np.repeat(image.mean(2, keepdims=True), 3, axis=2).astype(np.uint8)


def _blend(image: np.ndarray, colours: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Mix two pictures (H, W, 3); ``share`` (H, W) is that of ``colours``."""
    share = share[..., None].astype(np.float32)
    return np.asarray(((1 - share) * image + share * colours).round(), np.uint8)


def panel(
    image: np.ndarray,
    cams: Mapping[str, np.ndarray],
    label: np.ndarray | None = None,
    truth: np.ndarray | None = None,
    title: str = "photograph",
) -> np.ndarray:
    """Draw a row: photograph (H, W, 3), the CAM (h, w) of each class by its name, label map and true mask (H, W)."""
    maps = {name: label_colours(values) for name, values in (("label", label), ("truth", truth)) if values is not None}
    return row([(title, image), *((name, heat(image, cam)) for name, cam in cams.items()), *maps.items()])


def row(parts: Sequence[tuple[str, np.ndarray]], height: float = 2.4) -> np.ndarray:
    """Set titled pictures side by side, ``height`` inches high, at 100 pixels an inch."""
    # by Pillow, as matplotlib is slow and rows are drawn while a network trains
    high, columns = round(height * DPI), []
    for title, pixels in parts:
        wide = max(1, round(pixels.shape[1] * high / pixels.shape[0]))
        picture = Image.fromarray(pixels).resize((wide, high), Image.Resampling.BILINEAR)
        letters = max(6, int(wide / DPI * 72 / (0.58 * SMALL)))
        columns.append(("\n".join(textwrap.wrap(_known(title), letters, break_on_hyphens=False)), picture))
    above = GAP + 15 * max(1 + title.count("\n") for title, _ in columns)  # 15 pixels for a line of a title
    sheet = Image.new("RGB", (GAP + sum(picture.width + GAP for _, picture in columns), above + high + GAP), "white")
    draw, left = ImageDraw.Draw(sheet), GAP
    for title, picture in columns:
        name = next((font for font in FONTS if all(_has(font, letter) for letter in title)), FONTS[0])
        font = ImageFont.truetype(fontManager.findfont(name), round(SMALL * DPI / 72))
        bottom = left + picture.width / 2, above - GAP // 2
        draw.multiline_text(bottom, title, "black", font, anchor="md", align="center", spacing=GAP // 2)
        sheet.paste(picture, (left, above))
        left += picture.width + GAP
    return np.array(sheet)


def fit(picture: np.ndarray, side: int) -> np.ndarray:
    """Shrink a picture (H, W, 3) to a longer side of at most ``side`` pixels."""
    image = Image.fromarray(picture)
    image.thumbnail((side, side), Image.Resampling.BILINEAR, reducing_gap=None)
    return np.array(image)


def column(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Stack pictures of different width, filling up with white."""
    width = max(picture.shape[1] for picture in rows)
    return np.concatenate([np.pad(p, ((0, 0), (0, width - p.shape[1]), (0, 0)), constant_values=255) for p in rows])


def gallery(parts: Sequence[tuple[str, np.ndarray]], columns: int = 4, height: float = 2.0) -> np.ndarray:
    """Draw titled pictures in rows of ``columns``, each ``height`` inches high."""
    return column([row(parts[first : first + columns], height) for first in range(0, len(parts), columns)])


@rc_context(STYLE)
def key(names: Mapping[int, str], columns: int = 8) -> np.ndarray:
    """Draw the colours of label maps: mask value -> name."""
    columns = min(columns, len(names))
    wide, high = 0.45 + 0.09 * max(map(len, names.values())), 0.15 + 0.2 * math.ceil(len(names) / columns)
    figure = Figure((columns * wide, high))
    patches = [Patch(color=classes.palette()[value] / 255, label=_known(name)) for value, name in names.items()]
    figure.legend(handles=patches, ncols=columns, loc="center", handlelength=1, fontsize=SMALL)
    return _drawn(figure)


@rc_context(STYLE)
def lines(
    x: Sequence[float], curves: Mapping[str, Sequence[float]], across: str, up: str, mark: float | None = None
) -> np.ndarray:
    """Draw curves of values in [0, 1], called ``up``, over ``x``, called ``across``; a vertical line at ``mark``."""
    axis = Figure((5.0, 2.8), layout="constrained").subplots()
    for name, values in curves.items():
        axis.plot(x, values, label=_known(name))
    if mark is not None:
        axis.axvline(mark, color="black", linewidth=1, linestyle=":")
    axis.set(xlabel=_known(across), ylabel=_known(up), ylim=(0, 1))
    axis.grid(alpha=0.3)
    axis.legend(**BESIDE)
    return _drawn(axis.figure)


@rc_context(STYLE)
def bars(names: Sequence[str], groups: Mapping[str, Sequence[float]], title: str = "") -> np.ndarray:
    """Draw a row of horizontal bars for each name, one for each group; values that are nan leave a gap."""
    axis = Figure((5.0, 0.7 + len(names) * (0.1 + 0.16 * len(groups))), layout="constrained").subplots()
    thick = 0.8 / len(groups)
    for index, (group, values) in enumerate(groups.items()):
        places = np.arange(len(names)) + (index - (len(groups) - 1) / 2) * thick
        drawn = axis.barh(places, np.nan_to_num(values), thick, label=_known(group))
        axis.bar_label(drawn, [f"{v:.3g}" if v == v else "-" for v in values], padding=2, fontsize=SMALL - 2)
    axis.set_yticks(range(len(names)), [_known(name) for name in names])
    axis.invert_yaxis()
    axis.margins(x=0.12)
    axis.set_title(_known(title))
    if len(groups) > 1:
        axis.legend(**BESIDE)
    return _drawn(axis.figure)


@rc_context(STYLE)
def matrix(values: np.ndarray, rows: Sequence[str], columns: Sequence[str], title: str = "") -> np.ndarray:
    """Draw a table of numbers in [0, 1] as percent, darker where higher; nan stays empty."""
    axis = Figure((1.5 + 0.5 * len(columns), 1.2 + 0.32 * len(rows)), layout="constrained").subplots()
    axis.imshow(np.nan_to_num(values), cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axis.set_xticks(range(len(columns)), [_known(name) for name in columns], rotation=45, ha="right")
    axis.set_yticks(range(len(rows)), [_known(name) for name in rows])
    for (y, x), value in np.ndenumerate(values):
        if value == value:
            axis.text(x, y, f"{100 * value:.0f}", ha="center", va="center", color="white" if value > 0.6 else "black")
    axis.set_title(_known(title))
    return _drawn(axis.figure)


def _drawn(figure: Any) -> np.ndarray:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3]


def _known(name: str) -> str:
    """Return a name with the number of each letter that no font has."""
    unknown = [letter for letter in name if not any(_has(font, letter) for font in FONTS)]
    return name.translate({ord(letter): letter.encode("ascii", "backslashreplace").decode() for letter in unknown})


@cache
def _has(font: str, letter: str) -> bool:
    return letter.isspace() or get_font(fontManager.findfont(font)).get_char_index(ord(letter)) > 0
