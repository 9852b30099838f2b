"""Pictures and controls in a notebook. Needs IPython; without ipywidgets or a front end pictures stand still."""

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from IPython.display import Image as Shown
from IPython.display import display
from PIL import Image


class Slider(NamedTuple):
    """A number to choose, from ``low`` to ``high``, which starts at ``value``."""

    low: float
    high: float
    value: float


def show(picture: np.ndarray) -> None:
    """Show a picture (H, W, 3) uint8."""
    display(_shown(picture))


def explore(draw: Callable[..., np.ndarray], controls: Mapping[str, Slider | Sequence[Any]]) -> dict[str, Any]:
    """Show a picture, and above it controls that draw it anew.

    The picture of the first values stays where there is nobody to move the controls: in a notebook that was run without
    a front end, as a stored page, or without ipywidgets.

    Args:
        draw: takes the values of the controls by name, returns (H, W, 3) uint8.
        controls: name -> a slider, or a list to choose from that starts at its first entry.

    Returns:
        The widgets by name; empty without ipywidgets.
    """
    values = {name: how.value if isinstance(how, Slider) else how[0] for name, how in controls.items()}
    widgets = _widgets(controls)
    for widget in widgets.values():
        display(widget)
    picture = display(_shown(draw(**values)), display_id=True)

    def again(_: Any) -> None:
        picture.update(_shown(draw(**{name: widget.value for name, widget in widgets.items()})))

    for widget in widgets.values():
        widget.observe(again, "value")
    return widgets


def _widgets(controls: Mapping[str, Slider | Sequence[Any]]) -> dict[str, Any]:
    try:
        import ipywidgets
    except ImportError:
        return {}

    def widget(name: str, how: Slider | Sequence[Any]) -> Any:
        if not isinstance(how, Slider):
            return ipywidgets.Dropdown(options=list(how), description=name)
        span = {"min": how.low, "max": how.high, "step": 0.01}  # drawn when it is let go: drawing takes a moment
        return ipywidgets.FloatSlider(how.value, **span, description=name, continuous_update=False)

    return {name: widget(name, how) for name, how in controls.items()}


def _shown(picture: np.ndarray) -> Shown:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG")
    return Shown(buffer.getvalue())
