"""A view and its controls: a still picture for every page, a live one where Bokeh has been loaded."""

from __future__ import annotations

import base64
import html
import io
import json
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

# A live picture takes the place of the still one above it, where scripts run and `load_bokeh` was shown.
_LIVE = """<div id="{name}"></div><div id="{name}-still">{still}</div><script>
if (window.Bokeh) {{
  document.getElementById("{name}-still").remove();
  Bokeh.embed.embed_item({item}, "{name}");
}}</script>"""


@dataclass(frozen=True)
class View:
    """Pictures and a sentence that says their numbers."""

    text: str
    parts: Sequence[Figure | Callable[[], Figure] | str] = ()  # figures, what draws one, or pieces of HTML
    live: Callable[[], Any] | None = None  # makes a Bokeh figure in place of the first part, for scripts

    def html(self, still: bool = True) -> str:
        """The view as HTML that fetches nothing; without `still` nothing lies under a live picture."""
        parts = [*self.parts]
        if self.live and not still:
            parts[0] = ""
        parts = [part if isinstance(part, str) else self._png(part) for part in parts]
        if self.live:
            from bokeh.embed import json_item

            # Names must not end the script: "<" is written as JavaScript's own code for it.
            item = json.dumps(json_item(self.live())).replace("<", "\\u003c")
            parts[0] = _LIVE.format(name=f"live-{uuid.uuid4().hex}", still=parts[0], item=item)
        return "".join(parts) + f"<p>{html.escape(self.text)}</p>"

    def _png(self, figure: Figure | Callable[[], Figure]) -> str:
        file = io.BytesIO()
        (figure() if callable(figure) else figure).savefig(file, format="png", dpi=100)
        data = base64.b64encode(file.getvalue()).decode()
        alt = html.escape(self.text)
        return f'<img style="max-width: 100%" src="data:image/png;base64,{data}" alt="{alt}">'

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/html": self.html(), "text/plain": self.text}


def load_bokeh() -> Any:
    """Bokeh's script itself, 1.3 MB, to be shown once in a notebook: no page asks the network for it."""
    from bokeh.resources import Resources
    from IPython.display import HTML

    scripts = Resources(mode="inline", components=["bokeh"]).js_raw
    return HTML("".join(f"<script>{script}</script>" for script in scripts))


def show(draw: Callable[..., View], **controls: Any) -> None:
    """Show a view, and above it controls that draw it again.

    The picture is part of the notebook's output like any other: papermill and a page show it as the controls
    stand at the start. `draw` is given the controls' values by keyword.
    """
    import ipywidgets
    from IPython.display import display

    def drawn() -> View:
        return draw(**{name: control.value for name, control in controls.items()})

    def moved(change: Any) -> None:
        view = drawn()
        handle.update({"text/html": view.html(still=False), "text/plain": view.text}, raw=True)

    for control in controls.values():
        control.style.description_width = "initial"
        control.observe(moved, "value")
    display(ipywidgets.Box(list(controls.values()), layout={"flex_flow": "row wrap"}))
    handle = display(drawn(), display_id=True)
