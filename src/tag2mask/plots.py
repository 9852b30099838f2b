"""Pictures: overlays, label maps and panels, as RGB arrays (H, W, 3) uint8. The only user of matplotlib."""

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from tag2mask import classes


def heat(image: np.ndarray, cam: np.ndarray, strength: float = 0.6) -> np.ndarray:
    """Lay a CAM over its photograph.

    Args:
        image: (H, W, 3) uint8.
        cam: in [0, 1], of any size, (h, w); scaled up bilinearly.
        strength: share of the heat colours where the CAM is 1.
    """
    height, width = image.shape[:2]
    scaled = Image.fromarray(np.asarray(cam, np.float32)).resize((width, height), Image.Resampling.BILINEAR)
    value = np.clip(np.asarray(scaled), 0, 1)[..., None]
    colours = colormaps["turbo"](value[..., 0])[..., :3] * 255
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


def row(parts: list[tuple[str, np.ndarray]], height: float = 2.4) -> np.ndarray:
    """Draw titled pictures side by side, ``height`` inches high."""
    widths = [picture.shape[1] / picture.shape[0] for _, picture in parts]
    figure = Figure(figsize=(height * sum(widths) + 0.1 * len(parts), height + 0.3), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(parts), squeeze=False, gridspec_kw={"width_ratios": widths})[0]
    for axis, (name, picture) in zip(axes, parts, strict=True):
        axis.imshow(picture)
        axis.set_title(name.replace("$", r"\$"), fontsize=9)
        axis.set_axis_off()
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3]


def column(rows: list[np.ndarray]) -> np.ndarray:
    """Stack pictures of different width, filling up with white."""
    width = max(picture.shape[1] for picture in rows)
    return np.concatenate([np.pad(p, ((0, 0), (0, width - p.shape[1]), (0, 0)), constant_values=255) for p in rows])
