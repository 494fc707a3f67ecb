"""BCT and weakened L2 together: the terms are those of the two methods, each tested against a slow loop."""

import torch
from method_steps import check_gradient, make_classifier, make_old, make_step

from compat_lib.losses import build_method


def test_terms_and_weights_are_those_of_both():
    old = make_old()
    step = make_step(old, dtype=torch.float64)
    bct, distance = {"scale": 9.0}, {"weight": 2.0, "threshold": 0.3}
    methods = [
        build_method("bct_weakened_l2", old, make_classifier(), **bct, **distance, influence_weight=3.0),
        build_method("bct", old, make_classifier(), **bct, weight=3.0),
        build_method("weakened_l2", old, make_classifier(), **distance),
    ]
    both, *parts = (method(step) for method in methods)
    assert both == parts[0] | parts[1]
    assert methods[0].weights == methods[1].weights | methods[2].weights


def test_gradient_against_finite_differences():
    old = make_old()
    assert check_gradient(build_method("bct_weakened_l2", old, make_classifier()), make_step(old, batch=4))
