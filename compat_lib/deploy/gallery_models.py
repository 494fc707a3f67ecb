"""What was declared about a gallery's models, and whose features may meet whose."""

import functools
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from compat_lib.deploy.gallery_search import checked_rows


@dataclass(frozen=True)
class Model:
    """What was declared about a model.

    Args:
        width: numbers in a feature.
        compatible_with: models whose features may be compared with this one's.
        fit: how features of unequal width are compared, "cut" or "pad"; with an adapter what it maps, this
            model's "query" or the other one's entries, the "gallery"; None: not at all.
        adapter: of `packed`.
    """

    width: int
    compatible_with: tuple[str, ...] = ()
    fit: str | None = None
    adapter: bytes | None = field(default=None, repr=False)


Models = Mapping[str, Model]  # by name


def packed(adapter: Any) -> bytes:
    """A `compat_lib.adapters.LinearMap` as bytes to keep, which need no torch."""
    np.savez(file := io.BytesIO(), matrix=adapter.matrix.numpy())
    return file.getvalue()


@functools.lru_cache(maxsize=8)
def _unpacked(adapter: bytes) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(adapter)) as arrays:
        return dict(arrays)


def mapped(rows: np.ndarray, adapter: bytes) -> np.ndarray:
    """Rows of unit length in the other model's space, float32 [n, d] of unit length."""
    its = _unpacked(adapter)
    # Galleries of earlier versions hold means beside the matrix, nearly always zeros.
    moved = (rows - its.get("source_mean", 0)) @ its["matrix"] + its.get("target_mean", 0)
    return checked_rows(moved, None, "features that the adapter has mapped")


def form_of(models: Models, query: str, entry: str) -> str | None:
    """How queries of one model meet entries of another: "same" width, "cut", "pad", None: not at all; or by
    an adapter of the "query" or the "gallery", which is fitted for this direction only.

    Compatibility is declared for two models and holds for both directions: a cosine does not ask which of the
    two features is the query. It is not passed on: that C fits B and B fits A does not say that C fits A.

    >>> models = {"old": Model(64), "new": Model(128, ("old",), "cut")}
    >>> form_of(models, "new", "old"), form_of(models, "old", "new")
    ('cut', None)
    """
    asking, asked = models[query], models[entry]
    if query == entry:
        return "same"
    if entry not in asking.compatible_with and query not in asked.compatible_with:
        return None
    fit = (asking if entry in asking.compatible_with else asked).fit
    if fit in ("query", "gallery"):
        return fit if entry in asking.compatible_with else None
    if asking.width == asked.width:
        return "same"
    return fit if fit == "pad" or asking.width > asked.width else None


def fitted(queries: np.ndarray, form: str, width: int) -> np.ndarray:
    """Queries in the form in which they meet entries of another width, float32 [Nq, width]."""
    if form == "cut":
        return checked_rows(queries[:, :width], width, "first coordinates of the queries")
    short = max(0, width - queries.shape[1])  # what a wider query has beyond it meets zeros
    return np.ascontiguousarray(np.pad(queries, ((0, 0), (0, short)))[:, :width])


def refuse_strangers(models: Models, counts: Mapping[str, int], name: str, queries: bool) -> None:
    """Refuse queries that cannot meet all entries, and entries beside which no model could search."""
    for other, number in counts.items():
        if number and not (form_of(models, name, other) or (not queries and form_of(models, other, name))):
            who, met = ("queries", "be compared with") if queries else ("entries", "stand beside")
            why = (
                "they were not declared compatible, and equal width does not make them comparable. If it was "
                f"measured, declare {name!r} with compatible_with={other!r}; if not, make another gallery"
            )
            if other in models[name].compatible_with or name in models[other].compatible_with:
                way = "a wider query that is cut, or an adapter"
                why = f"only {other!r} was declared with a way to ask ({way}); ask with it"
            raise ValueError(f"{who} of {name!r} cannot {met} the {number} entries of {other!r}: {why}")


def checked_meeting(
    models: Models, model: str, width: int, others: Sequence[str], fit: str | None, adapter: Any
) -> None:
    """Refuse a declaration that cannot be: another width than before, unknown models, unequal widths."""
    if model in models and models[model].width != width:
        raise ValueError(
            f"{model!r} is declared with {models[model].width} numbers a feature, and now {width} "
            "were given; another model needs another name"
        )
    for other in others:
        if other not in models or other == model:
            raise ValueError(
                f"{model!r} is to be compatible with {other!r}, which is not declared as another "
                f"model; declared are {', '.join(map(repr, models))}"
            )
        theirs = models[other].width
        ends = (width, theirs) if adapter is None or adapter.side == "query" else (theirs, width)
        if adapter is not None and tuple(adapter.matrix.shape) != ends:
            raise ValueError(
                f"the adapter maps {adapter.matrix.shape[0]} numbers to {adapter.matrix.shape[1]}, "
                f"and on the {adapter.side} {ends[0]} become {ends[1]} here; take the one that was "
                "fitted to these two models"
            )
        if adapter is None and theirs != width and not (fit == "pad" or (fit == "cut" and width > theirs)):
            raise ValueError(
                f"{model!r} has {width} numbers a feature and {other!r} {theirs}; say which one the "
                "new model was trained for: fit='cut' compares a wider query by its first "
                "coordinates, fit='pad' fills the narrower side with zeros"
            )
