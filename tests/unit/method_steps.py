"""Small old systems and steps for the tests of methods, and slow float64 loops written from the formulas."""

import dataclasses
import math

import torch

from compat_lib.losses import Classifier, Step
from compat_lib.old_system import OldSystem


def make_old(
    seed=0,
    classes=5,
    per_class=4,
    width=6,
    old_classes=3,
    class_map="shared",
    classifier=True,
    scale=None,
    oracle_width=None,
):
    """Features of every class; new label c is old label c + 1 for two classes when class_map is "shared"."""
    generator = torch.Generator().manual_seed(seed)
    features = 3 * torch.randn(classes * per_class, width, generator=generator)
    labels = torch.arange(classes * per_class) % classes
    if class_map == "shared":
        class_map = [1, 2] + [-1] * (classes - 2)
    elif class_map == "none":
        class_map = [-1] * classes
    weight = torch.randn(old_classes, width, generator=generator)
    bias = torch.randn(old_classes, generator=generator) if scale is None else None
    old = OldSystem.from_arrays(
        features,
        labels,
        classifier_weight=weight if classifier else None,
        classifier_bias=bias if classifier else None,
        classifier_scale=scale,
        class_map=class_map,
    )
    return old.with_oracle(torch.randn(len(labels), oracle_width or width, generator=generator))


def make_clusters(per_class, width, classes=5):
    """Each class around a direction of its own."""
    generator = torch.Generator().manual_seed(per_class)
    labels = torch.arange(classes * per_class) % classes
    middles = 3 * torch.randn(classes, width, generator=generator)
    return OldSystem.from_arrays(
        middles[labels] + torch.randn(len(labels), width, generator=generator), labels
    )


def make_near_step(old, width, batch):
    """A float64 step whose embeddings lie around the old features, some inside a region, some outside."""
    step = make_step(old, width, batch, dtype=torch.float64)
    near = step.old_features + 2 * step.embeddings.detach()
    return dataclasses.replace(step, embeddings=near.requires_grad_())


def make_classifier(kind="arcface", width=6, classes=5, seed=1, **options):
    torch.manual_seed(seed)
    classifier = Classifier(kind, width, classes, scale=8.0, ramp=0.0, **options)
    torch.nn.init.normal_(classifier.weight)
    if classifier.bias is not None:
        torch.nn.init.normal_(classifier.bias)
    return classifier


def make_step(old, width=6, batch=8, seed=2, embedded=None, dtype=torch.float32, progress=1.0, rows=None):
    generator = torch.Generator().manual_seed(seed)
    if rows is None:
        rows = torch.randperm(len(old.labels), generator=generator)[:batch]
    count = len(rows) if embedded is None else int(embedded.sum())
    embeddings = torch.randn(count, width, generator=generator, dtype=torch.float64).to(dtype)
    return Step(
        rows=rows,
        labels=old.labels[rows],
        embeddings=embeddings.requires_grad_(),
        embedded=embedded,
        old_features=None if old.features is None else old.features[rows].to(dtype),
        epoch=0,
        epochs=1,
        batch=0,
        batches=1,
        progress=progress,
        generator=generator,
        oracle_features=None if old.oracle_features is None else old.oracle_features[rows].to(dtype),
    )


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def unit(a):
    length = math.sqrt(dot(a, a))
    return [x / length for x in a]


def fitted(a, width):
    return [a[i] if i < len(a) else 0.0 for i in range(width)]


def slow_cross_entropy(logits, target, smoothing=0.0):
    """One row: 1 - smoothing on the target, the rest shared among the other classes."""
    total = sum(math.exp(z) for z in logits)
    losses = [-(z - math.log(total)) for z in logits]
    others = [loss for k, loss in enumerate(losses) if k != target]
    return (1 - smoothing) * losses[target] + (smoothing * sum(others) / len(others) if others else 0.0)


def slow_logits(classifier, embedding, target=None, margin=None):
    """One row of the classifier's logits, with the margin on the target."""
    rows = classifier.weight.detach().double().tolist()
    margin = classifier.margin if margin is None else margin
    if classifier.kind == "linear":
        return [
            dot(row, embedding) + b for row, b in zip(rows, classifier.bias.double().tolist(), strict=True)
        ]
    logits = []
    for k, row in enumerate(rows):
        t = dot(unit(row), unit(embedding))
        if k == target and classifier.kind == "cosface":
            t = t - margin
        elif k == target:
            angle = math.acos(t)
            t = math.cos(angle + margin) if angle + margin < math.pi else t - margin * math.sin(margin)
        logits.append(classifier.scale * t)
    return logits


def slow_classification(classifier, embeddings, labels):
    rows = [
        slow_cross_entropy(slow_logits(classifier, embedding, label), label)
        for embedding, label in zip(embeddings, labels, strict=True)
    ]
    return sum(rows) / len(rows)


def slow_means(old, average="raw"):
    means = []
    for label in range(old.num_classes):
        rows = [
            f for f, y in zip(old.features.double().tolist(), old.labels.tolist(), strict=True) if y == label
        ]
        if average == "unit":
            rows = [unit(row) for row in rows]
        means.append([sum(column) / len(rows) for column in zip(*rows, strict=True)])
    return means


def slow_kept(distances):
    """The rule for outliers of AdvBCT and LCE: the largest distance that is none, and how many are none."""
    distances = sorted(distances)
    n = len(distances)
    if n >= 4:
        q1, q3 = distances[n // 4], distances[3 * n // 4]
        spread = 1.5 * (q3 - q1)
        distances = [d for d in distances if q1 - spread <= d <= q3 + spread]
    return distances[-1], len(distances)


def slow_old_logits(old, embedding):
    embedding = fitted(embedding, old.width)
    weight = old.classifier_weight.double().tolist()
    if old.classifier_scale is not None:
        return [old.classifier_scale * dot(unit(row), unit(embedding)) for row in weight]
    return [
        dot(row, embedding) + b for row, b in zip(weight, old.classifier_bias.double().tolist(), strict=True)
    ]


def check_gradient(method, step):
    """Autograd against finite differences, for the embeddings and the classifier, in float64."""
    method.double()

    def total(embeddings, *parameters):
        terms = method(dataclasses.replace(step, embeddings=embeddings))
        return sum(method.weights[name] * term for name, term in terms.items())

    embeddings = step.embeddings.detach().double().requires_grad_()
    return torch.autograd.gradcheck(total, (embeddings, *method.parameters()))
