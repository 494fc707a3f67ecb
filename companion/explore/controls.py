"""A view with controls: the picture stands in the output as it is, and sliders draw it again."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from companion.explore.markup import View, sentence

INSTEAD = "In JupyterLab there are controls here that draw the picture again."


@dataclass(frozen=True)
class Slider:
    """A number between two ends; whole numbers when start and step are whole.

    Raises:
        ValueError: "the slider ... starts at ..., outside of ...".
    """

    name: str
    low: float
    high: float
    start: float
    step: float = 1

    def __post_init__(self) -> None:
        if not self.low <= self.start <= self.high:
            raise ValueError(
                f"the slider {self.name!r} starts at {self.start}, outside of {self.low} to {self.high}"
            )

    def widget(self, **looks: Any) -> Any:
        """The slider as a widget that answers when it is let go."""
        import ipywidgets

        whole = all(isinstance(value, int) for value in (self.low, self.high, self.start, self.step))
        kind = ipywidgets.IntSlider if whole else ipywidgets.FloatSlider
        ends = {"min": self.low, "max": self.high, "step": self.step, "value": self.start}
        return kind(description=self.name, continuous_update=False, **ends, **looks)


@dataclass(frozen=True)
class Choice:
    """One of some values; a mapping gives them names.

    Raises:
        ValueError: "the choice ... starts at ..., which is none of ...", "the choice ... has nothing ...".
    """

    name: str
    options: Mapping[str, Any] | Sequence[Any]
    start: Any = None

    def __post_init__(self) -> None:
        values = self._values()
        if not values:
            raise ValueError(f"the choice {self.name!r} has nothing to choose from")
        if self.start is None:
            object.__setattr__(self, "start", values[0])
        if self.start not in values:
            raise ValueError(
                f"the choice {self.name!r} starts at {self.start!r}, which is none of "
                f"{', '.join(map(repr, values[:20]))}"
            )

    def _values(self) -> list[Any]:
        return list(self.options.values() if isinstance(self.options, Mapping) else self.options)

    def widget(self, **looks: Any) -> Any:
        """The choice as a drop-down list."""
        import ipywidgets

        options = list(self.options.items()) if isinstance(self.options, Mapping) else list(self.options)
        return ipywidgets.Dropdown(description=self.name, options=options, value=self.start, **looks)


@dataclass(frozen=True)
class Several:
    """Any number of some named values; none at the start."""

    name: str
    options: Mapping[str, Any]
    start: tuple[Any, ...] = ()

    def widget(self, **looks: Any) -> Any:
        """The choice as a list in which several lines can be marked."""
        import ipywidgets

        options = list(self.options.items())
        return ipywidgets.SelectMultiple(description=self.name, options=options, value=self.start, **looks)


Control = Slider | Choice | Several


class Explorer:
    """A picture and its controls; `show` makes one.

    Args:
        draw: values of the controls, by keyword, -> a view.
        controls: keyword of `draw` -> control.
    """

    def __init__(self, draw: Callable[..., View], controls: Mapping[str, Control]):
        self.draw, self.controls = draw, dict(controls)
        self.view = draw(**{name: control.start for name, control in self.controls.items()})
        self.widgets: dict[str, Any] = {}
        self.status: Any = None
        self.handle: Any = None

    def display(self) -> None:
        """Show the controls where there are any, and the picture below them."""
        from IPython.display import display

        box = self._box()
        if box is not None:
            # A page that has no controls shows a sentence and never a widget's name for programmers.
            bundle = dict(box._repr_mimebundle_()) | {"text/plain": INSTEAD}
            display(bundle, raw=True)
        self.handle = display(self.view, display_id=True)

    def _box(self) -> Any:
        try:
            import ipywidgets
        except ImportError:  # a view needs no widgets
            return None
        looks = {"style": {"description_width": "initial"}, "layout": {"width": "auto", "min_width": "280px"}}
        self.widgets = {name: control.widget(**looks) for name, control in self.controls.items()}
        for widget in self.widgets.values():
            widget.observe(self._moved, "value")
        self.status = ipywidgets.Label("move a control and the picture below changes")
        wrapped = ipywidgets.Layout(display="flex", flex_flow="row wrap")
        return ipywidgets.VBox([ipywidgets.Box(list(self.widgets.values()), layout=wrapped), self.status])

    def _moved(self, change: Any) -> None:
        self.status.value = "drawing …"
        begun = time.perf_counter()
        try:
            self.view = self.draw(**{name: widget.value for name, widget in self.widgets.items()})
        except (
            ValueError
        ) as error:  # a choice that does not go together: its sentence takes the picture's place
            self.view = sentence(str(error))
        if self.handle is not None:
            self.handle.update(self.view)
        self.status.value = f"drawn in {time.perf_counter() - begun:.2f} s"

    def _ipython_display_(self) -> None:
        """Nothing: as the last line of a cell it would otherwise be shown a second time."""


def show(draw: Callable[..., View], **controls: Control) -> Explorer:
    """Show a view, and above it controls that draw it again.

    The picture is part of the notebook's output like any other: papermill and a page show it as the controls
    stand at the start. In JupyterLab a moved control replaces it in place; a number that is dragged counts
    when it is let go. Moves are quick when `draw` computes nothing that it could have kept.

    Args:
        draw: values of the controls, by keyword, -> a view.
        controls: keyword of `draw` -> Slider, Choice or Several, in the order in which they are shown.

    Returns:
        the explorer; its `widgets` can be set from code, its `view` is what is shown.
    """
    explorer = Explorer(draw, controls)
    explorer.display()
    return explorer
