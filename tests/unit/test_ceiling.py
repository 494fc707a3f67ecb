"""The old gallery asked by means of five old features, beside a plain loop in float64."""

import numpy as np
import pytest
import torch
from plain_rows import average_precision, unit

from compat_lib.evaluation.ceiling import ADAPTER, ceiling, mean_queries
from compat_lib.evaluation.compatibility import compare

SIZES = (13, 5, 10, 6, 1, 0, 12)  # images of each identity: two groups, none, two, one, none, none, two


@pytest.fixture(scope="module")
def sample():
    generator = torch.Generator().manual_seed(3)
    labels = torch.arange(len(SIZES)).repeat_interleave(torch.tensor(SIZES))
    labels = labels[torch.randperm(len(labels), generator=generator)]
    centres = torch.randn(len(SIZES), 6, generator=generator)
    noise = torch.randn(len(labels), 6, generator=generator)
    length = torch.rand(len(labels), 1, generator=generator) + 0.5
    return (centres[labels] + 1.2 * noise) * length, labels


def test_groups_are_of_one_identity_and_every_image_is_in_one_at_most(sample):
    features, labels = sample
    means, asked, group = mean_queries(features, labels)
    assert asked.bincount().tolist() == [2, 0, 2, 1, 0, 0, 2] and len(means) == 7
    unit = features.double() / features.double().norm(dim=1, keepdim=True)
    for number, mean in enumerate(means):
        rows = (group == number).nonzero()[:, 0]
        assert len(rows) == 5 and labels[rows].unique().tolist() == [int(asked[number])]
        assert torch.allclose(mean.double(), unit[rows].mean(0), atol=1e-6)
    alone = group[group >= 7]
    assert len(alone.unique()) == len(alone) == len(labels) - 35
    assert not torch.equal(mean_queries(features, labels, seed=1)[2], group)


def test_the_numbers_are_those_of_a_plain_loop(sample):
    features, labels = sample
    means, asked, group = (one.numpy() for one in mean_queries(features, labels))
    gallery, names = unit(features), labels.numpy()
    genuine, impostor, precisions, first = [], [], [], []
    for number, mean in enumerate(means.astype(float)):
        cosine = gallery @ (mean / np.linalg.norm(mean))
        rows = np.flatnonzero(group != number)
        right = names[rows] == asked[number]
        genuine += cosine[rows][right].tolist()
        impostor += cosine[rows][~right].tolist()
        ranked = right[np.argsort(-cosine[rows], kind="stable")]
        precisions.append(average_precision(ranked))
        first.append(ranked[0])
    found = ceiling("pairs", features, labels, draws=20)
    assert {(one.query, one.gallery, one.adapter) for one in found} == {("old", "old", ADAPTER)}
    value = {one.metric: one.value for one in found}
    assert value["map"] == pytest.approx(np.mean(precisions)) and value["rank1"] == np.mean(first)
    threshold = np.sort(impostor)[::-1][int(1e-2 * len(impostor))]  # as many impostors lie above it
    assert value["tar@far=1e-2"] == pytest.approx(np.mean(np.array(genuine) > threshold))
    assert all(len(one.draws) == 20 for one in found)
    same = ceiling("leave-one-out", features, labels, draws=0)
    assert {one.metric for one in same} == {"map", "top1", "top5"}
    assert same.value("old", "old", "top1", adapter=ADAPTER) == value["rank1"]


def test_it_lies_above_a_single_query_and_is_left_out_where_it_cannot_be(sample):
    features, labels = sample
    single = compare(None, features, labels, draws=0).records.value("new", "new", "map")
    assert ceiling("pairs", features, labels, draws=0).value("old", "old", "map", adapter=ADAPTER) > single
    assert len(ceiling("reid", features, labels)) == 0
    assert len(ceiling("pairs", features[:4], torch.tensor([0, 0, 1, 1]))) == 0
