"""What the runs show beyond the claims: one sentence a question, computed from paired differences."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from companion.tables import (
    main_variant,
    method_title,
    paired_difference,
    setting_titles,
    variant_title,
    with_adapters,
)
from compat_lib.evaluation.paired import PairedComparison
from compat_lib.losses import METHODS

HEADLINE = "tar@far=1e-3"
_Picked = tuple[str, pd.DataFrame]  # title where the question does not name it so, else ""; runs


def findings(frame: pd.DataFrame, metric: str = HEADLINE) -> list[str]:
    """Sentences on questions that no claim asks, for those that the runs can answer.

    Args:
        frame: from tables.collect (or the frame of a Reading).
        metric: name without the pair.

    Returns:
        One sentence for each question with at least one setting in which both sides ran; intervals are
        95 %, over seeds and test identities or, with one seed, over test identities alone.
    """
    frame = with_adapters(frame[frame["method"] != "old"])
    if frame.empty:
        return []
    questions = (
        ("Cross-test, the best trained method minus the best linear adapter", _trained, _adapter, "new_old"),
        ("Cross-test, MixBCT minus BCT", _plain("mixbct"), _plain("bct"), "new_old"),
        ("Cross-test, Dual-Tuning minus BCT", _plain("dual_tuning"), _plain("bct"), "new_old"),
        ("Self-test, BCT minus the oracle", _plain("bct"), _plain("independent"), "new_new"),
        ("Self-test, L2 minus the oracle", _plain("l2"), _plain("independent"), "new_new"),
    )
    sentences = []
    for question, pick_a, pick_b, pair in questions:
        found = differences(frame, pick_a, pick_b, f"{pair}/{metric}")
        if found:
            sentences.append(sentence(question, found))
    for pair, test in (("new_old", "Cross-test"), ("new_new", "Self-test")):
        found = differences(frame, _plain("mixbct", "passes"), _plain("mixbct"), f"{pair}/{metric}")
        if found:
            sentences.append(sentence(f"{test}, MixBCT at equal passes minus MixBCT at equal steps", found))
    return sentences


def differences(
    frame: pd.DataFrame,
    pick_a: Callable[[pd.DataFrame, str], _Picked | None],
    pick_b: Callable[[pd.DataFrame, str], _Picked | None],
    column: str,
) -> dict[str, PairedComparison]:
    """Difference between two picked methods in every setting in which both ran: words -> difference."""
    result = {}
    for experiment, title in setting_titles(frame).items():
        runs = frame[frame["experiment_id"] == experiment]
        a, b = pick_a(runs, column), pick_b(runs, column)
        if a is None or b is None:
            continue
        difference = paired_difference(a[1], column, b[1], column)
        if difference.seeds:
            chosen = " against ".join(name for name, _ in (a, b) if name)
            result[f"{title}: {chosen}" if chosen else title] = difference
    return result


def sentence(question: str, found: Mapping[str, PairedComparison]) -> str:
    """Differences as one sentence: the numbers of one setting, or counts and extremes of many.

    >>> sentence("Cross-test, A minus B", {"here: A against B": PairedComparison(0.1, 0.05, 0.15, 3)})
    'Cross-test, A minus B: +0.100 [+0.050, +0.150], n = 3 seeds (here: A against B).'
    """
    if len(found) == 1:
        ((where, difference),) = found.items()
        return f"{question}: {_numbers(difference)} ({where})."
    values = list(found.values())
    above, below = sum(d.low > 0 for d in values), sum(d.high < 0 for d in values)
    ends = [min(found, key=lambda name: found[name].value), max(found, key=lambda name: found[name].value)]
    least, most = (f"{_numbers(found[name])} ({name})" for name in ends)
    return (
        f"{question}: above zero in {above}, below in {below}, undecided in {len(found) - above - below} of "
        f"{len(found)} settings; from {least} to {most}."
    )


def _numbers(d: PairedComparison) -> str:
    if not np.isfinite(d.low):
        return f"{d.value:+.3f}, no interval"
    noise = "" if d.decided else ", within noise"
    return f"{d.value:+.3f} [{d.low:+.3f}, {d.high:+.3f}]{noise}, n = {d.seeds} seed{'s'[: d.seeds > 1]}"


def _plain(method: str, budget: str = "steps") -> Callable[[pd.DataFrame, str], _Picked | None]:
    """Picks the runs that stand for a method; options that are not its defaults are named."""

    def pick(runs: pd.DataFrame, column: str) -> _Picked | None:
        rows = main_variant(runs, method, budget)
        title = variant_title(rows, method)
        return None if rows.empty else ("" if title == method_title(method) else title, rows)

    return pick


def _trained(runs: pd.DataFrame, column: str) -> _Picked | None:
    return _best(runs, [name for name in METHODS if name != "independent"], column)


def _adapter(runs: pd.DataFrame, column: str) -> _Picked | None:
    return _best(
        runs, [name for name in dict.fromkeys(runs["method"]) if name.startswith("adapter/")], column
    )


def _best(runs: pd.DataFrame, names: Sequence[str], column: str) -> _Picked | None:
    """The method with the highest mean, which flatters it a little: it is chosen by what is then compared."""
    if column not in runs:
        return None
    means = {name: pd.to_numeric(main_variant(runs, name)[column]).mean() for name in names}
    means = {name: value for name, value in means.items() if not pd.isna(value)}
    if not means:
        return None
    name = max(means, key=lambda name: means[name])
    chosen = main_variant(runs, name)
    return variant_title(chosen, name), chosen
