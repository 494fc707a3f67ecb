"""How a batch lies to its classes while the mix ratio, the credible share and the scale move."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from companion.explore.charts import Chart, side_by_side
from companion.explore.markup import View, key, legend, view
from companion.explore.sample import TARGETS, TrainingSample

RATIOS, SHARES, SCALES = (0.0, 0.6), (0.5, 1.0), (1.0, 64.0)  # what the controls of the notebook offer
ANGLES = np.linspace(0, 130, 53)  # degrees
PROBABILITIES = np.linspace(0, 1, 41)
REJECTED = "#9AA3AE"


def angle_view(
    sample: TrainingSample,
    mix_ratio: float = 0.3,
    credible_share: float = 0.9,
    scale: float = 32.0,
    *,
    target: str = "classifier row",
    seed: int = 0,
) -> View:
    """Angles of a mixed batch to its classes, and the probability that the right class gets.

    The whole sample is one batch: a share of it, drawn among the credible rows as MixBCT draws them, stands
    there with its old features, the rest with its new ones. The models are trained and stay as they are:
    the controls change which rows are looked at, and how sharply they are judged.

    Args:
        sample: of the new training set.
        mix_ratio: alpha, share of the batch that old features replace, 0..1.
        credible_share: share of each class's old features that may be used, 0..1 (T in the paper).
        scale: s, the factor on cosines before the softmax, above 0.
        target: "classifier row" of the class, or its "old prototype", the mean of its old features.
        seed: of the draw.

    Raises:
        ValueError: "the target ... is not known ...", "scale must be above 0 ...", or what MixBCT refuses.
    """
    from companion.plots.style import NEW, OLD

    if target not in TARGETS:
        raise ValueError(f"the target {target!r} is not known; choose one of {' or '.join(TARGETS)}")
    if not scale > 0:
        raise ValueError(f"scale must be above 0, not {scale}")
    used = sample.replaced(mix_ratio, credible_share, seed)
    rejected = ~sample.credible(credible_share)
    angles = {side: sample.angles(side, target) for side in ("old", "new")}
    chances = {side: sample.probabilities(side, target, scale) for side in ("old", "new")}
    groups = [(NEW, angles["new"][~used]), (OLD, angles["old"][used]), (REJECTED, angles["old"][rejected])]
    left = _histogram(groups, ANGLES, len(used), f"angle to the own {target}, degrees", range(0, 121, 30))
    left.rule(x=90)
    groups = [(NEW, chances["new"][~used]), (OLD, chances["old"][used])]
    right = _histogram(groups, PROBABILITIES, len(used), f"probability of the right class at scale {scale:g}")
    words = ("new features", "old features mixed in", "old, not credible (left only)")
    keys = [key(colour, text) for colour, text in zip((NEW, OLD, REJECTED), words, strict=True)]
    text = _text(sample, used, rejected, angles, chances, scale, target)
    return view([legend(keys), side_by_side([left, right])], text)


def _histogram(
    groups: list[tuple[str, np.ndarray]],
    edges: np.ndarray,
    size: int,
    xlabel: str,
    ticks: Sequence[float] | None = None,
) -> Chart:
    """Groups as shares of the batch, over one another; what lies outside counts in the last bin."""
    heights = [np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0] / size for _, values in groups]
    top = 1.05 * max(float(height.max()) for height in heights)
    ends = (float(edges[0]), float(edges[-1]))
    words = {"xlabel": xlabel, "ylabel": "share of the batch", "alt": f"Histogram of the {xlabel}"}
    chart = Chart(ends, (0, top), xticks=None if ticks is None else {x: f"{x:g}" for x in ticks}, **words)
    for (colour, _), height in zip(groups, heights, strict=True):
        chart.area(edges, height, colour)
    return chart


def _text(
    sample: TrainingSample,
    used: np.ndarray,
    rejected: np.ndarray,
    angles: dict[str, np.ndarray],
    chances: dict[str, np.ndarray],
    scale: float,
    target: str,
) -> str:
    said = [
        f"new features {_middle(angles['new'][~used])}",
        f"old ones mixed in {_middle(angles['old'][used])}",
    ]
    said += [f"old ones that are not credible {_middle(angles['old'][rejected])}"] if rejected.any() else []
    losses = np.where(used, -np.log(chances["old"] + 1e-30), -np.log(chances["new"] + 1e-30))
    means = [f"{chances['new'][~used].mean():.1%} for new features"] if not used.all() else []
    means += [f"{chances['old'][used].mean():.1%} for old ones"] if used.any() else []
    carried = losses[used].sum() / max(losses.sum(), 1e-30)
    classes = sample.cosines("old", target).shape[1]
    return (
        f"{sample.title}: {used.sum()} of {len(used)} rows are old features, drawn from {(~rejected).sum()} "
        f"credible ones. Median angle to the own {target}: {', '.join(said)}. At scale {scale:g} the right "
        f"one of {classes} classes gets a mean probability of {', '.join(means)}; old features carry "
        f"{carried:.0%} of the loss."
    )


def _middle(values: np.ndarray) -> str:
    return f"{np.median(values):.0f}°" if len(values) else "none"


def sweep_view(
    sample: TrainingSample,
    mix_ratio: float = 0.3,
    credible_share: float = 0.9,
    scale: float = 32.0,
    *,
    target: str = "classifier row",
) -> View:
    """Each of the three controls moved alone, the other two as given: what the sliders show, on paper.

    Args:
        sample, mix_ratio, credible_share, scale, target: as in `angle_view`.
    """
    from companion.plots.style import NEW, OLD

    ratios, shares = np.linspace(*RATIOS, 7), np.linspace(*SHARES, 6)
    scales = np.geomspace(*SCALES, 7)
    angles = {side: sample.angles(side, target) for side in ("old", "new")}
    chances = {side: sample.probabilities(side, target, scale) for side in ("old", "new")}
    losses = {side: -np.log(chances[side] + 1e-30) for side in chances}
    carried = []
    for ratio in ratios:
        used = sample.replaced(float(ratio), credible_share)
        old, new = losses["old"][used].sum(), losses["new"][~used].sum()
        carried.append(old / max(old + new, 1e-30))
    kept = [angles["old"][sample.credible(float(share))] for share in shares]
    sides = {side: [sample.probabilities(side, target, float(s)).mean() for s in scales] for side in angles}
    size = (270, 230)
    first = Chart((0, RATIOS[1]), (0, 1), size=size, xlabel="mix ratio", ylabel="share that is old")
    first.line(ratios, ratios, REJECTED, "3 3").line(ratios, carried, OLD)
    ranks = {rank: [np.percentile(rows, rank) if len(rows) else np.nan for rows in kept] for rank in (50, 90)}
    high = 10 * np.ceil(1.02 * np.nanmax(list(ranks.values())) / 10)
    second = Chart(SHARES, (0, high), size=size, xlabel="credible share", ylabel="old angle, degrees")
    second.line(shares, ranks[50], OLD).line(shares, ranks[90], OLD, "6 4")
    powers, ticks = np.log2(scales), {0: "1", 2: "4", 4: "16", 6: "64"}
    third = Chart((0, 6), (0, 1), size=size, xlabel="scale", ylabel="mean probability", xticks=ticks)
    third.line(powers, sides["new"], NEW).line(powers, sides["old"], OLD)
    first.title, second.title = "Loss (line) and rows (dotted)", "Median and ninth decile (dashed)"
    third.title = "Right class"
    keys = [key(NEW, "new features"), key(OLD, "old features")]
    text = (
        f"{sample.title}: each control alone, the others at mix ratio {mix_ratio:g}, credible share "
        f"{credible_share:g}, scale {scale:g}, measured against the {target}."
    )
    return view([legend(keys), side_by_side([first, second, third])], text)
