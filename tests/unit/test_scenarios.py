import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compat_lib.data.scenarios import SCENARIOS, named_classes, other_set, split


def slow_split(labels, scenario, share):
    """Old and new rows, from the definition, with plain lists (no shuffle)."""
    classes = sorted(set(labels))
    if scenario.endswith("class"):
        first = set(classes[: round(share * len(classes))])
        old = [i for i, y in enumerate(labels) if y in first]
        rest = [i for i, y in enumerate(labels) if y not in first]
    else:
        old, rest = [], []
        for y in classes:
            rows = [i for i, other in enumerate(labels) if other == y]
            taken = max(1, round(share * len(rows)))
            old += rows[:taken]
            rest += rows if len(rows) == 1 else rows[taken:]
    new = rest if scenario.startswith("open") else list(range(len(labels)))
    return sorted(old), sorted(new)


label_lists = st.lists(st.integers(-3, 9), min_size=2, max_size=60)
shares = st.floats(0.05, 0.95)


@given(label_lists, st.sampled_from(SCENARIOS), shares)
def test_rows_follow_the_definition(labels, scenario, share):
    old, new = slow_split(labels, scenario, share)
    if not old or not new:
        with pytest.raises(ValueError, match="share"):
            split(labels, scenario, share=share)
        return
    made = split(labels, scenario, share=share)
    assert made.old_rows.tolist() == old and made.new_rows.tolist() == new


@given(label_lists, st.sampled_from(SCENARIOS), shares, st.none() | st.integers(0, 5))
def test_labels_count_from_zero_and_the_map_keeps_identity(labels, scenario, share, shuffle_seed):
    try:
        made = split(labels, scenario, share=share, shuffle_seed=shuffle_seed)
    except ValueError:
        return
    original = torch.tensor(labels)
    for side in ("old", "new"):
        rows, dense, classes = (getattr(made, f"{side}_{part}") for part in ("rows", "labels", "classes"))
        assert dense.unique().tolist() == list(range(len(classes)))
        assert torch.equal(classes[dense], original[rows])
        assert torch.equal(rows, rows.sort().values) and len(rows.unique()) == len(rows)
    for new_label, old_label in enumerate(made.class_map.tolist()):
        original_label = made.new_classes[new_label]
        if old_label == -1:
            assert original_label not in made.old_classes
        else:
            assert made.old_classes[old_label] == original_label
    assert len(made.class_map) == len(made.new_classes)


@given(label_lists, st.sampled_from(SCENARIOS), shares, st.integers(0, 9))
def test_a_shuffle_keeps_the_sizes_and_repeats(labels, scenario, share, seed):
    try:
        plain = split(labels, scenario, share=share)
    except ValueError:
        return
    shuffled = split(labels, scenario, share=share, shuffle_seed=seed)
    again = split(labels, scenario, share=share, shuffle_seed=seed)
    assert torch.equal(shuffled.old_rows, again.old_rows)
    assert len(shuffled.old_classes) == len(plain.old_classes)
    if scenario.endswith("data"):
        assert len(shuffled.old_rows) == len(plain.old_rows)
    old, new = set(shuffled.old_rows.tolist()), set(shuffled.new_rows.tolist())
    assert old | new == set(range(len(labels)))
    if scenario.startswith("open"):  # a class's only image may stand on both sides
        lone = {i for i, y in enumerate(labels) if labels.count(y) == 1}
        assert old & new == (lone if scenario == "open-data" else set())


@pytest.mark.parametrize("unit", ["class", "data"])
def test_the_old_side_is_the_same_in_open_and_extended(unit):
    labels = torch.arange(50).repeat_interleave(6)
    opened = split(labels, f"open-{unit}", shuffle_seed=4)
    extended = split(labels, f"extended-{unit}", shuffle_seed=4)
    assert torch.equal(opened.old_rows, extended.old_rows)
    for other in (None, 5):  # and a shuffle changes who is old
        assert not torch.equal(split(labels, f"open-{unit}", shuffle_seed=other).old_rows, opened.old_rows)


@pytest.mark.parametrize(("images", "old"), [(1, 1), (2, 1), (5, 2), (6, 2), (7, 2), (15, 4), (20, 6)])
def test_data_split_rounds_half_to_even_and_takes_at_least_one(images, old):
    made = split([0] * images + [1] * 10, "extended-data", share=0.3)
    assert int((made.old_labels == 0).sum()) == old


@pytest.mark.parametrize(
    ("classes", "share", "old"), [(5, 0.5, 2), (11, 0.5, 6), (13, 0.5, 6), (15, 0.5, 8), (93431, 0.3, 28029)]
)
def test_class_split_rounds_half_to_even(classes, share, old):  # the last one: the published counts
    made = split(torch.arange(classes), "open-class", share=share)
    assert (len(made.old_classes), len(made.new_classes)) == (old, classes - old)


@pytest.mark.parametrize(
    ("labels", "scenario", "share", "sentence"),
    [
        ([0, 1], "open", 0.5, "extended-class, extended-data, open-class, open-data"),
        *(([0, 0, 1, 1], "open-data", bad, "share must be") for bad in (0, 1.01, float("nan"))),
        ([0, 1], "open-class", 0.1, "leaves the old or the new side of open-class empty"),
        ([0, 1], "open-class", 0.9, "empty"),
        ([0, 0, 1, 1], "open-data", 0.9, "empty"),
    ],
)
def test_what_cannot_be_split_is_said(labels, scenario, share, sentence):
    with pytest.raises(ValueError, match=sentence):
        split(labels, scenario, share=share)


@pytest.mark.parametrize("scenario", ["extended-class", "open-class"])
def test_an_old_side_given_by_hand(scenario):
    labels = torch.tensor([2, 0, 1, 3, 3, 1, 0, 2])
    made = split(labels, scenario, shuffle_seed=5, chosen=torch.tensor([1, 3]))
    assert made.old_rows.tolist() == [2, 3, 4, 5] and made.old_labels.tolist() == [0, 1, 1, 0]
    assert made.old_classes.tolist() == [1, 3]
    if scenario == "open-class":
        assert made.new_rows.tolist() == [0, 1, 6, 7] and made.class_map.tolist() == [-1, -1]
    else:
        assert made.new_rows.tolist() == list(range(8)) and made.class_map.tolist() == [-1, 0, -1, 1]


def test_an_old_side_by_a_list_or_by_number(tmp_path):
    names = ("0001", "0598", "0599", "0600", "1499")
    assert named_classes("<600", names).tolist() == [0, 1, 2]
    path = tmp_path / "old.txt"
    path.write_text("0600\n\n  0001 \n0600\n0777\n", encoding="utf-8")
    assert named_classes(str(path), names, also=("0777",)).tolist() == [0, 3]
    with pytest.raises(ValueError, match=r"old\.txt line 5 names the class '0777'.*named like '0001'"):
        named_classes(str(path), names)
    # Classes have composed letters; a list may have a Mac's, and Notepad's mark before the first name.
    path.write_text("Zoe\u0308\nant\n", encoding="utf-8-sig")
    assert named_classes(str(path), ("ant", "bee", "Zo\u00eb")).tolist() == [0, 2]
    path.write_text("ant\nZo\u00eb\n", encoding="latin-1")
    with pytest.raises(ValueError, match=r"old\.txt line 2 names the class 'Zo\ufffd'"):
        named_classes(str(path), ("ant", "bee", "Zo\u00eb"))
    with pytest.raises(FileNotFoundError, match="'none.txt' is no file"):
        named_classes("none.txt", names)
    with pytest.raises(ValueError, match="'<600' compares numbers, but the class 'ant' is none"):
        named_classes("<600", ("0001", "ant"))


@pytest.mark.parametrize("given", ["<0", "<2000"])
def test_a_list_that_leaves_a_side_empty_is_refused(given):
    labels = torch.tensor([0, 0, 1, 1])
    chosen = named_classes(given, ("0001", "0002"))
    with pytest.raises(ValueError, match="the list of . old classes of 2 classes leaves .* empty"):
        split(labels, "open-class", chosen=chosen)


def test_an_old_side_from_another_set_shares_nothing():
    labels = torch.tensor([1, 0, 1, 2])
    made = other_set(labels)
    assert made.new_rows.tolist() == [0, 1, 2, 3] and torch.equal(made.new_labels, labels)
    assert made.class_map.tolist() == [-1, -1, -1]
    assert len(made.old_rows) == len(made.old_labels) == len(made.old_classes) == 0
