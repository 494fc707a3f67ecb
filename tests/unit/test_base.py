"""Every method keeps the contract: registration, documentation, terms, frozen old system, refusals."""

import dataclasses
import importlib.util
import itertools
import math
import re
from pathlib import Path

import numpy as np
import pytest
import slow_losses as slow
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from method_steps import make_classifier, make_old, make_step

from compat_lib.losses import METHODS, CompatibilityLoss, build_method, method_options
from compat_lib.losses.base import prototype_table
from compat_lib.names import check_choice, check_number
from compat_lib.old_system import OldSystem

NAMES = sorted(METHODS)
TESTS = Path(__file__).parent


def own_step(method, old, dtype=torch.float32, **options):
    rows = torch.arange(12)
    embedded = method.rows_to_embed(rows, old.labels[rows], torch.Generator().manual_seed(0))
    width = method.model_width(old.width, method.classifier.width)
    return make_step(old, width, embedded=embedded, rows=rows, dtype=dtype, **options)


@pytest.mark.parametrize("name", NAMES)
def test_method_is_documented_and_tested(name):
    method = METHODS[name]
    assert method.name == name
    assert method.title
    dated = re.search(r"arXiv \d{4}\.\d{5}|\b(19|20)\d\d\b", method.paper)
    assert dated, f"{name}: paper is {method.paper!r}; name its source with a year or an arXiv number"
    assert method.needs <= {"features", "prototypes", "classifier", "model", "oracle"}
    assert (TESTS / f"test_{name}.py").is_file()
    assert importlib.util.find_spec(f"compat_lib.losses.{name}")
    assert method.__doc__, f"{method.__name__} has no docstring: write what it does, 'Source:' and 'Args:'"
    assert "Source:" in method.__doc__, f"the docstring of {method.__name__} has no line 'Source: ...'"
    assert ("Reconstruction:" in method.__doc__) == method.reconstruction
    described = re.findall(r"^ {8}(\w+): ", method.__doc__, flags=re.MULTILINE)
    described = [argument for argument in described if argument not in ("old", "classifier")]
    options = list(method_options(name))
    assert described[: len(options)] == options, f"{name}: describe each option below 'Args:'"
    assert set(method.published) <= set(options)


@pytest.mark.parametrize("name", NAMES)
def test_terms_and_weights_have_the_same_names_and_classification_is_first(name):
    old = make_old()
    method = build_method(name, old, make_classifier())
    terms = method(own_step(method, old))
    assert list(terms) == list(method.weights)
    assert next(iter(terms)) == "classification"
    for term in terms.values():
        assert term.shape == () and term.dtype == torch.float32 and term.isfinite()
    assert all(weight >= 0 for weight in method.weights.values())
    assert 0 <= method.embedded_share <= 1
    # terms that an option switches on have a formula too, and stand where they stand in the sum
    assert list(terms) == [term for term in METHODS[name].formulas if term in terms]


@pytest.mark.parametrize("name", NAMES)
def test_old_system_is_neither_trained_nor_saved(name):
    method = build_method(name, make_old(), make_classifier())
    names = {key for key, _ in method.named_parameters()}
    assert names - {"classifier.weight"} if METHODS[name].learns else names == {"classifier.weight"}
    assert "classifier.weight" in method.state_dict()
    assert not any("old" in key or "prototype" in key or "credible" in key for key in method.state_dict())
    assert not any(buffer.requires_grad for buffer in method.buffers())


@pytest.mark.parametrize("name", NAMES)
def test_autocast_changes_nothing_and_without_gradients_no_term_has_one(name):
    old = make_old()
    method = build_method(name, old, make_classifier())
    plain = method(own_step(method, old))
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        inside = method(own_step(method, old))
    assert all(torch.equal(plain[key], inside[key]) for key in plain)
    assert method.classifier.weight.dtype == torch.float32
    assert not any(term.requires_grad for term in inside.values())


@pytest.mark.parametrize("name", NAMES)
def test_progress_reaches_the_margin_of_the_classification(name):
    old = make_old()
    values = {}
    for margin in (0.0, 0.4):
        for progress in (0.0, 0.5, 1.0):
            method = build_method(name, old, make_classifier(margin=margin))
            method.classifier.ramp = 1.0
            terms = method(own_step(method, old, progress=progress))
            values[margin, progress] = terms["classification"].item()
    assert values[0.0, 0.0] == values[0.0, 1.0] == values[0.4, 0.0]
    assert values[0.4, 0.0] < values[0.4, 0.5] < values[0.4, 1.0]


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"bt2", "mixbct"}))  # these see other rows
def test_classification_is_that_of_the_slow_loop(name):
    old = make_old()
    method = build_method(name, old, make_classifier("linear")).double()
    step = own_step(method, old, dtype=torch.float64)
    expected = slow.classification(method.classifier, step.embeddings.tolist(), step.labels.tolist())
    assert method(step)["classification"].item() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=10)
@given(order=st.permutations(range(12)), new=st.floats(1e-2, 1e2), past=st.floats(1e-2, 1e2))
def test_order_of_the_batch_and_lengths_of_features_do_not_matter(name, order, new, past):
    old = make_old(scale=4.0)
    method = build_method(name, old, make_classifier()).double()
    step = own_step(method, old, dtype=torch.float64)
    embedded = torch.ones(12, dtype=torch.bool) if step.embedded is None else step.embedded
    everything = torch.zeros(12, step.embeddings.shape[1], dtype=torch.float64)
    everything[embedded] = step.embeddings.detach()
    length = 1 if name == "bt2" else new  # its head has a bias
    other = dataclasses.replace(
        step,
        rows=step.rows[order],
        labels=step.labels[order],
        embeddings=length * everything[order][embedded[order]],
        embedded=None if step.embedded is None else embedded[order],
        old_features=past * step.old_features[order],
        oracle_features=past * step.oracle_features[order].double(),
    )
    expected = {term: value.item() for term, value in method(step).items()}
    values = {term: value.item() for term, value in method(other).items()}
    assert values == pytest.approx(expected, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "term"),
    [("bct", "influence"), ("bt2", "influence"), ("dual_tuning", "prototype"), ("unibct", "prototype")],
)
def test_a_class_without_images_is_no_candidate_among_the_prototypes(name, term):
    full = make_old(classes=4, classifier=False, class_map=None)
    labels = torch.tensor([0, 1, 3, 4])[full.labels]  # class 2 of five has no image
    gap = OldSystem.from_arrays(full.features, labels, num_classes=5).with_oracle(full.oracle_features)
    step, values = make_step(full, METHODS[name].model_width(6, 6)), []
    for old, seen in ((full, step.labels), (gap, labels[step.rows])):
        classifier = make_classifier(classes=old.num_classes)
        torch.manual_seed(0)
        method = build_method(name, old, classifier)
        values.append(method(dataclasses.replace(step, labels=seen))[term])
    expected, value = values
    torch.testing.assert_close(value, expected)
    value.backward()
    assert step.embeddings.grad.isfinite().all()


@pytest.mark.parametrize("name", ["bct", "dual_tuning"])
@pytest.mark.parametrize("width", [6, 8, 4])
def test_new_features_take_the_old_width_in_the_cross_test(name, width):
    method = build_method(name, make_old(), make_classifier(width=width))
    new, past = torch.randn(3, width), torch.randn(4, 6)
    queries, gallery = method.comparable(new, past)
    assert queries.tolist() == [pytest.approx(slow.fitted(row, 6)) for row in new.tolist()]
    assert gallery is past


# What a method is given in the tests of its options: a short fit.
BASE = {name: {"fit_epochs": 4} for name in ("fct", "fastfill")}
ELSEWHERE = {  # tested beside the method, because they need an old system of their own
    ("mixbct", "pad"),  # of another width
}


def other_values(name, option, default):
    """Legal values of an option that are not its default."""
    if isinstance(default, bool):
        return [not default]
    if isinstance(default, int):
        return [3]
    if isinstance(default, float):
        return [0.6 * default or 0.25]
    with pytest.raises(ValueError, match=f"{option} is .*; choose one of") as refusal:
        build_method(name, make_old(), make_classifier(), **{option: "?"})
    choices = str(refusal.value).split("one of ")[1].split(", ")
    assert default in choices and len(choices) > 1
    return [choice for choice in choices if choice != default]


def course(name, options):
    """All that a short training shows of a method: weights, terms, gradients and the features at its end."""
    old = make_old(per_class=20)
    torch.manual_seed(1)
    method = build_method(name, old, make_classifier(), **options)
    width, passes = method.model_width(old.width, 6), itertools.count()

    def embed():
        return torch.randn(len(old.labels), width, generator=torch.Generator().manual_seed(next(passes)))

    seen = list(method.weights.items())
    for epoch in (1, 2, 4):
        method.start_epoch(epoch, 7, embed)
        rows = torch.arange(12) + 12 * epoch
        embedded = method.rows_to_embed(rows, old.labels[rows], torch.Generator().manual_seed(epoch))
        step = make_step(old, width, embedded=embedded, rows=rows, seed=epoch)
        wide = (10 * step.embeddings.detach()).requires_grad_()
        terms = method(dataclasses.replace(step, embeddings=wide, epoch=epoch, epochs=7))
        sum(method.weights[key] * term for key, term in terms.items()).backward()
        seen += [(key, term.item()) for key, term in terms.items()] + wide.grad.flatten().tolist()
        method.classifier.weight.data[epoch] *= -1  # what is stored of the classifier grows old
    method.finish(embed)
    stored = method.head(embed()) if method.head else embed()
    return seen + [side.flatten().tolist() for side in (stored, *method.comparable(stored, old.features))]


@pytest.mark.parametrize("name", sorted(name for name in NAMES if method_options(name)))
def test_no_option_is_ignored(name):
    base = BASE.get(name, {})
    usual = course(name, base)
    assert course(name, base) == usual
    for option, default in method_options(name).items():
        if (name, option) in ELSEWHERE:
            continue
        for value in other_values(name, option, default):
            changed = course(name, base | {option: value}) != usual
            assert changed, f"{name}: {option}={value!r} changes nothing"


def test_an_option_that_is_a_factor_of_terms_is_their_weight():
    for name in NAMES:
        for option in (one for one in method_options(name) if re.fullmatch("(?!fit_)(.*_)?weight", one)):
            weights = build_method(name, make_old(), make_classifier(), **{option: 0.123}).weights
            assert 0.123 in weights.values() and weights["classification"] == 1.0, (name, option)


def test_features_of_unequal_width_are_compared_only_where_a_method_says_how():
    new, old = torch.randn(3, 6), torch.randn(4, 6)
    method = build_method("independent", None, make_classifier())
    assert method.comparable(new, old) == (new, old)
    assert method.comparable(new, old[:, :5]) is method.comparable(new[:, :5], old) is None


def test_means_of_unit_features_are_those_of_the_features_also_beside_given_prototypes():
    """The given table has a row that the features lack, and lacks one that they have."""
    given = torch.eye(5, 6)
    given[0] = 0
    features = make_old().features[:8]
    old = OldSystem.from_arrays(features, [0, 1, 2, 3] * 2, prototypes=given)
    prototypes, present = prototype_table(old, "unit", "bct")
    assert present.tolist() == [True, True, True, True, False]
    means = torch.nn.functional.normalize(features, dim=1).reshape(2, 4, 6).mean(dim=0)
    torch.testing.assert_close(prototypes[:4], means)


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"independent"}))
def test_a_method_says_what_it_lacks(name):
    with pytest.raises(ValueError, match=f"The method {name} needs the old .*no old system was given"):
        build_method(name, None, make_classifier())
    classifier_only = OldSystem.from_arrays(classifier_weight=torch.eye(3, 6), num_classes=5)
    pattern = (
        f"The method {name} needs .*only classifier is there. To go on .*, for .*is there: .*independent"
    )
    with pytest.raises(ValueError, match=pattern):
        build_method(name, classifier_only, make_classifier())
    with pytest.raises(ValueError, match="The old system has 5 new classes, the classifier 7"):
        build_method(name, make_old(), make_classifier(classes=7))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: type("Other", (CompatibilityLoss,), {"name": "l2"}), "Two methods are called 'l2'"),
        (
            lambda: build_method("mixbtc", None, None),
            "is 'mixbtc'; choose one of advbct, .*bct, .*mixbct",
        ),
        (lambda: method_options("x"), "the method is 'x'; choose"),
        (
            lambda: build_method("mixbct", None, None, ratio=0.3),
            "no option 'ratio'. Options: mix_ratio, cred",
        ),
        (
            lambda: build_method("independent", None, None, x=1),
            "independent has no option 'x'. Options: none",
        ),
    ],
)
def test_unknown_methods_and_options_are_refused_with_the_list(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_a_cell_that_is_run_again_defines_its_method_anew():
    again = type("L2", (METHODS["l2"],), {"name": "l2", "__module__": METHODS["l2"].__module__})
    assert METHODS["l2"] is again
    METHODS["l2"] = again.__base__


@pytest.mark.parametrize(
    ("name", "term"),
    [("pull", torch.ones(12)), ("pull", torch.ones(1)), ("pull", 1.0), ("pul", torch.ones(()))],
)
def test_terms_without_a_weight_or_with_dimensions_are_refused_by_name(name, term):
    class Own(CompatibilityLoss):
        def terms(self, step):
            return {"classification": self.classification(step), name: term}

    method = Own(None, make_classifier())
    method.weights["pull"] = 2.0
    with pytest.raises(TypeError, match=f"^Own, term '{name}': .* weights of classification, pull$"):
        method(own_step(method, make_old()))


# -- what users set, and what a step gives -----------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in NAMES if method_options(name)])
def test_a_wrong_value_of_any_option_is_refused_by_its_name(name):
    wrong = {float: ("1", math.nan, -1, True), int: (0, 2.5, True, "3"), str: ("?", 1), bool: (1, "yes")}
    for option, default in method_options(name).items():
        for value in wrong[type(default)]:
            with pytest.raises(ValueError, match=f"^{option} (must be .*, not|is) {re.escape(repr(value))}"):
                build_method(name, make_old(), make_classifier(), **{option: value})


def test_options_may_be_numpy_scalars():
    half, one = np.float32(0.5), np.int64(1)
    assert (check_number("share", half, 0, 1), check_number("share", one, 0, 1)) == (0.5, 1)
    assert check_choice("columns", np.True_, (True, False)) is True
    assert check_choice("pad", np.str_("zero"), ("refuse", "zero")) == "zero"


ANY_WIDTH = {"independent", "bct", "dual_tuning", "bt2", "fct", "fastfill", "bc_emb"}


@pytest.mark.parametrize("name", sorted(set(NAMES) - ANY_WIDTH))
def test_unequal_widths_are_refused_where_a_method_cannot_use_them(name):
    with pytest.raises(ValueError, match=rf"{name} needs old and new .* not 6 \(old\) and 8 \(new\)"):
        build_method(name, make_old(), make_classifier(width=8))


@pytest.mark.parametrize("name", NAMES)
def test_old_features_of_another_number_of_rows_are_refused(name):
    """One row would silently be stretched over the whole batch."""
    old = make_old()
    method = build_method(name, old, make_classifier())
    step = own_step(method, old)
    with pytest.raises(ValueError, match="progress is 50; give the share of all steps that are done"):
        method(dataclasses.replace(step, progress=50))
    for field in ("old_features", "oracle_features"):
        with pytest.raises(ValueError, match=f"{name} needs {field} of 12 rows, .* not 1. Pass"):
            method(dataclasses.replace(step, **{field: getattr(step, field)[:1]}))
    for need, field in (("features", "old_features"), ("oracle", "oracle_features")):
        if need in method.needs:
            with pytest.raises(ValueError, match=f"{name} needs {field} of 12 rows, .* not None"):
                method(dataclasses.replace(step, **{field: None}))


@pytest.mark.parametrize("kind", ["linear", "arcface"])
@pytest.mark.parametrize("name", NAMES)
def test_rows_of_zeros_have_no_large_gradient(name, kind):
    old = make_old()
    features = old.features.clone()
    features[1] = 0
    old = dataclasses.replace(old, features=features)
    method = build_method(name, old, make_classifier(kind))
    step = own_step(method, old)
    embeddings = step.embeddings.detach().clone()
    embeddings[0] = 0
    terms = method(dataclasses.replace(step, embeddings=embeddings.requires_grad_()))
    sum(terms.values()).backward()
    assert all(term.isfinite() for term in terms.values())
    assert embeddings.grad.abs().max() < 1e3
