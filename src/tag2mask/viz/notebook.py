"""Pictures and controls in a notebook. Needs IPython; without ipywidgets or a front end pictures stand still."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from IPython.display import display
from PIL import Image

PNG = ["image/png"]  # what a notebook stores of a picture


class Slider(NamedTuple):
    """A number to choose, from ``low`` to ``high``, which starts at ``value``."""

    low: float
    high: float
    value: float


def show(picture: np.ndarray) -> None:
    """Show a picture (H, W, 3) uint8."""
    display(Image.fromarray(picture), include=PNG)


def explore(draw: Callable[..., np.ndarray], controls: Mapping[str, Slider | Sequence[Any]]) -> dict[str, Any]:
    """Show a picture, and above it controls that draw it anew; return their widgets by name, none without ipywidgets.

    ``draw`` takes their values by name and returns (H, W, 3) uint8. A list of values starts at its first entry. The
    picture of the first values stays where nobody can move the controls, as in a stored page.
    """
    values = {name: control.value if isinstance(control, Slider) else control[0] for name, control in controls.items()}
    try:
        widgets = {name: _widget(name, control) for name, control in controls.items()}
    except ImportError:
        widgets = {}
    display(*widgets.values())
    picture = display(Image.fromarray(draw(**values)), include=PNG, display_id=True)

    def redraw(_: Any) -> None:
        chosen = {name: widget.value for name, widget in widgets.items()}
        picture.update(Image.fromarray(draw(**chosen)), include=PNG)

    for widget in widgets.values():
        widget.observe(redraw, "value")
    return widgets


def _widget(name: str, control: Slider | Sequence[Any]) -> Any:
    import ipywidgets

    if not isinstance(control, Slider):
        return ipywidgets.Dropdown(options=list(control), description=name)
    low, high, value = control
    # not continuous: drawing takes a moment
    return ipywidgets.FloatSlider(value, min=low, max=high, step=0.01, description=name, continuous_update=False)
