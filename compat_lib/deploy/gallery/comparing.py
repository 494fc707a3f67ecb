"""Which features may be compared: what was declared, how unequal widths meet, and how scores meet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from compat_lib.deploy.gallery.checks import as_array, checked_rows, listed
from compat_lib.deploy.gallery.files import Model

FITS = ("cut", "pad")
SCALE_ROWS = 2000  # most features of a side that a scale is taken from, evenly spaced


def form_of(models: Mapping[str, Model], query: str, entry: str) -> str | None:
    """How queries of one model meet entries of another: "same" width, "cut", "pad", or None: not at all.

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
    if asking.width == asked.width:
        return "same"
    fit = (asking if entry in asking.compatible_with else asked).fit
    return fit if fit == "pad" or asking.width > asked.width else None


def fitted(queries: np.ndarray, form: str, width: int) -> np.ndarray:
    """Queries in the form in which they meet entries of another width, float32 [Nq, width].

    Args:
        queries: float32 [Nq, d] of unit length.
        form: of `form_of`.
        width: of the entries.

    >>> fitted(np.array([[0.6, 0.0, 0.8]], np.float32), "cut", 2).tolist()
    [[1.0, 0.0]]
    """
    if form == "same":
        return queries
    if form == "cut":
        return checked_rows(queries[:, :width], width, "first coordinates of the queries")
    shown = np.zeros((len(queries), width), np.float32)
    shared = min(width, queries.shape[1])
    shown[:, :shared] = queries[:, :shared]
    return shown


def checked_declaration(
    models: Mapping[str, Model], name: str, width: int, compatible_with: Any, fit: str | None
) -> Model:
    """A model that may be declared.

    Raises:
        ValueError: "'new' is to be compatible with 'odl', which is not declared ...", "'new' has 128 numbers
            a feature and 'old' 64 ...", "'old' is declared with 64 numbers a feature ..."
    """
    try:
        others = (compatible_with,) if isinstance(compatible_with, str) else tuple(compatible_with)
    except TypeError as error:
        raise ValueError(
            f"compatible_with is {compatible_with!r}; give a model's name, or a list of names"
        ) from error
    if fit is not None and fit not in FITS:
        raise ValueError(f"fit is {fit!r}; give 'cut', 'pad' or nothing")
    if name in models and models[name].width != width:
        raise ValueError(
            f"{name!r} is declared with {models[name].width} numbers a feature, and now {width} were given; "
            "another model needs another name"
        )
    for other in others:
        if other not in models or other == name:
            raise ValueError(
                f"{name!r} is to be compatible with {other!r}, which is not declared as another model; "
                f"declared are {listed(list(models))}"
            )
        theirs = models[other].width
        if theirs != width and not (fit == "pad" or (fit == "cut" and width > theirs)):
            raise ValueError(
                f"{name!r} has {width} numbers a feature and {other!r} {theirs}. With fit='cut' a wider "
                "query is compared by its first coordinates, scaled to unit length; with fit='pad' the "
                "narrower side is filled with zeros. Say which one the new model was trained for; for "
                "anything else, bring the entries into the new form yourself and backfill them as a model of "
                "its own"
            )
    return Model(width, others, fit)


def refuse_queries(models: Mapping[str, Model], counts: Mapping[str, int], query: str) -> None:
    """Refuse queries of a model that cannot be compared with all entries.

    Raises:
        ValueError: "queries of 'new' cannot be compared with the 500 entries of 'old' ..."
    """
    for entry, number in counts.items():
        if number and form_of(models, query, entry) is None:
            raise ValueError(
                f"queries of {query!r} cannot be compared with the {number} entries of {entry!r}: "
                f"{_strangers(models, query, entry)}"
            )


def refuse_entries(models: Mapping[str, Model], counts: Mapping[str, int], entry: str) -> None:
    """Refuse entries of a model beside which those that are there could not be searched.

    Raises:
        ValueError: "entries of 'new' cannot stand beside the 500 entries of 'old' ..."
    """
    for other, number in counts.items():
        pairs = (entry, other), (other, entry)
        if number and all(form_of(models, *pair) is None for pair in pairs):
            raise ValueError(
                f"entries of {entry!r} cannot stand beside the {number} entries of {other!r}, because no "
                f"model could search both: {_strangers(models, entry, other)}"
            )


def _strangers(models: Mapping[str, Model], one: str, other: str) -> str:
    widths = models[one].width, models[other].width
    if other in models[one].compatible_with or one in models[other].compatible_with:
        return (
            f"their features have {widths[0]} and {widths[1]} numbers, and only the wider model's queries "
            f"are cut; ask with {other!r}"
        )
    same = "; equal width does not make them comparable" if widths[0] == widths[1] else ""
    return (
        f"they were not declared compatible{same}. If {one!r} was trained to be compatible with {other!r} "
        f"and was measured to be, declare it with compatible_with={other!r}; if not, its features need a "
        "gallery of their own"
    )


def checked_scales(scales: Mapping[str, Any], present: list[str]) -> dict[str, tuple[float, float]]:
    """Scales of all models that have entries.

    Raises:
        ValueError: "scales lack 'old' ..." or "the scale of 'old' is (0.1, 0) ..."
    """
    missing = [name for name in present if name not in scales]
    if missing:
        raise ValueError(f"scales lack {listed(missing)}; give (centre, spread) for each model with entries")
    found = {}
    for name in present:
        try:
            centre, spread = map(float, scales[name])
        except (TypeError, ValueError):
            centre = spread = np.nan
        if not (np.isfinite(centre) and np.isfinite(spread) and spread > 0):
            raise ValueError(f"the scale of {name!r} is {scales[name]}; give two numbers, the second above 0")
        found[name] = centre, spread
    return found


def score_scale(queries: Any, entries: Any, share: float = 0.01) -> tuple[float, float]:
    """Where the scores of strangers lie: their median, and how far above it their highest hundredth begins.

    Scores of new queries with new entries and with old entries have different distributions, so that in a
    mixed gallery one raw score means two things. On the scale (score - centre) / spread, 0 is a typical
    stranger and 1 is passed by one random pair in a hundred, whoever made the entry. No label is needed as
    long as random pairs are strangers: where one identity fills a hundredth of the gallery, the high scores
    are those of friends, and features of other identities are needed. Before any entry is backfilled, take
    new features of other images in place of new entries.

    Args:
        queries, entries: [n, d], [m, d] real numbers, scaled to unit length here; features of different
            images, of which at most 2,000 evenly spaced ones of each side are used.
        share: of random pairs that pass 1, between 0 and 0.5.

    Returns:
        (centre, spread) for `Gallery.search(scales=...)`.

    Raises:
        ValueError: "500 pairs cannot show which score one in 1000 passes ..." and those of rows.

    >>> centre, spread = score_scale([[1.0, 0.0]], [[0.0, 1.0], [0.6, 0.8], [1.0, 0.0]], share=0.4)
    >>> round(centre, 3), round(spread, 3)
    (0.6, 0.08)
    """
    rows = [as_array(side) for side in (queries, entries)]
    if not 0 < share < 0.5:
        raise ValueError(f"share is {share!r}; give a fraction between 0 and 0.5, such as 0.01")
    if any(side.ndim != 2 for side in rows) or rows[0].shape[1] != rows[1].shape[1]:
        raise ValueError(
            f"the features to compare have shapes {rows[0].shape} and {rows[1].shape}; give [n, d] and [m, d]"
        )
    rows = [side[:: max(1, -(-len(side) // SCALE_ROWS))] for side in rows]
    asking, asked = (checked_rows(side, rows[0].shape[1], "features to compare") for side in rows)
    scores = (asking @ asked.T).ravel()
    if len(scores) * share < 1:
        raise ValueError(
            f"{len(scores)} pairs cannot show which score one in {1 / share:.0f} passes; give more queries "
            "or entries"
        )
    centre, high = np.quantile(scores, [0.5, 1 - share])
    if high <= centre:
        raise ValueError("more than half of the pairs have one score; give features of different images")
    return float(centre), float(high - centre)
