"""The idea of every method on a handful of points in the plane, without images and without a network.

Five classes of points on a circle play the features of an old model. A new model is played by one free
angle per image: what its backbone would do to an image, gradient descent does to the angle itself. The
losses are the real ones of compat_lib.losses, so what the points do is what the methods do.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from compat_lib.losses import Classifier, Step, build_method, find_method
from compat_lib.old_system import OldSystem

IMAGES = 20  # of a class
SPREAD = math.radians(11.0)  # standard deviation of a cluster
# Weights that were chosen for images and networks nail points in the plane to where they start.
LIGHTER: dict[str, dict[str, Any]] = {
    "bct": {"weight": 1.0},
    "unibct": {"weight": 1.0},
    "dual_tuning": {"prototype_weight": 1.0},
    "lce": {"boundary_weight": 1.0, "alignment_weight": 1.0},
}


@dataclass(frozen=True)
class Toy:
    """Old features in the plane, and where an untrained new model would put the same images."""

    old: Tensor  # float32 [N, 2], length about 1
    labels: Tensor  # int64 [N], 0..4
    outlier: Tensor  # bool [N]: the old model put this image into a foreign class
    start: Tensor  # float32 [N], angles in radians

    @property
    def system(self) -> OldSystem:
        """The old system: these features, and a classifier that knew all classes but the last."""
        sums = torch.zeros(5, 2).index_add(0, self.labels, self.old * ~self.outlier[:, None])
        rows = 8.0 * normalize(sums)[:4]
        return OldSystem.from_arrays(
            self.old, self.labels, classifier_weight=rows, class_map=torch.tensor([0, 1, 2, 3, -1])
        )


@dataclass(frozen=True)
class ToyRun:
    """Snapshots of a toy training, for small multiples."""

    method: str
    steps: tuple[int, ...]
    points: Tensor  # float32 [S, N, 2]: new features at each snapshot; only their angle has meaning
    classifier: Tensor  # float32 [S, 5, 2]: unit rows of the new classifier
    self_test: tuple[float, ...]  # share of new points whose nearest other new point is of their class
    # share of new points whose nearest old point (another image) is, both as the method compares them
    cross_test: tuple[float, ...]


def make_toy(*, outliers: int = 2) -> Toy:
    """Five old clusters of IMAGES points on the unit circle; outliers of the first lie amid the third.

    >>> toy = make_toy(outliers=1)
    >>> toy.old.shape, int(toy.outlier.sum()), toy.labels[19:22].tolist()
    (torch.Size([100, 2]), 1, [0, 1, 1])
    """
    if not 0 <= outliers < IMAGES:
        raise ValueError(f"outliers must lie between 0 and {IMAGES - 1}; got {outliers}")
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(5).repeat_interleave(IMAGES)
    outlier = torch.arange(len(labels)) < outliers
    centres = torch.deg2rad(torch.tensor([90.0, 162.0, 234.0, 306.0, 18.0]))
    noise = torch.randn(2, len(labels), generator=generator)
    angles = centres[labels] + SPREAD * noise[0]
    angles[outlier] = centres[2] + SPREAD / 2 * noise[0][outlier]
    radii = 1.0 + 0.04 * noise[1]
    # An untrained new model separates nothing.
    start = 2 * math.pi * torch.rand(len(labels), generator=generator)
    return Toy(radii[:, None] * _on_circle(angles), labels, outlier, start)


def train_toy(
    method: str, toy: Toy, *, snapshots: tuple[int, ...] = (0, 20, 80, 300), seed: int = 0, **options: Any
) -> ToyRun:
    """Train the new points with one method and keep snapshots on the way: the same run for equal arguments.

    Args:
        snapshots: numbers of gradient steps (each on all points) after which the points are kept; 0 is the
            start, and the training ends with the largest.
        seed: for the classifier and for what the method draws.
        options: options of the method; those that are not given have LIGHTER's values, then their defaults.

    Each step counts as an epoch of one batch. An oracle that the method needs is played first, from the next
    seed, for as many steps. A gallery that the method transforms when the training is over
    is transformed for the cross-test of every snapshot.
    """
    kind = find_method(method)
    if kind.model_width(2, 2) != 2:
        raise ValueError(
            f"{method} has no toy: it needs a network with {kind.model_width(2, 2)} outputs for features of "
            "two coordinates. Play another method."
        )
    options, system = LIGHTER.get(method, {}) | options, toy.system
    if "oracle" in kind.needs:
        oracle = train_toy("independent", toy, snapshots=(max(snapshots),), seed=seed + 1)
        system = system.with_oracle(oracle.points[-1])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        classifier = Classifier("cosface", 2, 5, scale=8.0, margin=0.1, ramp=0.0)
        loss = build_method(method, system, classifier, **options)
        angles = torch.nn.Parameter(toy.start.clone())
        learnt = [parameter for parameter in loss.parameters() if parameter.requires_grad]
        adam = torch.optim.Adam([{"params": [angles], "lr": 0.05}, {"params": learnt}], lr=0.02)
        rows, kept, steps = torch.arange(len(toy.labels)), [], max(max(snapshots), 1)

        def embed() -> Tensor:
            return _on_circle(angles.detach())

        for step in range(steps + 1):
            if step in snapshots:
                kept.append((step, embed(), normalize(classifier.weight.detach()).clone()))
            generator = torch.Generator().manual_seed(1_000_003 * seed + step)
            loss.start_epoch(step, steps + 1, embed)
            embedded = loss.rows_to_embed(rows, toy.labels, generator)
            embeddings = _on_circle(angles if embedded is None else angles[embedded])
            when = {"epoch": step, "epochs": steps + 1, "batch": 0, "batches": 1}
            when |= {"progress": min(step / steps, 1 - 1e-6), "generator": generator}
            when["oracle_features"] = system.oracle_features
            terms = loss(Step(rows, toy.labels, embeddings, embedded, toy.old, **when))
            adam.zero_grad()
            sum(loss.weights[name] * term for name, term in terms.items()).backward()
            adam.step()
        loss.finish(embed)
    taken, points, classifiers = zip(*kept, strict=True)
    loss.eval()
    return ToyRun(
        method,
        taken,
        torch.stack(points),
        torch.stack(classifiers),
        tuple(_nearest(new, new, toy.labels) for new in points),
        tuple(_nearest(*loss.comparable(new, toy.old), toy.labels) for new in points),
    )


def _on_circle(angles: Tensor) -> Tensor:
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def _nearest(query: Tensor, gallery: Tensor, labels: Tensor) -> float:
    """Share of queries whose nearest point by cosine, their own image excluded, has their label."""
    cosines = (normalize(query) @ normalize(gallery).T).fill_diagonal_(-2.0)
    return float((labels[cosines.argmax(dim=1)] == labels).float().mean())
