"""What a compatibility check found, in plain words.

Nothing here computes: the sentences are chosen by the numbers, and a difference whose interval holds zero is
never called better or worse.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from compat_lib.evaluation.compatibility import tar_name

COMPATIBLE, NOT_COMPATIBLE, UNDECIDED = "compatible", "not compatible", "undecided"
HEADLINE = "tar@far=1e-3"
PLAIN = ("map", "rank1", "rank5")
ADAPTERS = {"ridge": "ridge", "procrustes": "Procrustes"}
NEAR = 0.05  # of the way from chance to old/old: no more than this is called chance
FEW = 20  # identities, below which an interval over them is rough
DECIDING = 6  # and below which chance moves all of them one way in more than one case of twenty: 2 / 2**5
IDENTITIES_A_COORDINATE = 2  # below which a linear map is not told how identities move in every direction

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
            f"the metric {text!r} is not known; choose map, rank1, rank5, or tar@far=F with F a fraction "
            f"above 0 and at most 1, such as {HEADLINE}"
        )
    return tar_name(far)


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
            f"{100 * far:.3g} % of the pairs of different identities"
        )
    if metric == "map":
        return "mean average precision, 1 when every right image is ranked before every wrong one"
    if metric == "rank1":
        return "the share of queries whose nearest image is of the right identity"
    return "the share of queries with an image of the right identity among the nearest five"


def shown(values: Values, name: str, *, signed: bool = False) -> str:
    """Return one number with its interval, or "n/a"; what is not zero never looks like zero.

    >>> shown({"map": 0.5, "map/low": 0.25, "map/high": 0.625}, "map")
    '0.500 [0.250, 0.625]'
    >>> shown({"gain/map": -0.0002}, "gain/map", signed=True)
    '-0.0002'
    """
    value, low, high = (values.get(name + end) for end in ("", "/low", "/high"))
    if value is None:
        return "n/a"
    numbers = [number + 0.0 for number in (value, low, high) if number is not None]
    digits = 3
    while digits < 6 and any(number and not round(number, digits) for number in numbers):
        digits += 1
    first, *ends = (f"{number:{'+' if signed else ''}.{digits}f}" for number in numbers)
    return f"{first} [{', '.join(ends)}]" if ends else first


def sign(values: Values, name: str) -> int:
    """Return 1 or -1 for a difference whose interval leaves out zero, and 0 for one that is not decided.

    Of fewer identities than DECIDING no interval decides: drawn again and again, they only repeat themselves.
    """
    low, high = values.get(name + "/low"), values.get(name + "/high")
    return 0 if low is None or _too_few(values) else int(low > 0) - int(high < 0)


def _too_few(values: Values) -> bool:
    return values.get("query_identities", DECIDING) < DECIDING


def verdict(values: Values, metric: str, *, same: bool = False) -> str:
    """Return "compatible", "not compatible" or "undecided".

    The interval of new/old minus old/old decides: above zero, below zero, or holding zero. Where the two are
    equal in every draw, or both sides hold the same features, there is no gain, which is not compatible.
    Fewer than six identities with two images decide nothing. Without an interval the difference itself
    decides.

    >>> verdict({"gain/map": 0.1, "gain/map/low": -0.1, "gain/map/high": 0.3}, "map")
    'undecided'
    """
    gain, low, high = (values.get(f"gain/{metric}{end}") for end in ("", "/low", "/high"))
    if same or low == high == 0:
        return NOT_COMPATIBLE
    if low is None:
        return COMPATIBLE if gain > 0 else NOT_COMPATIBLE
    return {1: COMPATIBLE, -1: NOT_COMPATIBLE, 0: UNDECIDED}[sign(values, f"gain/{metric}")]


def paragraph(values: Values, metric: str, *, same: bool = False, adapter: str | None = None) -> str:
    """Return the answer: the verdict, what a full backfill would add, what an adapter alone would reach.

    Args:
        values: flat names, as in `CompatibilityCheck.metrics`.
        metric: that of the criterion.
        same: both sides hold the same features.
        adapter: the better of the adapters that were measured, "ridge" or "procrustes"; None: none was.
    """
    if same:
        return (
            "Not compatible: both sides hold the same features, up to their length, so there is no upgrade "
            f"to judge. Every test gives {shown(values, f'old_old/{metric}')} in {title(metric)}, and the "
            "criterion asks new queries to do better against the old gallery than old ones."
        )
    said = [_opening(values, metric), *_chance(values, metric), _backfill(values, metric)]
    said += [_adapter(values, metric, adapter)] if adapter else []
    return " ".join([*said, _flips(values)])


def _opening(values: Values, metric: str) -> str:
    found = verdict(values, metric)
    gain = shown(values, f"gain/{metric}", signed=True)
    reached = (
        f"{found.capitalize()}: in the old gallery new queries reach {shown(values, f'new_old/{metric}')} in "
        f"{title(metric)}, old queries {shown(values, f'old_old/{metric}')}"
    )
    if found == UNDECIDED and _too_few(values):
        return (
            f"{reached}. The difference is {gain}, but {_identities(values)} two images or more, and with "
            f"fewer than {DECIDING} chance may move all of them one way: add images of others."
        )
    if found == UNDECIDED:
        return (
            f"{reached}. The interval of the difference, {gain}, holds zero: these images cannot tell "
            "whether new queries do better than the old model or worse."
        )
    if not values[f"gain/{metric}"]:
        return f"{reached}. There is no gain over keeping the old model, and the criterion asks for one."
    if values.get(f"gain/{metric}/low") is None:
        return (
            f"{reached}, a difference of {gain} against keeping the old model; without an interval nobody "
            "can say whether it is noise."
        )
    if found == COMPATIBLE:
        return f"{reached}. That gains {gain} over keeping the old model, and the gallery stays as it is."
    return f"{reached}. The swap loses: {gain} against keeping the old model."


def _chance(values: Values, metric: str) -> list[str]:
    chance, old, cross = (values[f"{name}/{metric}"] for name in ("chance", "old_old", "new_old"))
    low = values.get(f"old_old/{metric}/low")
    if (old if low is None else low) <= chance:
        return [
            f"The old model itself is not clearly better than chance ({chance:.3g}): check that features and "
            "labels belong together."
        ]
    if cross - chance < NEAR * (old - chance):
        return [
            f"That is about what chance gives ({chance:.3g}): new queries find nothing in the old gallery, "
            "as with two models that were trained apart."
        ]
    return []


def _backfill(values: Values, metric: str) -> str:
    added, total = f"backfill_gain/{metric}", f"full_gain/{metric}"
    reached, against = shown(values, f"new_new/{metric}"), shown(values, total, signed=True)
    lead = "A full backfill (embedding the whole gallery again) would"
    if sign(values, total) < 0:
        return (
            f"{lead} reach {reached}, {against} against today's old/old: by itself, too, the new model is "
            "the worse one on these images."
        )
    known = values.get(f"{added}/low") is not None
    change = shown(values, added, signed=True)
    if sign(values, added) > 0 or (not known and values[added] > 0):
        text = f"{lead} add {change} and reach {reached}"
    elif sign(values, added) < 0 or not known:
        text = f"{lead} not add to that: it would reach {reached}, a change of {change}"
    else:
        text = f"{lead} reach {reached}; whether that is more is not decidable ({change})"
    if sign(values, f"gain/{metric}") > 0:
        return f"{text}."
    if known and not sign(values, total):
        return f"{text}. Against today's old/old that is no clear difference ({against})."
    return f"{text}. Against today's old/old that is {against}."


def _adapter(values: Values, metric: str, adapter: str) -> str:
    name = f"adapter/{adapter}"
    text = (
        "An adapter alone (a linear map of the stored old features into the new space, judged on identities "
        f"to which it was not fitted; {ADAPTERS[adapter]} is the better of two) would reach "
        f"{shown(values, f'{name}/new_old/{metric}')}: "
    )
    said = []
    for what, other in (("over_new", "new queries without it"), ("gain", "keeping the old model")):
        key = f"{name}/{what}/{metric}"
        number = shown(values, key, signed=True)
        if values.get(f"{key}/low") is None:
            said.append(f"{number} against {other}")
        else:
            words = {1: "better than", -1: "worse than", 0: "not clearly different from"}
            said.append(f"{words[sign(values, key)]} {other} ({number})")
    fitted, width = values["adapter/identities"], values["width"]
    text += f"{said[0]}, and {said[1]}."
    if fitted < IDENTITIES_A_COORDINATE * width:
        text += f" It is fitted to {fitted:,} identities only, for {width} coordinates: more may lift it."
    return text


def _flips(values: Values) -> str:
    worse, better = (100 * values[f"changes/{name}_flips"] for name in ("negative", "positive"))
    return (
        f"The swap breaks a right first answer for {worse:.1f} % of the queries and mends a wrong one for "
        f"{better:.1f} %."
    )


def basis(values: Values, metric: str) -> str:
    """Return what the answer was measured on, and what its metric and its brackets mean."""
    images, identities, queries, draws, seed = (
        int(values[name]) for name in ("images", "identities", "queries", "draws", "seed")
    )
    asked = "each of them a query"
    if queries != images:
        asked = f"of which {queries:,}, drawn at random (seed {seed}), are queries that search all the others"
    text = (
        f"Measured on {images:,} images of {identities:,} identities, {asked}. {title(metric)} is "
        f"{meaning(metric)}."
    )
    if values.get(f"gain/{metric}/low") is None:
        return f"{text} There are no intervals."
    rough = ""
    if values["query_identities"] < FEW:
        kind = "from which nothing is decided" if _too_few(values) else "rough ones"
        rough = f", {kind}, because {_identities(values)} two images or more"
    return (
        f"{text} Brackets are 95 % intervals over identities ({draws:,} draws, seed {seed}){rough}; "
        "compatible means that the one of new/old minus old/old lies above zero, not compatible that it lies "
        "below, and undecided that it holds zero."
    )


def _identities(values: Values) -> str:
    few = int(values["query_identities"])
    return f"only {few} {'identity has' if few == 1 else 'identities have'}"
