"""Procrustes and ridge against scikit-learn, exact recovery and orthogonality; interpolation row by row."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_rows import interpolated, unit
from sklearn.linear_model import LinearRegression, Ridge

from compat_lib import adapters
from compat_lib.adapters import (
    ADAPTERS,
    ALPHAS,
    Interpolation,
    fit_interpolation,
    fit_procrustes,
    fit_ridge,
    load_adapter,
)
from compat_lib.deploy.gallery_models import mapped
from compat_lib.files import save_tensors


def pair(seed=0, rows=60, source=5, target=5):
    generator = np.random.default_rng(seed)
    a = generator.normal(size=(rows, source)) + 0.3
    return a, a @ generator.normal(size=(source, target)) + 0.2 * generator.normal(size=(rows, target))


@settings(max_examples=30)
@given(seed=st.integers(0, 1000), width=st.integers(1, 8))
def test_procrustes_is_orthogonal_and_recovers_a_rotation(seed, width):
    generator = np.random.default_rng(seed)
    old = generator.normal(size=(50, width))
    rotation = np.linalg.qr(generator.normal(size=(width, width)))[0]
    fitted = fit_procrustes(old, 7 * old @ rotation)
    identity = np.eye(width)
    np.testing.assert_allclose(fitted.matrix.T @ fitted.matrix, identity, atol=1e-6)
    np.testing.assert_allclose(fitted.matrix, rotation, atol=1e-6)
    np.testing.assert_allclose(fitted.apply(old), unit(old @ rotation), atol=1e-6)


@pytest.mark.parametrize(("source", "target"), [(3, 6), (6, 3)])
def test_procrustes_is_semi_orthogonal_for_other_widths(source, target):
    matrix = fit_procrustes(*pair(source=source, target=target)).matrix.double()
    assert matrix.shape == (source, target)
    product = matrix @ matrix.T if source < target else matrix.T @ matrix
    np.testing.assert_allclose(product, np.eye(3), atol=1e-6)


@pytest.mark.parametrize("penalty", [1e-3, 0.1, 3.0])
@pytest.mark.parametrize(("source", "target"), [(5, 5), (4, 7), (7, 2)])
def test_ridge_equals_scikit_learn(penalty, source, target):
    a, b = pair(source=source, target=target)
    s, t = unit(a), unit(b)
    expected = Ridge(alpha=penalty * np.trace(s.T @ s) / source, fit_intercept=False).fit(s, t)
    fitted = fit_ridge(a, b, penalty=penalty)
    np.testing.assert_allclose(fitted.matrix, expected.coef_.T, atol=1e-5)
    np.testing.assert_allclose(fitted.apply(a), unit(expected.predict(s)), atol=1e-5)


def test_ridge_without_penalty_is_least_squares_also_with_empty_directions():
    a, b = pair()
    s, t = unit(a), unit(b)
    expected = LinearRegression(fit_intercept=False).fit(s, t)
    np.testing.assert_allclose(fit_ridge(a, b, penalty=0).matrix, expected.coef_.T, atol=1e-5)
    flat = np.concatenate([a, np.zeros((len(a), 2))], axis=1)
    matrix = fit_ridge(flat, b, penalty=0).matrix
    np.testing.assert_allclose(matrix[:5], expected.coef_.T, atol=1e-5)
    assert matrix[5:].abs().max() < 1e-6


@pytest.mark.parametrize("name", ADAPTERS)
def test_block_size_and_lengths_of_rows_do_not_matter(name, monkeypatch):
    a, b = pair()
    whole = ADAPTERS[name](a, b)
    lengths = 10 ** np.random.default_rng(0).uniform(-200, 200, size=(60, 1))
    monkeypatch.setattr(adapters, "ROWS_AT_ONCE", 7)
    blocks = ADAPTERS[name](lengths * a, b / lengths)
    torch.testing.assert_close(whole.matrix, blocks.matrix, rtol=1e-4, atol=1e-5)
    mapped = whole.apply(torch.tensor(a, dtype=torch.float32))
    torch.testing.assert_close(mapped, blocks.apply(lengths * a), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mapped.norm(dim=1), torch.ones(60))  # unit rows of float32
    assert whole.kind == name


def test_rows_that_are_no_pairs_are_refused():
    rows = np.ones((60, 5))
    for source in (rows[1:], np.where(np.arange(60)[:, None] == 3, np.nan, rows)):
        with pytest.raises(ValueError, match="Row i of both must be the same image"):
            fit_procrustes(source, rows)
    with pytest.raises(ValueError, match="penalty must be at least 0, not -1"):
        fit_ridge(rows, rows, penalty=-1)


def slow_interpolation(old, new, alpha, rotate):
    """By the rotation of the new rows, padded or cut as the old ones."""
    padded = np.pad(unit(old), ((0, 0), (0, max(0, new.shape[1] - old.shape[1]))))
    left, _, right = np.linalg.svd(unit(new).T @ padded, full_matrices=False)
    return interpolated(old, unit(new) @ (left @ right) if rotate else new, alpha)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize(("old", "new", "rotate"), [(5, 5, True), (5, 5, False), (7, 4, True), (4, 7, True)])
def test_interpolation_is_that_of_the_paper_row_by_row(alpha, old, new, rotate):
    a, b = pair(source=old, target=new)
    found = fit_interpolation(a, b, alphas=[alpha], compatible=not rotate)
    np.testing.assert_allclose(found.apply(a, b), slow_interpolation(a, b, alpha, rotate), atol=2e-6)


def test_interpolation_without_an_angle_and_between_opposites():
    same = Interpolation(None, 0.25).apply([[1.0, 2.0]], [[1.0, 2.0]])  # no angle: the line
    np.testing.assert_allclose(same, unit([[1.0, 2.0]]), atol=1e-6)
    assert torch.isfinite(Interpolation(None, 0.3).apply([[1.0, 0.0]], [[-1.0, 0.0]])).all()


def test_the_weight_and_the_map_are_those_that_find_most():
    rng = np.random.default_rng(1)
    labels = np.repeat(np.arange(40), 4)
    centres = rng.normal(size=(40, 8))
    old, new = (centres[labels] + noise * rng.normal(size=(160, 8)) for noise in (1.0, 0.8))
    turn = np.linalg.qr(rng.normal(size=(8, 8)))[0]
    for asked, rotated in ((new, False), (new @ turn, True)):
        recalls = {}
        for rotate in (True, False):
            for alpha in ALPHAS:
                scores = slow_interpolation(old, asked, alpha, rotate) @ unit(old).T
                np.fill_diagonal(scores, -2)
                recalls[rotate, alpha] = (labels[scores.argmax(1)] == labels).mean()
        found = fit_interpolation(old, asked, labels)
        assert recalls[found.rotation is not None, found.alpha] == max(recalls.values())
        assert not rotated or found.rotation is not None
    names = [f"person {c}" for c in labels]
    assert fit_interpolation(old, new, names).alpha == fit_interpolation(old, new, labels).alpha


def test_an_interpolation_that_cannot_be_fitted_is_refused():
    wrong = {"lie in 0..1": {"alphas": [1.5]}, "chosen by labels": {}, "need a map": {"compatible": True}}
    for message, options in wrong.items():
        with pytest.raises(ValueError, match=message):
            fit_interpolation(*pair(source=4, target=7), **options)


def test_a_map_is_saved_and_loaded(tmp_path):
    a, b = pair(source=4, target=7)
    fitted = fit_ridge(a, b)
    with pytest.raises(ValueError, match="say what the map is for"):
        fitted.save(tmp_path / "map.safetensors")
    replace(fitted, side="gallery").save(tmp_path / "map.safetensors")
    loaded = load_adapter(tmp_path / "map.safetensors")
    assert (loaded.kind, loaded.side, loaded.matrix.shape) == ("ridge", "gallery", (4, 7))
    assert torch.equal(loaded.apply(a), fitted.apply(a))
    save_tensors({"features": torch.ones(2, 2)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="holds no adapter"):
        load_adapter(tmp_path / "other.safetensors")


def test_a_map_of_an_earlier_version_holds_means_which_must_be_zeros(tmp_path):
    fitted, path = fit_ridge(*pair(source=4, target=7)), tmp_path / "map.safetensors"
    means = {"source_mean": torch.zeros(4), "target_mean": torch.zeros(7)}
    about = {"kind": "ridge", "side": "query"}
    save_tensors({"matrix": fitted.matrix} | means, path, about)
    assert torch.equal(load_adapter(path).matrix, fitted.matrix)
    save_tensors({"matrix": fitted.matrix} | means | {"target_mean": torch.ones(7)}, path, about)
    with pytest.raises(ValueError, match="was fitted with means; fit it again"):
        load_adapter(path)


def test_a_gallery_of_an_earlier_version_maps_with_its_means():
    rows, mean, matrix = unit(pair()[0]), np.full(5, 0.1, np.float32), fit_ridge(*pair()).matrix
    np.savez(kept := io.BytesIO(), matrix=matrix.numpy(), source_mean=mean, target_mean=2 * mean)
    expected = unit((rows - 0.1) @ matrix.numpy() + 0.2)
    np.testing.assert_allclose(mapped(rows, kept.getvalue()), expected, atol=1e-6)
