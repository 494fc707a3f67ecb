"""Every verdict from runs made to give it."""

import pytest
from synthetic_runs import METRIC, configs, write_run

from companion import verdicts
from companion.tables import collect
from companion.verdicts import DOES_NOT_SHOW, NOT_DECIDABLE, NOT_RUN, SHOWS, judge, judge_overall
from compat_lib.config import ExperimentConfig
from compat_lib.evaluation.paired import PairedComparison

NORMAL = {}
ARCFACE = {"old_loss": "arcface"}
WEAK = {"old_strength": "weak", "old_epochs": 4}
NOISE = (0.0, 0.002, -0.002)  # what the seeds add: a t-interval of +- 0.005 around a difference without it


def write_setting(root, setting, values, seeds=(0, 1, 2), old=0.36, **run):
    """values: method -> (cross, self); the seeds' noise differs between methods."""
    for i, (method, (cross, own)) in enumerate(values.items()):
        for seed in seeds:
            noise = NOISE[seed] * (-1) ** i * (1.4 - i / 10)
            config = ExperimentConfig(method=method, seed=seed, **setting)
            write_run(root, config, old, cross + noise, own + noise, **run)


GOOD = {
    "independent": (0.0, 0.91),
    "l2": (0.55, 0.80),
    "bct": (0.60, 0.93),
    "dual_tuning": (0.56, 0.93),
    "mixbct": (0.58, 0.93),
}
GOOD_WEAK = {
    "independent": (0.0, 0.91),
    "l2": (0.10, 0.40),
    "bct": (0.10, 0.75),
    "dual_tuning": (0.10, 0.80),
    "mixbct": (0.12, 0.905),
}


@pytest.fixture
def full(tmp_path):
    write_setting(tmp_path, NORMAL, GOOD)
    write_setting(tmp_path, ARCFACE, GOOD)
    write_setting(tmp_path, WEAK, GOOD_WEAK, old=0.05)
    return tmp_path


def test_everything_shows_but_what_does_not(full):
    found = {verdict.claim: verdict for verdict in verdicts.all_verdicts(collect(full))}
    assert found["unified over old models of varying quality"].verdict == SHOWS
    assert found["better than prototype methods when the old model is weak"].verdict == SHOWS
    assert found["without L2's cost to the new model"].verdict == SHOWS
    assert found["compatible across networks and losses (reconstruction)"].verdict == SHOWS
    # with the weak old model its self-test is 0.80 where the oracle has 0.91
    loser = found["without sacrificing performance (reconstruction)"]
    assert loser.verdict == DOES_NOT_SHOW
    assert [part.verdict for part in loser.parts].count(DOES_NOT_SHOW) == 1
    assert "self-test Dual-Tuning - " in loser.evidence and "-0.110" in loser.evidence
    assert not any(verdict.indicative for verdict in found.values())
    assert "n = 3 seeds" in loser.evidence


def test_numbers_of_a_part(full):
    verdict = verdicts.mixbct_unified(collect(full))
    part = next(part for part in verdict.parts if "weak" in part.setting)
    (difference,) = part.differences.values()
    # margins 0.07, 0.072, 0.068: standard error 0.002 / sqrt(3), t(2) = 4.303
    assert difference.value == pytest.approx(0.07)
    assert difference.low == pytest.approx(0.07 - 4.3027 * 0.002 / 3**0.5, abs=1e-6)
    assert difference.seeds == 3 and difference.draws == 0
    assert len(verdict.parts) == 3


def test_one_failed_setting_refutes(tmp_path):
    write_setting(tmp_path, NORMAL, GOOD)
    write_setting(tmp_path, ARCFACE, GOOD | {"mixbct": (0.30, 0.93)})
    verdict = verdicts.mixbct_unified(collect(tmp_path))
    assert verdict.verdict == DOES_NOT_SHOW  # although no weak old model ran
    assert "a weak old model" in verdict.missing


def test_noise_is_not_a_verdict(tmp_path):
    write_setting(tmp_path, NORMAL, GOOD)
    for seed, own in enumerate((0.95, 0.85, 0.91)):
        write_run(tmp_path, ExperimentConfig(method="dual_tuning", seed=seed), 0.36, 0.56, own)
    verdict = verdicts.dual_tuning_without_cost(collect(tmp_path))
    assert verdict.verdict == NOT_DECIDABLE
    assert verdict.label == "not decidable within the seeds' noise"


def test_missing_settings_are_named(tmp_path):
    write_setting(tmp_path, NORMAL, GOOD)
    unified = verdicts.mixbct_unified(collect(tmp_path))
    assert unified.verdict == NOT_RUN
    assert unified.missing == ("a weak old model", "an old model trained with ArcFace")
    assert "1 shows" in unified.evidence and "Not run: a weak old model; an old model" in unified.evidence
    assert verdicts.mixbct_beats_prototypes(collect(tmp_path)).missing == ("a weak old model",)


def test_missing_methods_are_named(tmp_path):
    write_setting(tmp_path, NORMAL, {name: GOOD[name] for name in ("independent", "mixbct")})
    verdict = verdicts.mixbct_without_cost(collect(tmp_path))
    assert verdict.verdict == NOT_RUN
    assert len(verdict.missing) == 1 and "L2" in verdict.missing[0] and "open-class" in verdict.missing[0]


def test_nothing_ran(tmp_path):
    found = verdicts.all_verdicts(collect(tmp_path))
    assert {verdict.verdict for verdict in found} == {NOT_RUN}
    assert all("every run" in verdict.missing for verdict in found)
    assert verdicts.verdict_table(found)["verdict"].eq("not run").all()


def test_one_seed_is_indicative_only(tmp_path):
    write_setting(tmp_path, NORMAL, GOOD, seeds=(0,), width=0.02)
    verdict = verdicts.dual_tuning_compatible(collect(tmp_path))
    assert verdict.verdict == SHOWS and verdict.indicative
    assert verdict.label == "shows, on one seed: indicative only, the seeds' noise is unknown"
    assert "n = 1 seed, 101 draws over identities" in verdict.evidence
    assert "indicative at the most" in verdict.evidence


def test_one_seed_among_repeated_settings(tmp_path):
    write_setting(tmp_path, NORMAL, GOOD)
    write_setting(tmp_path, ARCFACE, GOOD, seeds=(0,), width=0.02)
    verdict = verdicts.dual_tuning_compatible(collect(tmp_path))
    assert verdict.label == "shows, in part on one seed: indicative only, the seeds' noise is unknown"


def test_one_seed_within_the_identities_noise(tmp_path):
    write_setting(tmp_path, NORMAL, GOOD, seeds=(0,), width=0.4)
    verdict = verdicts.dual_tuning_compatible(collect(tmp_path))
    assert verdict.verdict == NOT_DECIDABLE
    assert verdict.label == "not decidable: one seed, and within the noise of the test identities"


def test_one_seed_without_draws_decides_nothing(tmp_path):
    write_setting(tmp_path, NORMAL, GOOD, seeds=(0,))
    verdict = verdicts.dual_tuning_compatible(collect(tmp_path))
    assert verdict.verdict == NOT_DECIDABLE
    assert "(no interval)" in verdict.evidence


def test_one_repeated_counterexample_is_enough(tmp_path):
    write_setting(tmp_path, NORMAL, GOOD | {"dual_tuning": (0.56, 0.80)})
    write_setting(tmp_path, ARCFACE, GOOD | {"dual_tuning": (0.56, 0.80)}, seeds=(0,), width=0.001)
    verdict = verdicts.dual_tuning_without_cost(collect(tmp_path))
    assert verdict.verdict == DOES_NOT_SHOW and not verdict.indicative


def test_across_networks_and_losses_needs_both(tmp_path):
    write_setting(tmp_path, {"new_loss": "softmax", "old_backbone": "resnet-small"}, GOOD)
    assert verdicts.dual_tuning_compatible(collect(tmp_path)).missing == (
        "two different networks",
        "two different losses",
    )


def test_ablations_do_not_mix_with_the_method(tmp_path):
    write_setting(tmp_path, NORMAL, GOOD)
    ablation = ExperimentConfig(method="dual_tuning", method_options={"structure_weight": 0.0})
    write_run(tmp_path, ablation, 0.36, 0.1, 0.2)
    verdict = verdicts.dual_tuning_compatible(collect(tmp_path))
    assert verdict.verdict == SHOWS and len(verdict.parts) == 1


def test_each_setting_is_judged_by_its_own_runs(tmp_path):
    """Older runs by other options in three settings do not outvote the defaults in a fourth."""
    write_setting(tmp_path, NORMAL, GOOD, seeds=(0,), width=0.001)
    older = {"method": "dual_tuning", "method_options": {"prototype_weight": 1.0}}
    for setting in ({"scenario": "extended-class"}, ARCFACE, {"old_epochs": 7}):
        write_setting(tmp_path, setting, {"independent": (0.0, 0.91)}, seeds=(0,), width=0.001)
        write_run(tmp_path, ExperimentConfig(**older, **setting), 0.36, 0.30, 0.93, width=0.001)
    verdict = verdicts.dual_tuning_compatible(collect(tmp_path))
    assert len(verdict.parts) == 4 and not verdict.missing
    named = {part.experiment_id: next(iter(part.differences)) for part in verdict.parts}
    default = ExperimentConfig(method="dual_tuning", **NORMAL).experiment_id
    assert "prototype_weight" not in named.pop(default)
    assert all("Dual-Tuning (prototype_weight=1.0) new/old" in name for name in named.values())
    assert [part.verdict for part in verdict.parts].count(SHOWS) == 1


def test_an_ablation_never_stands_for_its_method(tmp_path):
    write_setting(tmp_path, NORMAL, GOOD, seeds=(0,), width=0.001)
    for seed in range(3):
        for weight in (0.0, 0.5):
            options = {"structure_weight": weight}
            config = ExperimentConfig(method="dual_tuning", method_options=options, seed=seed, **NORMAL)
            write_run(tmp_path, config, 0.36, 0.1, 0.2, width=0.001)
    frame = collect(tmp_path)
    assert verdicts.dual_tuning_compatible(frame).verdict == SHOWS
    (said,) = [text for text in verdicts.findings(frame) if "Dual-Tuning minus BCT" in text]
    assert "-0.040" in said and "structure_weight" not in said


def test_findings_name_options_that_are_not_the_defaults(tmp_path):
    write_setting(tmp_path, NORMAL, {"mixbct": (0.58, 0.93)}, seeds=(0,), width=0.001)
    config = ExperimentConfig(method="bct", method_options={"weight": 1.0}, **NORMAL)
    write_run(tmp_path, config, 0.36, 0.5, 0.9, width=0.001)
    (said,) = [text for text in verdicts.findings(collect(tmp_path)) if "MixBCT minus BCT" in text]
    assert "+0.080" in said and "BCT (weight=1.0)" in said


def test_equal_passes_takes_the_right_runs(tmp_path):
    write_setting(tmp_path, WEAK, GOOD_WEAK, old=0.05)
    for seed in range(3):  # at equal steps MixBCT embeds fewer images
        config = ExperimentConfig(method="mixbct", seed=seed, **WEAK)
        write_run(tmp_path, config, 0.05, 0.12, 0.905, images=700)
    absent = verdicts.mixbct_beats_prototypes(collect(tmp_path), budget="passes")
    assert absent.verdict == NOT_RUN and absent.missing[0].startswith("MixBCT in ")
    for seed in range(3):
        config = ExperimentConfig(method="mixbct", seed=seed, budget="passes", **WEAK)
        write_run(tmp_path, config, 0.05, 0.12, 0.60 + NOISE[seed])
    frame = collect(tmp_path)
    assert verdicts.mixbct_beats_prototypes(frame, budget="passes").verdict == DOES_NOT_SHOW
    assert verdicts.mixbct_beats_prototypes(frame).verdict == SHOWS
    assert "equal backbone passes" in verdicts.mixbct_beats_prototypes(frame, budget="passes").evidence


def test_expected_leaves_out_other_presets(full):
    preset = configs(["mixbct"], **NORMAL)
    (unified, *_) = verdicts.all_verdicts(collect(full), expected=preset)
    assert len(unified.parts) == 1


def test_metric_that_was_not_measured(tmp_path):
    write_setting(tmp_path, NORMAL, GOOD)
    verdict = verdicts.dual_tuning_compatible(collect(tmp_path), "tar@far=1e-4")
    assert verdict.verdict == NOT_RUN
    assert "tar@far=1e-4" in verdict.missing[0] and METRIC not in verdict.missing[0]


@pytest.mark.parametrize(
    ("low", "high", "better", "not_worse"),
    [
        (0.02, 0.05, SHOWS, SHOWS),
        (-0.005, 0.05, NOT_DECIDABLE, SHOWS),
        (-0.05, 0.05, NOT_DECIDABLE, NOT_DECIDABLE),
        (-0.005, 0.005, DOES_NOT_SHOW, SHOWS),
        (-0.05, -0.005, DOES_NOT_SHOW, NOT_DECIDABLE),
        (-0.05, -0.02, DOES_NOT_SHOW, DOES_NOT_SHOW),
        (float("nan"), float("nan"), NOT_DECIDABLE, NOT_DECIDABLE),
    ],
)
def test_judge(low, high, better, not_worse):
    difference = PairedComparison((low + high) / 2, low, high, 3)
    assert judge(difference, better=True) == better
    assert judge(difference, better=False) == not_worse


def test_judge_overall():
    lead, loss = PairedComparison(0.1, 0.05, 0.15, 3), PairedComparison(-0.1, -0.15, -0.05, 3)
    equal, open_ = PairedComparison(0.0, -0.005, 0.005, 3), PairedComparison(0.0, -0.1, 0.1, 3)
    assert judge_overall([lead, equal]) == SHOWS
    assert judge_overall([lead, loss]) == DOES_NOT_SHOW
    assert judge_overall([equal, equal]) == DOES_NOT_SHOW
    assert judge_overall([lead, open_]) == NOT_DECIDABLE
    assert judge_overall([equal, open_]) == NOT_DECIDABLE


# -- beyond the claims ------------------------------------------------------------------------------


def test_findings_count_settings_and_name_the_extremes(full):
    frame = collect(full)
    said = {text.split(":")[0]: text for text in verdicts.findings(frame)}
    mixbct = said["Cross-test, MixBCT minus BCT"]  # -0.02 in two settings, +0.02 with the weak old model
    assert "above zero in 1, below in 2, undecided in 0 of 3 settings" in mixbct
    assert "from -0.020" in mixbct and "to +0.020" in mixbct and "weak old model)" in mixbct
    assert not any("adapter" in text or "passes" in text for text in said.values())  # none ran


def test_adapters_against_the_best_method(tmp_path):
    write_setting(tmp_path, NORMAL, {name: GOOD[name] for name in ("bct", "mixbct")})
    for seed in range(3):
        oracle = ExperimentConfig(method="independent", seed=seed)
        adapted = {f"adapter/ridge/new_old/{METRIC}": 0.50, f"adapter/procrustes/new_old/{METRIC}": 0.45}
        write_run(tmp_path, oracle, 0.36, 0.0, 0.91, **adapted)
    (text,) = (text for text in verdicts.findings(collect(tmp_path)) if "adapter" in text)
    assert text.startswith("Cross-test, the best trained method minus the best linear adapter: +0.100 [")
    assert "BCT against ridge adapter" in text and "n = 3 seeds" in text and "within noise" not in text


def test_equal_passes_against_equal_steps(tmp_path):
    write_setting(tmp_path, NORMAL, {"mixbct": GOOD["mixbct"]}, seeds=(0,), width=0.01)
    write_run(tmp_path, ExperimentConfig(method="mixbct", budget="passes"), 0.36, 0.61, 0.93, width=0.01)
    said = verdicts.findings(collect(tmp_path))
    assert [text.split(":")[0].split(",")[0] for text in said] == ["Cross-test", "Self-test"]
    assert "+0.030" in said[0] and "n = 1 seed (" in said[0]
    assert "+0.000" in said[1] and "within noise" in said[1]


def test_findings_of_nothing(tmp_path):
    assert verdicts.findings(collect(tmp_path)) == []


def test_verdicts_as_text_and_as_an_overview(full):
    found = {budget: verdicts.all_verdicts(collect(full), budget=budget) for budget in ("steps", "passes")}
    table = verdicts.overview(found)
    assert table.columns.tolist() == ["paper", "claim", "steps", "passes"]
    assert table["paper"].tolist() == ["MixBCT"] * 3 + ["Dual-Tuning"] * 2
    text = verdicts.verdict_text(found["steps"][0])
    assert text.startswith("**unified over old models of varying quality: shows.**")
    assert "arXiv 2308.06948" in text and text.count("\n- ") == len(found["steps"][0].sentences)
