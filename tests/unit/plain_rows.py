"""Features made by hand and what plain NumPy makes of them, for the tests of the evaluation."""

import numpy as np


def unit(rows):
    rows = np.asarray(rows, np.float64)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def cosines(query, gallery):
    return unit(query) @ unit(gallery).T


def average_precision(right):
    """Of a ranking whose items are right or wrong; NaN without a right one."""
    places = 1 + np.flatnonzero(right)
    return np.mean(np.arange(1, len(places) + 1) / places) if len(places) else np.nan


def best_tar(same, scores, far):
    """The definition: the best TAR of all thresholds at which the false accept rate is at most `far`."""
    thresholds = [*np.unique(scores), np.inf]
    return max((scores[same] >= t).mean() for t in thresholds if (scores[~same] >= t).mean() <= far)


def arc(u, v, alpha):
    """The point that divides the arc between two unit vectors."""
    angle = np.arccos(np.clip(u @ v, -1, 1))
    return (np.sin((1 - alpha) * angle) * u + np.sin(alpha * angle) * v) / np.sin(angle)


def interpolated(old, new, alpha):
    """Queries on the arc of old and new unit rows: the old ones padded where they are narrower, then cut."""
    padded = np.pad(unit(old), ((0, 0), (0, max(0, new.shape[1] - old.shape[1]))))
    queries = [arc(u, v, alpha) for u, v in zip(padded, unit(new), strict=True)]
    return unit(np.array(queries)[:, : old.shape[1]])


def grouped(classes, images, width=6, noises=(0.8,), seed=0):
    """Features by one model for each noise, of common images around common centres, and shuffled labels.

    The width is one for all models, or one for each.
    """
    rng = np.random.default_rng(seed)
    widths = width if isinstance(width, tuple) else (width,) * len(noises)
    labels = rng.permutation(np.repeat(np.arange(classes), images))
    centres = rng.normal(size=(classes, max(widths)))[labels]
    sides = []
    for noise, own in zip(noises, widths, strict=True):
        sides.append(centres[:, :own] + noise * rng.normal(size=(len(labels), own)))
    return *sides, labels


def photographed(identities, images, width, noises, *, shuffled, seed=0):
    """Old and new features of images of which both models see the same, labels, and a rotation."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(identities), images)
    labels = rng.permutation(labels) if shuffled else labels
    photos = rng.normal(size=(identities, width))[labels]
    photos = photos + 0.5 * rng.normal(size=photos.shape)
    old, new = (photos + noise * rng.normal(size=photos.shape) for noise in noises)
    return old, new, labels, np.linalg.qr(rng.normal(size=(width, width)))[0]
