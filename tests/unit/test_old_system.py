"""What an old system takes, refuses, derives and keeps; class means and credible rows against slow loops."""

import collections
import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from method_steps import make_old

from compat_lib import class_means as statistics
from compat_lib import files
from compat_lib.files import save_tensors
from compat_lib.old_system import TENSORS, OldSystem, class_means, credible_rows, rows_of

# -- a user's arrays ---------------------------------------------------------------------------

X = np.random.default_rng(0).standard_normal((6, 3)).astype(np.float32)
LABELS = np.array([0, 1, 1, 0, 2, 2])
GOOD = {"features": X, "labels": LABELS, "class_map": np.array([1, -1, 0])}
GOOD |= {"classifier_weight": np.eye(2, 3), "classifier_bias": np.zeros(2)}
TAKEN = {
    "arrays": (X, LABELS),
    "tables": (pd.DataFrame(X, index=[5, 3, 1, 0, 2, 4]), pd.Series(LABELS, index=range(6, 0, -1))),
    "nullable": (pd.DataFrame(X, dtype="Float32"), pd.Series(LABELS, dtype="Int64")),
    "tensors": ([torch.tensor(row) for row in X], [torch.tensor(label) for label in LABELS]),
    "lists": (X.tolist(), LABELS.tolist()),
    "gradient": (torch.tensor(X, requires_grad=True), torch.tensor(LABELS, dtype=torch.uint8)),
    "big-endian": (X.astype(">f8"), LABELS.astype(">i2")),
    "strided": (X.astype(np.longdouble)[::-1][::-1], LABELS.astype(np.uint64)),
}


@pytest.mark.parametrize("case", TAKEN)
def test_rows_are_taken_in_their_order(case):
    old = OldSystem.from_arrays(**GOOD | dict(zip(("features", "labels"), TAKEN[case], strict=True)))
    assert np.array_equal(old.features.numpy(), X) and old.labels.tolist() == LABELS.tolist()
    assert old.features.dtype == torch.float32 and old.labels.dtype == old.class_map.dtype == torch.int64
    assert (old.num_classes, old.width) == (3, 3) and not old.features.requires_grad


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.uint8, torch.bool])
def test_any_real_type_becomes_float32(dtype):
    assert torch.equal(OldSystem.from_arrays(torch.eye(2, 3).to(dtype), [0, 1]).features, torch.eye(2, 3))


def changed(name, position, value):
    array = GOOD[name].copy()
    array[position] = value
    return {name: array}


BAD = [
    (changed("features", (2, 1), np.nan), "features hold 1 values that are not finite, .* row 2"),
    ({"features": np.ma.masked_equal(X, X[2, 1])}, "features hold 1 values that are not finite, .* row 2"),
    ({"labels": pd.array([None, *LABELS[1:].tolist()], dtype="Int64")}, "labels must be whole numbers"),
    ({"features": np.full((6, 3), 1e300)}, "features hold 18 values that are not"),  # infinite as float32
    ({"labels": [0, 1, 1]}, "6 features for 3 labels"),
    ({"labels": None}, "no labels for 6 rows"),
    (changed("labels", 3, 3), "labels must hold 0 to 2, but row 3 has 3"),
    (changed("labels", 0, -1), "labels must hold 0 to 2, but row 0 has -1"),
    ({"labels": np.zeros((6, 1), int)}, r"labels must have the shape \[rows\]"),
    ({"features": np.zeros((0, 3))}, r"features must have the shape \[rows, width\] .* not \[0, 3\]"),
    ({"prototypes": np.eye(3, 4)}, "one width; .*'features': 3, 'prototypes': 4"),
    ({"prototypes": np.eye(1, 3)}, "1 prototypes for 3 new classes"),
    ({"classifier_bias": np.zeros(3)}, "3 classifier_bias for 2 rows"),
    ({"classifier_weight": None}, "2 classifier_bias for 0 rows"),
    (changed("class_map", 0, 2), "class_map must hold -1 to 1, but row 0 has 2"),
    (changed("class_map", 1, -2), "class_map must hold -1 to 1, but row 1 has -2"),
    ({"num_classes": 2, "labels": LABELS % 2}, "3 class_map for 2 new classes"),
    ({"classifier_scale": 8.0}, "classifier_scale .* belongs to a cosine classifier"),
    ({"classifier_scale": 0, "classifier_bias": None}, "classifier_scale must be above 0"),
    ({"num_classes": 0}, "num_classes is 0; give a whole number of at least 1"),
    ({"labels": LABELS * 1.0}, "labels must be whole numbers, not float64"),
    ({"labels": LABELS > 0}, "labels must be whole numbers, not bool"),
    ({"features": X * 1j}, "features must be real numbers, not complex64"),
    ({"features": np.array([[object()]])}, "features must be real numbers, not object"),
    ({name: None for name in GOOD if name != "labels"}, "at least one of features"),
    ({name: None for name in GOOD if name != "classifier_weight"}, "how many new classes there are is not"),
    # large labels are refused before anything is allocated
    ({"labels": LABELS * 10**9, "class_map": None}, "labels go up to 2000000000, but only 3 are distinct"),
    ({"labels": LABELS * 10**9, "class_map": None, "num_classes": 5}, "labels must hold 0 to 4, but row 1"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_bad_arrays_are_refused(change, message):
    with pytest.raises((ValueError, TypeError), match=message):
        OldSystem.from_arrays(**(GOOD | change))


def test_labels_may_have_gaps():
    assert OldSystem.from_arrays(X, LABELS * 500).num_classes == 1001
    many = np.arange(20_000)
    assert OldSystem.from_arrays(np.ones((len(many), 1)), 5 * many).num_classes == 99_996


# -- what is there and what is derived ---------------------------------------------------------


def test_what_is_there_is_told_apart():
    model = torch.nn.Linear(2, 6)
    assert make_old().has == {"features", "prototypes", "classifier", "oracle"}
    assert make_old(classifier=False).has == {"features", "prototypes", "oracle"}
    assert OldSystem.from_arrays(prototypes=np.eye(3)).has == {"prototypes"}
    old = OldSystem.from_arrays(classifier_weight=np.eye(3), num_classes=2, model=model)
    assert old.has == {"classifier", "model"}


def test_what_is_derived_is_that_of_the_features():
    old = make_old(per_class=10)
    for average in ("raw", "unit"):
        means = class_means(old.features, old.labels, 5, unit=average == "unit")
        torch.testing.assert_close(old.prototypes(average), means)
    assert old.present.all()
    assert (int(old.credible(0.5).sum()), int(old.credible().sum())) == (25, 45)
    assert not torch.equal(old.credible(0.5, True), old.credible(0.5, False))


def test_classes_without_samples_have_a_zero_row_and_are_not_present():
    old = OldSystem.from_arrays(np.eye(2, 3) + 1, [1, 3], num_classes=5)
    assert old.present.tolist() == [False, True, False, True, False]
    assert old.prototypes().norm(dim=1).gt(0).tolist() == old.present.tolist()


def test_given_prototypes_are_used_as_they_are():
    given_rows = torch.tensor([[2.0, 0.0], [0.0, 0.0]])
    old = OldSystem.from_arrays([[1.0, 1.0]], [1], prototypes=given_rows)
    assert torch.equal(old.prototypes(), given_rows)
    assert old.present.tolist() == [True, False]
    root = math.sqrt(0.5)
    assert old.prototypes("unit")[1].tolist() == pytest.approx([root, root])


@pytest.mark.parametrize(
    ("derive", "message"),
    [
        (lambda old: old.prototypes("median"), "average is 'median'; choose one of raw, unit"),
        (lambda old: old.prototypes("unit"), "prototypes with average='unit' are computed from features"),
        (lambda old: old.credible(), "credible rows are computed from features"),
        (lambda old: old.credible(90), "share must be a number between 0 and 1, not 90"),
    ],
)
def test_refusals_of_what_is_derived(derive, message):
    with pytest.raises(ValueError, match=message):
        derive(OldSystem.from_arrays(prototypes=np.eye(3)))


def test_an_old_system_shows_itself_briefly():
    shown = "OldSystem(20 rows, width 6, 5 classes, has classifier, features, oracle, prototypes)"
    assert repr(make_old()) == shown


def test_oracle_features_stand_beside_the_old_ones_row_by_row():
    old = make_old()
    with pytest.raises(ValueError, match="there are 3 oracle features for 20 old ones"):
        old.with_oracle(torch.ones(3, 6))
    assert old.with_oracle(torch.ones(20, 9)).oracle_features.shape == (20, 9)


# -- files -------------------------------------------------------------------------------------


def assert_same(one, two):
    for field, a in vars(one).items():
        b = getattr(two, field)
        same = torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
        assert same or field == "oracle_features", field


@pytest.mark.parametrize(
    "old",
    [make_old(), make_old(scale=32.0), make_old(classifier=False, class_map=None)]
    + [OldSystem.from_arrays(prototypes=np.eye(3))]
    + [OldSystem.from_arrays(classifier_weight=np.eye(3), num_classes=7)],
)
def test_saved_and_loaded_is_the_same(old, tmp_path):
    make_old(seed=9, width=4).save(tmp_path / "a" / "old system")
    old.save(tmp_path / "a" / "old system")
    assert_same(OldSystem.load(tmp_path / "a" / "old system"), old)
    assert [path.name for path in (tmp_path / "a" / "old system").iterdir()] == [TENSORS]


def test_damaged_files_are_refused_with_the_file_and_the_remedy(tmp_path):
    path = tmp_path / TENSORS
    make_old().save(tmp_path)
    whole = path.read_bytes()
    older = whole.replace(b'\\"version\\": 3', b'\\"version\\": 2')
    assert older != whole
    # nothing, rubbish, a part, a last block of zeros, one bit, an older version
    for content in (b"", b"no tensors", whole[:-40], whole[:-200] + bytes(200), whole[:-1] + b"\1", older):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"old_system\.safetensors holds no whole .*save it again"):
            OldSystem.load(tmp_path)
    save_tensors({"features": torch.eye(2)}, path)  # no old system's
    with pytest.raises(ValueError, match="of another version"):
        OldSystem.load(tmp_path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=TENSORS):
        OldSystem.load(tmp_path)


# -- class means and credible rows ------------------------------------------------------------------


def draw(seed, rows=40, width=5, classes=6):
    generator = np.random.default_rng(seed)
    features = 3 * generator.normal(size=(rows, width)) + 0.5
    return torch.tensor(features, dtype=torch.float32), torch.tensor(generator.integers(0, classes, rows))


def slow_distances(features, labels, columns):
    unit = np.stack([row / np.linalg.norm(row) for row in features.double().numpy()])
    if columns:
        for j in range(unit.shape[1]):
            unit[:, j] = unit[:, j] / math.sqrt(sum(value**2 for value in unit[:, j]))
    distances, labels = np.empty(len(unit)), labels.tolist()
    for i, label in enumerate(labels):
        own = [unit[k] for k in range(len(unit)) if labels[k] == label]
        distances[i] = np.linalg.norm(unit[i] - sum(own) / len(own))
    return distances


@pytest.mark.parametrize("unit", [False, True])
@pytest.mark.parametrize("block", [7, 65_536])
def test_means_equal_the_slow_loop_in_any_block_size(unit, block, monkeypatch):
    monkeypatch.setattr(statistics, "ROWS_AT_ONCE", block)
    features, labels = draw(0)
    means = class_means(features, labels, 8, unit=unit)
    for label in range(8):
        own = features[labels == label].double().numpy()
        own = [row / np.linalg.norm(row) if unit else row for row in own]
        expected = sum(own) / len(own) if own else np.zeros(5)
        np.testing.assert_allclose(means[label].numpy(), expected, rtol=1e-6, atol=1e-7)


@settings(max_examples=30)
@given(
    seed=st.integers(0, 1000),
    percent=st.integers(0, 100),
    columns=st.booleans(),
    block=st.sampled_from([7, 65_536]),
)
def test_credible_rows_equal_the_slow_loop(seed, percent, columns, block):
    features, labels = draw(seed, rows=120)  # no class of two, whose distances are equal
    distances = slow_distances(features, labels, columns)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "ROWS_AT_ONCE", block)
        mask = credible_rows(features, labels, 6, percent / 100, columns).tolist()
    for label in range(6):
        own = sorted(np.flatnonzero(labels == label).tolist(), key=lambda i: distances[i])
        kept = own[: -(-percent * len(own) // 100)]  # the ceiling of the share
        assert {i for i in own if mask[i]} == set(kept)


def test_a_column_of_zeros_is_harmless():
    features, labels = draw(0)
    features[:, 2] = 0
    without = credible_rows(features[:, [0, 1, 3, 4]], labels, 6, 0.5)
    assert torch.equal(credible_rows(features, labels, 6, 0.5), without)


def test_of_equal_distances_the_earlier_row_is_kept():
    features = torch.tensor([[1.0, 1.0], [1.0, -1.0], [1.0, 1.0], [1.0, -1.0]])
    mask = credible_rows(features, torch.zeros(4).long(), 1, 0.5, columns=False)
    assert mask.tolist() == [True, True, False, False]


# -- features that stay on disk ----------------------------------------------------------------


@pytest.fixture(params=[np.float16, np.float32])
def mapped(request, tmp_path):
    """The same features on disk and in memory, with a class that has none."""
    features, labels = draw(3, rows=90)
    features = features.numpy().astype(request.param)
    np.save(tmp_path / "features.npy", features)
    how = {"num_classes": 8, "classifier_weight": np.eye(2, 5)}
    return [OldSystem.from_arrays(side, labels, **how) for side in (tmp_path / "features.npy", features)]


def test_mapped_features_give_what_those_in_memory_give(mapped, monkeypatch):
    old, memory = mapped
    whole = {name: getattr(memory, name)() for name in ("prototypes", "credible")}
    monkeypatch.setattr(statistics, "ROWS_AT_ONCE", 7)
    assert torch.equal(old.prototypes(), class_means(memory.features, memory.labels, 8))
    torch.testing.assert_close(old.prototypes(), whole["prototypes"])
    assert torch.equal(old.credible(), whole["credible"])
    assert torch.equal(old.present, memory.present) and old.has == memory.has and old.width == 5
    rows = torch.tensor([88, 0, 3, 3])
    assert torch.equal(rows_of(old.features, rows), memory.features[rows])


def test_mapped_features_are_saved_beside_the_rest_and_stay_mapped(mapped, tmp_path, monkeypatch):
    monkeypatch.setattr(statistics, "ROWS_AT_ONCE", 7)
    old, memory = mapped
    for place in (tmp_path / "elsewhere", tmp_path):  # copied, and where they are
        old.save(place)
        again = OldSystem.load(place)
        assert again.mapped == place / "features.npy" and again.features.dtype == old.features.dtype
        assert torch.equal(again.features, old.features) and torch.equal(again.labels, memory.labels)
        assert (place / TENSORS).stat().st_size < 2500
    monkeypatch.setattr(files, "FULL_CHECK_BYTES", 0)
    old.save(tmp_path / "large")
    assert torch.equal(OldSystem.load(tmp_path / "large").features, old.features)
    whole = (tmp_path / "large" / "features.npy").read_bytes()
    for content in (whole[:-8], None):
        (tmp_path / "large" / "features.npy").unlink()
        if content:
            (tmp_path / "large" / "features.npy").write_bytes(content)
        with pytest.raises(ValueError, match=r"no whole old system .features.npy is missing, damaged or"):
            OldSystem.load(tmp_path / "large")
    (tmp_path / "elsewhere" / "features.npy").write_bytes(whole[:-8] + bytes(8))
    with pytest.raises(ValueError, match="features.npy is missing, damaged or of another save"):
        OldSystem.load(tmp_path / "elsewhere")


@pytest.mark.parametrize(
    ("array", "sentence"),
    [
        (np.zeros((6, 3)), r"must hold float16 or float32 of the shape .* not torch.float64 of \[6, 3\]"),
        (np.zeros(6, np.float32), r"not torch.float32 of \[6\]"),
        (np.array([[1, 2], [1, np.inf]], np.float16), "not finite, first in row 1"),
        (b"no array", "is damaged, or no .npy file of numbers"),
    ],
)
def test_files_of_features_that_cannot_be_used_are_refused(tmp_path, array, sentence):
    if isinstance(array, bytes):
        (tmp_path / "f.npy").write_bytes(array)
    else:
        np.save(tmp_path / "f.npy", array)
    with pytest.raises(ValueError, match=sentence):
        OldSystem.from_arrays(tmp_path / "f.npy", [0, 1])


def test_outliers_are_features_of_other_classes_and_reach_all_that_is_derived():
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([0] * 50 + [2] * 10 + [3] * 140)[torch.randperm(200, generator=generator)]
    features = 4 * torch.eye(4)[labels] + 0.1 * torch.randn(200, 4, generator=generator)
    clean = OldSystem.from_arrays(features, labels)
    spoiled = clean.with_outliers(0.3, torch.Generator().manual_seed(1))
    assert torch.equal(clean.features, features) and torch.equal(spoiled.labels, labels)
    changed = (spoiled.features != features).any(dim=1)
    assert int(changed.sum()) == 60
    taken = collections.Counter()
    for row in changed.nonzero()[:, 0].tolist():
        (source,) = (features == spoiled.features[row]).all(dim=1).nonzero()[:, 0].tolist()
        assert labels[source] != labels[row]
        taken[int(labels[row]), int(labels[source])] += 1
    assert taken[3, 0] > taken[3, 2] > 0  # in proportion to their images: 50 and 10
    means = [spoiled.features[labels == k].double().mean(0) for k in (0, 2, 3)]
    assert torch.allclose(spoiled.prototypes()[[0, 2, 3]].double(), torch.stack(means), atol=1e-6)
    large = labels == 3
    assert spoiled.credible(0.5)[large & changed].sum() == 0  # the nearer half of a class has none
    again = clean.with_outliers(0.3, torch.Generator().manual_seed(1))
    assert torch.equal(again.features, spoiled.features)
    assert torch.equal(clean.with_outliers(0.0, generator).features, features)
    with pytest.raises(ValueError, match="outliers need features of two classes or more"):
        OldSystem.from_arrays(features, torch.zeros(200, dtype=torch.int64)).with_outliers(0.1, generator)


def test_outliers_of_mapped_features_leave_the_file(tmp_path):
    path = tmp_path / "features.npy"
    np.save(path, np.random.default_rng(0).normal(size=(12, 3)).astype(np.float16))
    clean = OldSystem.from_arrays(path, np.arange(12) % 3)
    spoiled = clean.with_outliers(0.5, torch.Generator().manual_seed(0))
    assert spoiled.mapped is None and spoiled.features.dtype == torch.float32
    assert int((spoiled.features != clean.features.float()).any(dim=1).sum()) == 6
    assert np.array_equal(np.load(path), clean.features.numpy())
