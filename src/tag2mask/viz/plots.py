"""Pictures: overlays, label maps, panels and charts, as RGB arrays (H, W, 3) uint8. The only user of matplotlib.

Shape letters in this file: H x W a photograph, h x w a map of it.
"""

import math
import textwrap
from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, fontManager, get_font
from matplotlib.patches import Patch
from PIL import Image, ImageDraw, ImageFont

from tag2mask import classes

FONT = "DejaVu Sans"
"""Comes with matplotlib; Latin, Greek, Cyrillic, Arabic and Hebrew letters."""
OTHER_FONTS = (
    *(f"Noto Sans CJK {place}" for place in ("JP", "SC", "TC", "KR")),
    *("WenQuanYi Zen Hei", "IPAGothic", "Hiragino Sans", "PingFang SC", "Yu Gothic", "Microsoft YaHei"),
    *("Malgun Gothic", "Apple SD Gothic Neo", "Nirmala UI", "Noto Sans Devanagari", "Arial Unicode MS"),
)
"""Those that have the letters which ``FONT`` lacks; taken where they are installed."""
BLUE, ORANGE, *_ = COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
"""Colours of charts, told apart by the colour-blind: Okabe and Ito's."""
SMALL = 9
"""Size of letters, in points."""
DPI = 100
"""Pixels to an inch of a row."""
GAP, LINE = 6, 15
"""Between the pictures of a row, and the height of a line of its titles, in pixels."""


def heat(image: np.ndarray, cam: np.ndarray, strength: float = 0.6) -> np.ndarray:
    """Lay a CAM over its photograph.

    Args:
        image: (H, W, 3) uint8.
        cam: in [0, 1], of any size, (h, w); scaled up bilinearly.
        strength: share of the heat colours where the CAM is 1.
    """
    value = np.clip(_scaled(cam, image.shape[:2]), 0, 1)[..., None]
    colours = colormaps["turbo"](np.asarray(value[..., 0] * 255, np.uint8), bytes=True)[..., :3]
    share = strength * (0.35 + 0.65 * value)
    return np.asarray((1 - share) * image + share * colours, np.uint8)


def overlay(image: np.ndarray, label: np.ndarray, strength: float = 0.5) -> np.ndarray:
    """Lay a label map (H, W) over its photograph (H, W, 3) uint8: classes tinted and outlined, the background as it is.

    ``strength`` is the share of the colour inside of an object; its outline has the whole colour.
    """
    label = np.asarray(label, np.uint8)
    edge = np.zeros(label.shape, bool)
    edge[:, 1:] |= label[:, 1:] != label[:, :-1]
    edge[1:] |= label[1:] != label[:-1]
    share = np.where(label == classes.BACKGROUND, 0, np.where(edge, 1, strength)).astype(np.float32)[..., None]
    return np.asarray(((1 - share) * image + share * label_colours(label)).round(), np.uint8)


def label_colours(label: np.ndarray) -> np.ndarray:
    """Colour a label map (H, W) with the VOC palette."""
    return classes.palette()[np.asarray(label, np.uint8)]


def panel(
    image: np.ndarray,
    cams: dict[str, np.ndarray],
    label: np.ndarray | None = None,
    truth: np.ndarray | None = None,
    title: str = "",
) -> np.ndarray:
    """Draw a row: photograph, the CAM of each class, label map, truth.

    Args:
        image: (H, W, 3) uint8.
        cams: class name -> CAM in [0, 1], (h, w).
        label: mask values, (H, W).
        truth: likewise.
        title: of the photograph.
    """
    parts = [(title or "photograph", image), *((name, heat(image, cam)) for name, cam in cams.items())]
    parts += [
        (name, label_colours(values)) for name, values in (("label", label), ("truth", truth)) if values is not None
    ]
    return row(parts)


def row(parts: Sequence[tuple[str, np.ndarray]], height: float = 2.4) -> np.ndarray:
    """Set titled pictures side by side, ``height`` inches high, at 100 pixels an inch.

    With Pillow and not as a matplotlib figure: rows are drawn while a network is training.
    """
    pictures = [_as_high_as(picture, round(height * DPI)) for _, picture in parts]
    titles = [_wrapped(name, picture.width / DPI) for (name, _), picture in zip(parts, pictures, strict=True)]
    above = GAP + LINE * max(title.count("\n") + 1 for title in titles)
    size = sum(picture.width + GAP for picture in pictures) + GAP, above + round(height * DPI) + GAP
    sheet, left = Image.new("RGB", size, "white"), GAP
    draw = ImageDraw.Draw(sheet)
    for title, picture in zip(titles, pictures, strict=True):
        for number, line in enumerate(reversed(title.split("\n"))):
            place = left + picture.width / 2, above - GAP // 2 - number * LINE
            draw.text(place, line, "black", _font(line), anchor="md")
        sheet.paste(picture, (left, above))
        left += picture.width + GAP
    return np.array(sheet)


def _as_high_as(picture: np.ndarray, height: int) -> Image.Image:
    width = max(1, round(picture.shape[1] * height / picture.shape[0]))
    return Image.fromarray(picture).resize((width, height), Image.Resampling.BILINEAR)


def _font(text: str) -> ImageFont.FreeTypeFont:
    """The first font that has all letters of a text, or else most people's."""
    return _opened(next((font for font in _fonts() if all(_has(font, letter) for letter in text)), FONT))


@cache
def _opened(font: str) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(fontManager.findfont(font), round(SMALL * DPI / 72))


def fit(picture: np.ndarray, side: int) -> np.ndarray:
    """Shrink a picture (H, W, 3) to a longer side of at most ``side`` pixels."""
    height, width = picture.shape[:2]
    share = min(1.0, side / max(height, width))
    size = max(1, round(width * share)), max(1, round(height * share))
    return picture if share == 1 else np.array(Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR))


def column(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Stack pictures of different width, filling up with white."""
    width = max(picture.shape[1] for picture in rows)
    return np.concatenate([np.pad(p, ((0, 0), (0, width - p.shape[1]), (0, 0)), constant_values=255) for p in rows])


def gallery(parts: Sequence[tuple[str, np.ndarray]], columns: int = 4, height: float = 2.0) -> np.ndarray:
    """Draw titled pictures in rows of ``columns``, each ``height`` inches high."""
    return column([row(parts[first : first + columns], height) for first in range(0, len(parts), columns)])


def key(names: Mapping[int, str], columns: int = 8) -> np.ndarray:
    """Draw the colours of label maps: mask value -> name."""
    columns = min(columns, len(names))
    size = columns * (0.45 + 0.09 * max(map(len, names.values()))), 0.15 + 0.2 * math.ceil(len(names) / columns)
    figure = Figure(figsize=size, dpi=100)
    patches = [Patch(color=classes.palette()[value] / 255, label=_text(name)) for value, name in names.items()]
    font = FontProperties(family=_fonts(), size=SMALL)
    figure.legend(handles=patches, ncols=columns, loc="center", frameon=False, handlelength=1, prop=font)
    return _drawn(figure)


def difference(image: np.ndarray, change: np.ndarray, strength: float = 0.9) -> np.ndarray:
    """Lay a change over its photograph in grey: orange where a map grew, blue where it shrank.

    Args:
        image: (H, W, 3) uint8.
        change: of either sign and of any size, (h, w); scaled up bilinearly. Its largest absolute value has the whole
            colour.
        strength: share of the colour there.
    """
    scaled = _scaled(change, image.shape[:2])
    value = np.abs(scaled) / max(float(np.abs(scaled).max()), 1e-12)
    colours = np.where((scaled > 0)[..., None], to_rgb(ORANGE), to_rgb(BLUE)) * 255
    grey = image.mean(2, keepdims=True)
    share = strength * value[..., None]
    return np.asarray((1 - share) * grey + share * colours, np.uint8)


def attended(image: np.ndarray, weights: np.ndarray, at: tuple[float, float]) -> np.ndarray:
    """Draw where a point of a photograph looks: weights as heat, grey where there are none, a cross at the point.

    Args:
        image: (H, W, 3) uint8.
        weights: of at least zero, of any size, (h, w); scaled so that the largest one is 1.
        at: the point, as shares of width and height in [0, 1].
    """
    height, width = image.shape[:2]
    seen = Image.fromarray(weights > 0).resize((width, height), Image.Resampling.NEAREST)
    warm = heat(image, weights / max(float(weights.max()), 1e-12))
    picture = np.where(np.asarray(seen)[..., None], warm, image.mean(2, keepdims=True).astype(np.uint8))
    x, y = min(int(at[0] * width), width - 1), min(int(at[1] * height), height - 1)
    arm, thick = max(height, width) // 20, max(1, max(height, width) // 200)
    for colour, more in ((0, thick), (255, 0)):  # white, with a black rim
        reach, half = arm + more, thick + more
        picture[max(0, y - half) : y + half, max(0, x - reach) : x + reach] = colour
        picture[max(0, y - reach) : y + reach, max(0, x - half) : x + half] = colour
    return picture


def lines(
    x: Sequence[float], curves: Mapping[str, Sequence[float]], across: str, up: str, mark: float | None = None
) -> np.ndarray:
    """Draw curves of values in [0, 1], called ``up``, over ``x``, called ``across``; a vertical line at ``mark``."""
    figure, axis = _chart(5.0, 2.8)
    for name, values in curves.items():
        axis.plot(x, values, label=_text(name))
    if mark is not None:
        axis.axvline(mark, color="black", linewidth=1, linestyle=":")
    axis.set_xlabel(_text(across), fontsize=SMALL, fontfamily=_fonts())
    axis.set_ylabel(_text(up), fontsize=SMALL, fontfamily=_fonts())
    axis.set_ylim(0, 1)
    axis.grid(alpha=0.3)
    _legend(axis)
    return _drawn(figure)


def bars(names: Sequence[str], groups: Mapping[str, Sequence[float]], title: str = "") -> np.ndarray:
    """Draw a row of horizontal bars for each name, one for each group; values that are nan leave a gap."""
    figure, axis = _chart(5.0, 0.7 + len(names) * (0.1 + 0.16 * len(groups)))
    thick = 0.8 / len(groups)
    for index, (group, values) in enumerate(groups.items()):
        places = np.arange(len(names)) + (index - (len(groups) - 1) / 2) * thick
        drawn = axis.barh(places, np.nan_to_num(values), thick, label=_text(group), color=COLOURS[index % len(COLOURS)])
        axis.bar_label(drawn, [f"{v:.3g}" if v == v else "-" for v in values], padding=2, fontsize=SMALL - 2)
    axis.set_yticks(range(len(names)), [_text(name) for name in names], fontfamily=_fonts())
    axis.invert_yaxis()
    axis.margins(x=0.12)
    axis.set_title(_text(title), fontsize=SMALL, fontfamily=_fonts())
    if len(groups) > 1:
        _legend(axis)
    return _drawn(figure)


def matrix(values: np.ndarray, rows: Sequence[str], columns: Sequence[str], title: str = "") -> np.ndarray:
    """Draw a table of numbers in [0, 1] as percent, darker where higher; nan stays empty."""
    figure, axis = _chart(1.5 + 0.5 * len(columns), 1.2 + 0.32 * len(rows))
    axis.imshow(np.nan_to_num(values), cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axis.set_xticks(
        range(len(columns)), [_text(name) for name in columns], rotation=45, ha="right", fontfamily=_fonts()
    )
    axis.set_yticks(range(len(rows)), [_text(name) for name in rows], fontfamily=_fonts())
    for (y, x), value in np.ndenumerate(values):
        if value == value:
            axis.text(x, y, f"{100 * value:.0f}", ha="center", va="center", color="white" if value > 0.6 else "black")
    axis.set_title(_text(title), fontsize=SMALL, fontfamily=_fonts())
    return _drawn(figure)


def _chart(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), dpi=100, layout="constrained")
    axis = figure.subplots()
    axis.set_prop_cycle(color=COLOURS)
    axis.tick_params(labelsize=SMALL - 1)
    return figure, axis


def _legend(axis: Axes) -> None:
    """Beside the chart, where it hides nothing."""
    font = FontProperties(family=_fonts(), size=SMALL - 1)
    axis.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, prop=font)


def _drawn(figure: Figure) -> np.ndarray:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3]


def _scaled(values: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Scale a map (h, w) bilinearly to (H, W), float32."""
    image = Image.fromarray(np.asarray(values, np.float32))
    return np.asarray(image.resize((size[1], size[0]), Image.Resampling.BILINEAR))


def _wrapped(title: str, width: float) -> str:
    """Break a title into lines that stand above a picture ``width`` inches wide."""
    letters = max(6, int(width * 72 / (0.58 * SMALL)))
    return "\n".join(textwrap.wrap(_known(title), letters, break_on_hyphens=False))


def _text(name: str) -> str:
    """Return a name as matplotlib draws it, which takes dollars for a formula."""
    return _known(name).replace("$", r"\$")


def _known(name: str) -> str:
    """Return a name with the number of each letter that no font has."""
    return "".join(
        letter if any(_has(font, letter) for font in _fonts()) else letter.encode("ascii", "backslashreplace").decode()
        for letter in name
    )


@cache
def _has(font: str, letter: str) -> bool:
    return letter.isspace() or get_font(fontManager.findfont(font)).get_char_index(ord(letter)) > 0


@cache
def _fonts() -> list[str]:
    """Fonts to take letters from, the first that has a letter."""
    there = set(fontManager.get_font_names())
    return [FONT, *(font for font in OTHER_FONTS if font in there)]
