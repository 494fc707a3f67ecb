"""What a compatibility check found, in one paragraph of plain words.

Nothing here computes: the sentences are chosen by the numbers, and a difference whose interval holds zero is
never called better or worse. Imports nothing heavy, so that the command line refuses a wrong option at once.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

HEADLINE = "tar@far=1e-3"
PLAIN = ("map", "rank1", "rank5")
ADAPTERS = {"ridge": "ridge", "procrustes": "Procrustes"}
NEAR = 0.05  # of the way from chance to old/old: no more than this is called chance
FEW = 20  # identities, below which an interval over them is rough

Values = Mapping[str, float | None]


def metric_name(text: str) -> str:
    """Return the full name of a metric as a user may write it, "tar@far=0.001" or "rank1".

    Raises:
        ValueError: "the metric 'auc' is not known ...".

    >>> metric_name("tar@far=0.001"), metric_name("mAP")
    ('tar@far=1e-3', 'map')
    """
    name = text.strip().lower()
    if name in PLAIN:
        return name
    found = re.fullmatch(r"tar@far=([0-9.]+(?:e[+-]?[0-9]+)?)", name)
    try:
        far = float(found[1]) if found else math.nan
    except ValueError:
        far = math.nan
    if not 0 < far <= 1:
        raise ValueError(
            f"the metric {text!r} is not known; choose map, rank1, rank5, or tar@far=F with F a fraction above "
            f"0 and at most 1, such as {HEADLINE}"
        )
    digits, exponent = f"{far:e}".split("e")
    return f"tar@far={digits.rstrip('0').rstrip('.')}e{int(exponent)}"


def metric_far(metric: str) -> float | None:
    """Return the false accept rate of a metric's name; None for one without."""
    return float(metric.removeprefix("tar@far=")) if metric.startswith("tar@far=") else None


def title(metric: str) -> str:
    """Return a metric's name for reading.

    >>> title("tar@far=1e-3"), title("rank1")
    ('TAR at FAR 1e-3', 'rank-1')
    """
    if metric == "map":
        return "mAP"
    return metric.replace("tar@far=", "TAR at FAR ").replace("rank", "rank-")


def meaning(metric: str) -> str:
    """Return what a metric is, as part of a sentence.

    >>> meaning("rank1")
    'the share of queries whose nearest image is of the right identity'
    """
    far = metric_far(metric)
    if far is not None:
        return (
            "the share of the pairs of one identity that are accepted at a threshold which accepts "
            f"{_percent(far)} of the pairs of different identities"
        )
    if metric == "map":
        return "mean average precision, 1 when every right image is ranked before every wrong one"
    if metric == "rank1":
        return "the share of queries whose nearest image is of the right identity"
    return "the share of queries with an image of the right identity among the nearest five"


def shown(values: Values, name: str, *, signed: bool = False) -> str:
    """Return one number with its interval, or "n/a".

    >>> shown({"map": 0.5, "map/low": 0.25, "map/high": 0.625}, "map")
    '0.500 [0.250, 0.625]'
    """
    value, low, high = (values.get(name + end) for end in ("", "/low", "/high"))
    if value is None:
        return "n/a"
    form = "{:+.3f}" if signed else "{:.3f}"
    text = form.format(value)
    return text if low is None else f"{text} [{form.format(low)}, {form.format(high)}]"


def sign(values: Values, name: str) -> int:
    """Return 1 or -1 for a difference whose interval leaves out zero, and 0 for one that is not decided."""
    low, high = values.get(name + "/low"), values.get(name + "/high")
    return 0 if low is None else int(low > 0) - int(high < 0)


def paragraph(values: Values, metric: str, *, same: bool = False, adapter: str | None = None) -> str:
    """Return the paragraph.

    Args:
        values: flat names of `CompatibilityCheck.metrics`.
        metric: that of the criterion.
        same: both sides hold the same features.
        adapter: the better of the adapters that were measured, "ridge" or "procrustes"; None: none was.
    """
    said = [_verdict(values, metric, same)]
    if not same:
        said += [_backfill(values, metric)]
        said += [_adapter(values, metric, adapter)] if adapter else []
        said += [_flips(values)]
    return " ".join([*said, _basis(values)])


def _verdict(values: Values, metric: str, same: bool) -> str:
    gain, bar = values[f"gain/{metric}"], shown(values, f"old_old/{metric}")
    named = f"{title(metric)} ({meaning(metric)})"
    if same:
        return (
            "Both sides hold the same features, up to their length, so there is no upgrade to judge: every "
            f"test gives the {named} of {bar}, and the criterion asks new queries against the old gallery to "
            "do better than old ones."
        )
    both = (
        f"new queries against the old gallery reach the {named} of {shown(values, f'new_old/{metric}')}, old "
        f"queries {bar}"
    )
    difference = shown(values, f"gain/{metric}", signed=True)
    decided, known = sign(values, f"gain/{metric}"), values.get(f"gain/{metric}/low") is not None
    if gain == 0:
        text = f"Not compatible by the criterion, which asks for more than equality: {both}."
    elif decided > 0:
        text = (
            f"Compatible: {both}. That is a gain of {difference} over keeping the old model, without "
            "touching the gallery."
        )
    elif decided < 0:
        text = (
            f"Not compatible: {both}. Swapping the query model alone changes this by {difference} against "
            "keeping the old model: a loss."
        )
    else:
        verdict, direction = ("Compatible", "better") if gain > 0 else ("Not compatible", "worse")
        text = (
            f"{verdict} by the criterion, but within the noise: {both}. The difference of {difference} has "
            f"zero inside its interval, so whether the swap is {direction} than keeping the old model is not "
            "decidable with these images."
            if known
            else f"{verdict} by the criterion: {both}. That is a difference of {difference} against keeping "
            "the old model; without intervals nobody can say whether it is noise."
        )
    return " ".join([text, *_chance(values, metric)])


def _chance(values: Values, metric: str) -> list[str]:
    chance, old, cross = (values[f"{name}/{metric}"] for name in ("chance", "old_old", "new_old"))
    if old - chance < NEAR * (1 - chance):
        return [
            f"But the old model itself is hardly better than chance ({chance:.3f}): check that its features "
            "and labels belong together before you believe any of this."
        ]
    if cross - chance < NEAR * (old - chance):
        return [
            f"That is about what chance gives ({chance:.3f}): new queries find nothing in the old gallery, as "
            "with two models that were trained apart."
        ]
    return []


def _backfill(values: Values, metric: str) -> str:
    added, total = f"backfill_gain/{metric}", f"full_gain/{metric}"
    reached = shown(values, f"new_new/{metric}")
    against = shown(values, total, signed=True)
    if sign(values, total) < 0:
        return (
            f"A full backfill (embedding the whole gallery again) would reach {reached}, {against} against "
            "today's old/old: by itself, too, the new model is the worse one on these images."
        )
    lead = "A full backfill (embedding the whole gallery again)"
    if values.get(f"{added}/low") is None:
        text = f"{lead} would add {shown(values, added, signed=True)} to that and reach {reached}"
    elif sign(values, added) > 0:
        text = f"{lead} would add {shown(values, added, signed=True)} to that and reach {reached}"
    elif sign(values, added) < 0:
        text = (
            f"{lead} would not add to that but take away: {shown(values, added, signed=True)}, down to "
            f"{reached}"
        )
    else:
        text = (
            f"{lead} would reach {reached}; whether that is more is not decidable "
            f"({shown(values, added, signed=True)})"
        )
    if sign(values, f"gain/{metric}") > 0:
        return text + "."
    if sign(values, total) > 0 or values.get(f"{total}/low") is None:
        return f"{text}, which is {against} against today's old/old."
    return f"{text}, which is not clearly different from today's old/old ({against})."


def _adapter(values: Values, metric: str, adapter: str) -> str:
    name = f"adapter/{adapter}"
    over, gain = f"{name}/over_new/{metric}", f"{name}/gain/{metric}"
    text = (
        f"An adapter alone ({ADAPTERS[adapter]}: a linear map of the stored old features into the new space, "
        f"fitted on one half of the identities and tested on the other) reaches "
        f"{shown(values, f'{name}/new_old/{metric}')}: "
    )
    against = {
        1: f"better than the new features without one ({shown(values, over, signed=True)})",
        -1: f"worse than the new features without one ({shown(values, over, signed=True)})",
        0: f"no clear difference from the new features without one ({shown(values, over, signed=True)})",
    }
    bar = {
        1: f"better than keeping the old model ({shown(values, gain, signed=True)})",
        -1: f"worse than keeping the old model ({shown(values, gain, signed=True)})",
        0: f"no clear difference from keeping the old model ({shown(values, gain, signed=True)})",
    }
    if values.get(f"{over}/low") is None:
        numbers = [shown(values, key, signed=True) for key in (over, gain)]
        return (
            f"{text}{numbers[0]} against the new features without one, {numbers[1]} against keeping the old "
            "model."
        )
    return f"{text}{against[sign(values, over)]}, and {bar[sign(values, gain)]}."


def _flips(values: Values) -> str:
    worse, better = (values[f"changes/{name}_flips"] for name in ("negative", "positive"))
    return (
        f"The swap breaks the first answer of {_percent(worse)} of the queries, which were right before, and "
        f"mends that of {_percent(better)}."
    )


def _basis(values: Values) -> str:
    images, identities, queries, draws = (
        int(values[name]) for name in ("images", "identities", "queries", "draws")
    )
    asked = (
        "each of them a query"
        if queries == images
        else f"of which {queries:,} are queries, drawn at random (seed {int(values['seed'])})"
    )
    text = f"Measured on {images:,} images of {identities:,} identities, {asked}"
    if not draws:
        return f"{text}; no intervals were asked for."
    text += f"; brackets are 95 % intervals over identities ({draws:,} draws)"
    few = int(values["query_identities"])
    return f"{text}, rough ones, as only {few} identities have two images." if few < FEW else text + "."


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
