"""The claims of the papers, one small function each."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import pandas as pd

from companion.verdicts.trial import TOLERANCE, Trial, Verdict
from compat_lib.config import ExperimentConfig
from compat_lib.losses import METHODS

METRIC = "tar@far=1e-3"
MIXBCT = METHODS["mixbct"].paper
DUAL_TUNING = METHODS["dual_tuning"].paper


def mixbct_unified(
    frame: pd.DataFrame, metric: str = METRIC, *, budget: str = "steps", tolerance: float = TOLERANCE
) -> Verdict:
    """MixBCT is one method for old models of varying quality.

    Source: MixBCT, abstract. Read as: new/old > old/old in every setting, among them a normal and a weak old
    model, and old models trained with softmax and with ArcFace.
    """
    trial = Trial(frame, metric, budget, tolerance)
    for setting in trial.settings():
        trial.criterion(setting, "mixbct")
    for field, value, words in (
        ("old_strength", "normal", "a normal old model"),
        ("old_strength", "weak", "a weak old model"),
        ("old_loss", "softmax", "an old model trained with softmax"),
        ("old_loss", "arcface", "an old model trained with ArcFace"),
    ):
        trial.require(words, any(row[field] == value for row in trial.tested()))
    return trial.verdict("unified over old models of varying quality", MIXBCT)


def mixbct_beats_prototypes(
    frame: pd.DataFrame, metric: str = METRIC, *, budget: str = "steps", tolerance: float = TOLERANCE
) -> Verdict:
    """MixBCT is better than methods that lean on old prototypes when the old model is weak.

    Source: MixBCT, abstract. Read as: with a weak old model, better than BCT and than Dual-Tuning in the
    self-test or in the cross-test, and not worse in the other.
    """
    trial = Trial(frame, metric, budget, tolerance)
    weak = trial.settings(old_strength="weak")
    trial.require("a weak old model", bool(weak))
    for setting in weak:
        for other in ("bct", "dual_tuning"):
            trial.compare_overall(setting, "mixbct", other)
    return trial.verdict("better than prototype methods when the old model is weak", MIXBCT)


def mixbct_without_cost(
    frame: pd.DataFrame, metric: str = METRIC, *, budget: str = "steps", tolerance: float = TOLERANCE
) -> Verdict:
    """MixBCT does not pay with the new model's own quality, as L2 regression does.

    Source: MixBCT, comparison with L2. Read as: in the self-test the oracle is better than L2, and MixBCT is
    not worse than the oracle, in every setting.
    """
    trial = Trial(frame, metric, budget, tolerance)
    for setting in trial.settings():
        trial.compare(setting, "independent", "l2", "new_new", better=True)
        trial.compare(setting, "mixbct", "independent", "new_new", better=False)
    return trial.verdict("without L2's cost to the new model", MIXBCT)


def dual_tuning_compatible(
    frame: pd.DataFrame, metric: str = METRIC, *, budget: str = "steps", tolerance: float = TOLERANCE
) -> Verdict:
    """Dual-Tuning is compatible across networks and training losses.

    Source: Dual-Tuning, abstract. Read as: new/old > old/old in every setting, among them old and new models
    of different networks and of different losses. The method is a reconstruction here.
    """
    trial = Trial(frame, metric, budget, tolerance)
    for setting in trial.settings():
        trial.criterion(setting, "dual_tuning")
    rows = trial.tested()
    trial.require("two different networks", any(row["old_backbone"] != row["new_backbone"] for row in rows))
    trial.require("two different losses", any(row["old_loss"] != row["new_loss"] for row in rows))
    return trial.verdict("compatible across networks and losses (reconstruction)", DUAL_TUNING)


def dual_tuning_without_cost(
    frame: pd.DataFrame, metric: str = METRIC, *, budget: str = "steps", tolerance: float = TOLERANCE
) -> Verdict:
    """Dual-Tuning does not sacrifice the new model's performance.

    Source: Dual-Tuning, abstract. Read as: its self-test is not worse than the oracle's in any setting. The
    method is a reconstruction here.
    """
    trial = Trial(frame, metric, budget, tolerance)
    for setting in trial.settings():
        trial.compare(setting, "dual_tuning", "independent", "new_new", better=False)
    return trial.verdict("without sacrificing performance (reconstruction)", DUAL_TUNING)


CLAIMS: tuple[Callable[..., Verdict], ...] = (
    mixbct_unified,
    mixbct_beats_prototypes,
    mixbct_without_cost,
    dual_tuning_compatible,
    dual_tuning_without_cost,
)


def all_verdicts(
    frame: pd.DataFrame,
    metric: str = METRIC,
    *,
    budget: str = "steps",
    tolerance: float = TOLERANCE,
    expected: Iterable[ExperimentConfig] | None = None,
) -> list[Verdict]:
    """Every claim's verdict.

    Args:
        frame: from tables.collect.
        metric: name without the pair.
        budget: "steps", or "passes" for runs at equal backbone passes.
        tolerance: absolute difference of the metric that counts as none.
        expected: configurations of a preset, to leave out the runs of others; None: all that ran.
    """
    if expected is not None:
        wanted = {(config.experiment_id, config.run_id) for config in expected}
        pairs = zip(frame["experiment_id"], frame["run_id"], strict=True)
        frame = frame[[pair in wanted for pair in pairs]]
    return [claim(frame, metric, budget=budget, tolerance=tolerance) for claim in CLAIMS]


def verdict_table(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """Claims, verdicts and evidence as text, one row a claim (for tables.styled)."""
    return pd.DataFrame(
        [{"paper": v.paper, "claim": v.claim, "verdict": v.label, "evidence": v.evidence} for v in verdicts]
    )


def verdict_text(verdict: Verdict) -> str:
    """One claim as markdown: its verdict in bold, whose claim it is, and the evidence as a list."""
    evidence = "\n".join(f"- {sentence}." for sentence in verdict.sentences)
    return f"**{verdict.claim}: {verdict.label}.**\n\n*{verdict.paper}*\n\n{evidence}"


def overview(found: Mapping[str, Sequence[Verdict]]) -> pd.DataFrame:
    """Every claim and its verdict in a few words, one column a budget.

    Args:
        found: "steps" and perhaps "passes" -> verdicts of the same claims in the same order.
    """
    first, *_ = found.values()
    table = pd.DataFrame({"paper": [v.paper.split(":")[0].split(" (")[0] for v in first]})
    table["claim"] = [verdict.claim for verdict in first]
    for budget, verdicts in found.items():
        table[budget] = [verdict.label for verdict in verdicts]
    return table
