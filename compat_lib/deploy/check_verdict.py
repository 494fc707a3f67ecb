"""The verdict of a compatibility check, its reason, and what to be careful with."""

import numpy as np

from compat_lib.deploy import check_inputs as given
from compat_lib.deploy.check_measure import Measure
from compat_lib.deploy.check_result import VERDICTS
from compat_lib.evaluation.compatibility import HEADLINE
from compat_lib.evaluation.records import Record, Records, metric_title, shown

DECIDING = 6  # identities, below which all move one way by chance in more than one case of twenty: 2 / 2**5
ENDS = 40  # draws, below which less than one lies beyond an end of a 95 % interval
SAME = 1e-5  # the largest difference of two coordinates of unit rows that are the same feature
COMPATIBLE, UNDECIDED, NOT_COMPATIBLE, UNLABELLED = VERDICTS


def judged(gain: Record, asking: int) -> tuple[str, str]:
    """The verdict on a difference, and its reason, which ends a sentence."""
    if asking < DECIDING:
        return UNDECIDED, f"{asking} ask, and with fewer than {DECIDING} all may move by chance"
    if gain.draws is None or np.isfinite(gain.draws).sum() < ENDS:
        return UNDECIDED, f"fewer than {ENDS} draws make no interval, and nobody can say whether it is noise"
    if gain.low == gain.high == 0:
        return NOT_COMPATIBLE, "there is no gain over the old model, and the criterion asks for one"
    if gain.low > 0:
        return COMPATIBLE, "new queries may search the gallery as it is"
    if gain.high < 0:
        return NOT_COMPATIBLE, "the swap loses against keeping the old model"
    return UNDECIDED, "the interval of the difference holds zero, so these images cannot tell"


def decided(
    sides: given.Sides, records: Records, measure: Measure, asked: str | None, mixed_up: bool
) -> tuple[str, str]:
    """The verdict and its reason; `mixed_up`: the rows of both sides seem not to be the same images."""
    widths = sides.before.shape[1], sides.after.shape[1]
    if not sides.equal_widths:
        return NOT_COMPATIBLE, (
            f"the old features have {widths[0]} columns and the new ones {widths[1]}, so a new query has no "
            "cosine with an old gallery image, and they are not comparable as they are"
        )
    blocks = zip(sides.before.split(given.BLOCK), sides.after.split(given.BLOCK), strict=True)
    if all(bool(((a - b).abs() <= SAME).all()) for a, b in blocks):
        return NOT_COMPATIBLE, "both sides hold the same features, so there is no upgrade to judge"
    if measure.how == "neighbours":
        return UNLABELLED, "whether what they find instead is better or worse, only labels can tell"
    verdict, reason = judged(records.get("new", "old", f"gain/{measure.metric}"), measure.asking())
    if verdict == COMPATIBLE and mixed_up:
        reason = "the rows of both sides seem not to be the same images, which makes new/old too good"
        return UNDECIDED, reason
    if verdict == NOT_COMPATIBLE and mixed_up and _by_chance(records, measure) == [False, True]:
        return (
            UNDECIDED,
            "the new model itself is no better than chance, as where its rows are in another order",
        )
    if verdict == COMPATIBLE and sides.mostly_alike:
        return UNDECIDED, "most old features are one vector, against which any model looks better"
    opposite = {COMPATIBLE: NOT_COMPATIBLE, NOT_COMPATIBLE: COMPATIBLE}.get(verdict)
    for name in (HEADLINE, "map", "rank1"):
        gain = records.find("new", "old", f"gain/{name}")
        tied = gain is None or gain.low == gain.high == 0  # such as all first answers right before and after
        if opposite and not tied and judged(gain, measure.asking())[0] == opposite:
            said = shown(gain.value, gain.low, gain.high, signed=True)
            said = f"two metrics disagree: in {metric_title(name)} the difference is {said}"
            return (verdict, f"{reason}; {said}") if asked else (UNDECIDED, said)
    return verdict, reason


def _by_chance(records: Records, measure: Measure) -> list[bool]:
    """Whether the old model and the new one, each by itself, are no better than chance."""
    chance = records.value(None, None, f"chance/{measure.metric}")
    found = (records.find(model, model, measure.metric) for model in ("old", "new"))
    return [(one.value if one.low is None else one.low) <= chance for one in found]


def cautions(
    sides: given.Sides, records: Records, measure: Measure, asked: str | None, adapter: bool, mixed_up: bool
) -> list[str]:
    """What to be careful with, a sentence each."""
    metric, name = measure.metric, metric_title(measure.metric)
    old, new = (records.find(model, model, metric) for model in ("old", "new"))
    at = _by_chance(records, measure)
    width = sides.before.shape[1]
    people, pairs = measure.how == "identities", sides.equal_widths and sides.labels is not None
    fitted = (len(sides.rows) if sides.labels is None else int(sides.labels.max()) + 1) // 2
    what = "identities" if people else "images"
    cases = {
        f"Judged in {name}, because {metric_title(HEADLINE)} needs {given.FEWEST} identities and "
        f"{given.RESOLVED / given.metric_far(HEADLINE):,.0f} pairs of different ones.": people
        and asked is None
        and metric != HEADLINE,
        "The old model is not clearly better than chance: do features and labels belong together?": at[0],
        "The new model itself is not clearly better than chance, and the old one is: are both files' rows in "
        "the same order? Ids would tell.": at[1] and not at[0],
        "An image's old and new features are no nearer to each other than to those of other images of the "
        "identity: are both files' rows in the same order? Ids would tell; if they are not, new/old is too "
        "good.": mixed_up and not at[0],
        f"Both models are perfect in {name}; take harder images or a stricter metric to see a gain.": (
            old.value == new.value == 1 and sides.labels is not None
        ),
        f"Maps are fitted to {fitted:,} {what}, for {width} coordinates: more may lift them.": (
            adapter and fitted < 2 * width
        ),
        "{} pairs of the relevance lists are left out, since no image has their ids; without them {} queries "
        "have no answer and do not ask.".format(*getattr(measure, "unknown", (0, 0))): not people
        and measure.unknown[0] > 0,
        "Without labels, maps are judged on images that they had not seen, but perhaps of identities that "
        "they had.": adapter and sides.labels is None,
        "Identities without a query only count as impostors and are drawn in groups.": (
            people and measure.units is not measure.labels
        ),
        f"The constraints are counted between at most {given.PAIRWISE:,} images, drawn at random.": (
            pairs and len(sides.rows) > given.PAIRWISE
        ),
    }
    return [note for note, holds in cases.items() if holds]
