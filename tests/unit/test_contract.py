"""Every method keeps the contract: registration, documentation, terms, frozen old system, refusals."""

import copy
import importlib.util
import math
import re
from pathlib import Path

import pytest
import torch
from method_steps import make_classifier, make_old, make_step

from compat_lib.losses import METHODS, CompatibilityLoss, build_method, method_options
from compat_lib.losses.contract import check_choice, check_number
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
    assert re.search(r"arXiv \d{4}\.\d{5}", method.paper)
    assert method.needs <= {"features", "prototypes", "classifier", "model", "oracle"}
    assert (TESTS / f"test_{name}.py").is_file()
    assert importlib.util.find_spec(f"compat_lib.losses.{name}")
    assert "Source:" in method.__doc__
    assert ("Reconstruction:" in method.__doc__) == method.reconstruction


@pytest.mark.parametrize("name", NAMES)
def test_every_option_has_a_documented_default(name):
    documented = re.findall(r"^ {8}(\w+): ", METHODS[name].__doc__, flags=re.MULTILINE)
    options = method_options(name)
    assert documented[:2] == ["old", "classifier"]
    assert documented[2:][: len(options)] == list(options)
    assert all(isinstance(default, str | int | float | bool) for default in options.values())
    assert set(METHODS[name].published) <= set(options)


@pytest.mark.parametrize("name", NAMES)
def test_terms_and_weights_have_the_same_names_and_classification_is_first(name):
    old = make_old()
    method = build_method(name, old, make_classifier())
    terms = method(own_step(method, old))
    assert list(terms) == list(method.weights)
    assert next(iter(terms)) == "classification"
    assert all(
        term.shape == () and term.dtype == torch.float32 and term.isfinite() for term in terms.values()
    )
    assert all(weight >= 0 for weight in method.weights.values())
    assert 0 <= method.embedded_share <= 1
    # terms that an option switches on have a formula too, and stand where they stand in the sum
    assert list(terms) == [term for term in METHODS[name].formulas if term in terms]


@pytest.mark.parametrize("name", NAMES)
def test_old_system_is_not_trained_not_saved_and_not_changed(name):
    old = make_old()
    before = copy.deepcopy(
        {key: value for key, value in vars(old).items() if isinstance(value, torch.Tensor)}
    )
    method = build_method(name, old, make_classifier())
    names = {key for key, _ in method.named_parameters()}
    assert names - {"classifier.weight"} if METHODS[name].learns else names == {"classifier.weight"}
    assert "classifier.weight" in method.state_dict()
    assert not any("old" in key or "prototype" in key or "credible" in key for key in method.state_dict())
    optimiser = torch.optim.SGD(method.parameters(), lr=0.1, weight_decay=0.1)
    terms = method(own_step(method, old))
    sum(method.weights[key] * term for key, term in terms.items()).backward()
    optimiser.step()
    for key, value in before.items():
        now = getattr(old, key)
        assert not now.requires_grad
        assert now.grad is None
        assert torch.equal(now, value)
    assert not any(buffer.requires_grad for buffer in method.buffers())


@pytest.mark.parametrize("name", NAMES)
def test_autocast_changes_nothing(name):
    old = make_old()
    method = build_method(name, old, make_classifier())
    plain = method(own_step(method, old))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = method(own_step(method, old))
    assert all(torch.equal(plain[key], inside[key]) for key in plain)
    low = method(own_step(method, old, dtype=torch.bfloat16))
    assert all(term.dtype == torch.float32 for term in low.values())
    assert method.classifier.weight.dtype == torch.float32


@pytest.mark.parametrize("name", NAMES)
def test_steps_repeat_to_the_bit(name):
    old = make_old()
    first, second = (
        build_method(name, old, make_classifier())(own_step(build_method(name, old, make_classifier()), old))
        for _ in range(2)
    )
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"independent"}))
def test_a_method_says_what_it_lacks(name):
    with pytest.raises(
        ValueError, match=f"The method {name} needs the old system's .*no old system was given"
    ):
        build_method(name, None, make_classifier())
    classifier_only = OldSystem.from_arrays(classifier_weight=torch.eye(3, 6), num_classes=5)
    pattern = f"The method {name} needs .*but only classifier is there.*what is there: .*independent"
    with pytest.raises(ValueError, match=pattern):
        build_method(name, classifier_only, make_classifier())


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"independent"}))
def test_classes_of_old_system_and_classifier_must_agree(name):
    with pytest.raises(ValueError, match="The old system has 5 new classes, the classifier 7"):
        build_method(name, make_old(), make_classifier(classes=7))


def test_unknown_methods_and_options_are_refused_with_the_list():
    with pytest.raises(ValueError, match="There is no method 'mixbtc'. Methods: advbct, bct, .*mixbct"):
        build_method("mixbtc", None, make_classifier())
    with pytest.raises(ValueError, match="There is no method 'x'"):
        method_options("x")
    with pytest.raises(ValueError, match="mixbct has no option 'ratio'. Options: mix_ratio, credible_share"):
        build_method("mixbct", make_old(), make_classifier(), ratio=0.3)
    with pytest.raises(ValueError, match="independent has no option 'x'. Options: none"):
        build_method("independent", None, make_classifier(), x=1)


def test_a_second_method_of_one_name_is_refused():
    with pytest.raises(ValueError, match="Two methods are called 'l2'"):
        type("Other", (CompatibilityLoss,), {"name": "l2"})
    type("Intermediate", (CompatibilityLoss,), {})
    assert sorted(METHODS) == NAMES


def test_a_method_without_terms_says_so():
    bare = type("Bare", (CompatibilityLoss,), {})(None, make_classifier())
    with pytest.raises(NotImplementedError, match="Bare does not say how its terms are computed"):
        bare(make_step(make_old()))


@pytest.mark.parametrize("value", [True, "1", None, math.inf, math.nan, -0.1, 1.1])
def test_check_number_refuses(value):
    with pytest.raises(ValueError, match="share must be a number between 0 and 1"):
        check_number("share", value, 0, 1)


def test_check_choice_tells_one_from_true():
    check_choice("columns", True, (True, False))
    with pytest.raises(ValueError, match="columns must be one of True, False, not 1"):
        check_choice("columns", 1, (True, False))
