"""The parts of which the formulas of losses are made, as loops over lists of numbers in float64."""

import math


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def unit(a):
    length = math.sqrt(dot(a, a))
    return [x / length for x in a]


def fitted(a, width):
    return [a[i] if i < len(a) else 0.0 for i in range(width)]


def mean(values):
    return sum(values) / len(values) if values else 0.0


def rows_of(step):
    """Embedding, old feature and label of each row, in numbers."""
    return [*zip(step.embeddings.tolist(), step.old_features.tolist(), step.labels.tolist(), strict=True)]


def excess(new, targets, threshold=0.0):
    """Mean over pairs of rows of the distance of their unit rows above a threshold."""
    distances = [math.dist(unit(n), unit(t)) for n, t in zip(new, targets, strict=True)]
    return mean([max(0.0, distance - threshold) for distance in distances])


def samples(old, label):
    """The old features of a class."""
    return [f for f, y in zip(old.features.double().tolist(), old.labels.tolist(), strict=True) if y == label]


def linear(weight, bias, x):
    return [dot(row, x) + b for row, b in zip(weight.tolist(), bias.tolist(), strict=True)]


def cross_entropy(logits, target):
    return math.log(sum(math.exp(z) for z in logits)) - logits[target]


def logits(classifier, embedding, target=None, margin=None):
    """One row of the classifier's logits, with the margin on the target."""
    if classifier.kind == "linear":
        return linear(classifier.weight.double(), classifier.bias.double(), embedding)
    margin = classifier.margin if margin is None else margin
    logits = []
    for k, row in enumerate(classifier.weight.double().tolist()):
        t = dot(unit(row), unit(embedding))
        if k == target and classifier.kind == "cosface":
            t = t - margin
        elif k == target:
            angle = math.acos(t)
            t = math.cos(angle + margin) if angle + margin < math.pi else t - margin * math.sin(margin)
        logits.append(classifier.scale * t)
    return logits


def classification(classifier, embeddings, labels):
    pairs = zip(embeddings, labels, strict=True)
    return mean([cross_entropy(logits(classifier, row, y), y) for row, y in pairs])


def cosines(prototypes, embedding, scale):
    return [scale * dot(unit(p), unit(embedding)) for p in prototypes]


def means(old, average="raw"):
    means = []
    for label in range(old.num_classes):
        rows = [unit(f) if average == "unit" else f for f in samples(old, label)]
        means.append([sum(column) / len(rows) for column in zip(*rows, strict=True)])
    return means


def kept(distances):
    """The rule for outliers of AdvBCT and LCE: the largest distance that is none, and how many are none."""
    distances = sorted(distances)
    n = len(distances)
    if n >= 4:
        q1, q3 = distances[n // 4], distances[3 * n // 4]
        spread = 1.5 * (q3 - q1)
        distances = [d for d in distances if q1 - spread <= d <= q3 + spread]
    return distances[-1], len(distances)


def old_logits(old, embedding):
    embedding, weight = fitted(embedding, old.width), old.classifier_weight.double()
    if old.classifier_scale is not None:
        return cosines(weight.tolist(), embedding, old.classifier_scale)
    return linear(weight, old.classifier_bias.double(), embedding)
