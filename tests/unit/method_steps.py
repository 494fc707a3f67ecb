"""Small old systems and steps for the tests of methods, and the check of their gradients."""

import dataclasses

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
    tables = {"classifier_weight": weight, "classifier_bias": bias} if classifier else {}
    tables |= {"classifier_scale": scale, "class_map": class_map}
    old = OldSystem.from_arrays(features, labels, **tables)
    return old.with_oracle(torch.randn(len(labels), oracle_width or width, generator=generator))


def make_clusters(per_class, width, classes=5):
    """Each class around a direction of its own; of the first class only the first row."""
    generator = torch.Generator().manual_seed(per_class)
    labels = torch.arange(classes * per_class) % classes
    labels = torch.cat([labels[:1], labels[labels > 0]])
    middles = 3 * torch.randn(classes, width, generator=generator)
    noise = torch.randn(len(labels), width, generator=generator)
    return OldSystem.from_arrays(middles[labels] + noise, labels)


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


def check_gradient(method, step):
    """Autograd against finite differences, for the embeddings and the classifier, in float64."""
    method.double()

    def total(embeddings, *parameters):
        terms = method(dataclasses.replace(step, embeddings=embeddings))
        return sum(method.weights[name] * term for name, term in terms.items())

    embeddings = step.embeddings.detach().double().requires_grad_()
    return torch.autograd.gradcheck(total, (embeddings, *method.parameters()))
