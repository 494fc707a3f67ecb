import pytest
import torch

from compat_lib.data import load
from compat_lib.data.drawing import PARAMETER_NAMES, draw_nuisances, render
from compat_lib.data.images import seeded_generator
from compat_lib.data.portraits import class_sizes, draw_identities, other_looks, portraits
from compat_lib.models import build_model

SMALL = {"identities": 6, "images": 5, "eval_identities": 3, "eval_images": 2}
PLAIN = {"pose": 0.0, "light": 0.0, "expression": 0.0, "occlusion": 0.0}


def neutral(count):
    """Nuisances of a frontal face in even light before a plain background."""
    drawn = draw_nuisances(count, seeded_generator("neutral"), **PLAIN)
    return {**drawn, "slope": torch.zeros(count, 2, 3), "background": torch.full((count, 3), 0.5)}


def test_sizes_labels_names_and_cache(tmp_path, monkeypatch):
    data = load("portraits", root=tmp_path, size=24, **SMALL)
    assert data.name == "portraits"
    assert data.train.images.shape == (30, 3, 24, 24) and data.train.images.dtype == torch.uint8
    assert data.val.images.shape == data.test.images.shape == (6, 3, 24, 24)
    assert torch.equal(data.train.labels, torch.arange(6).repeat_interleave(5))
    assert torch.equal(data.test.labels, torch.arange(3).repeat_interleave(2))
    names = [*data.train.classes, *data.val.classes, *data.test.classes]
    assert len(set(names)) == 12
    for part in (data.train, data.val, data.test):
        assert torch.equal(part.extras["true_label"], part.labels)
        assert not part.extras["outlier"].any()
    monkeypatch.setattr("compat_lib.data.portraits.render", None)  # any rendering would fail
    assert portraits(tmp_path, size=24, **SMALL).train.digest() == data.train.digest()


def test_the_bytes_do_not_depend_on_the_number_of_threads(tmp_path):
    threads = torch.get_num_threads()
    digests = set()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            digests.add(portraits(tmp_path / str(count), **{**SMALL, "identities": 60}).train.digest())
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    assert len(digests) == 1


def test_what_the_caller_is_in_changes_neither_pixels_nor_weights(tmp_path):
    """A float64 takes other bits of a generator: other faces, which the cache would keep."""

    def made(root):
        torch.manual_seed(0)
        weights = build_model("convnet-half", width=4).state_dict().values()
        return portraits(root, **SMALL).train.digest(), [one.tolist() for one in weights]

    expected = made(tmp_path / "one")
    torch.set_default_dtype(torch.float64)
    try:
        with torch.inference_mode():
            assert made(tmp_path / "other") == expected
    finally:
        torch.set_default_dtype(torch.float32)


def test_the_parts_do_not_depend_on_each_other(tmp_path):
    data = portraits(tmp_path, **SMALL)
    more = portraits(tmp_path, **{**SMALL, "identities": 9})
    assert more.test.digest() == data.test.digest() and more.val.digest() == data.val.digest()
    wider = portraits(tmp_path, **{**SMALL, "eval_identities": 4})
    assert wider.train.digest() == data.train.digest()
    assert not torch.equal(data.val.images, data.test.images)


def test_every_argument_that_changes_pixels_has_its_own_cache_and_bytes_repeat(tmp_path):
    changes = [{}, {"seed": 1}, {"size": 16}, {"images": 4}, {"occlusion": 0.9}, {"outliers": 0.3}]
    changes += [{name: 0.1} for name in ("pose", "light", "expression", "noise")]
    changes += [{"looks": 2}, {"imbalance": 2.5}]
    digests = [portraits(tmp_path / "a", **{**SMALL, **change}).train.digest() for change in changes]
    assert len(set(digests)) == len(changes)
    torch.manual_seed(1)  # the global generator has no part in it
    assert portraits(tmp_path / "b", **SMALL).train.digest() == digests[0]


def test_outliers_are_known_and_leave_the_rest_alone(tmp_path):
    counts = {**SMALL, "identities": 20}
    clean = portraits(tmp_path, **counts)
    dirty = portraits(tmp_path, **counts, outliers=0.31)
    kind = dirty.train.extras["outlier"]
    assert [int((kind == k).sum()) for k in (0, 1, 2)] == [69, 15, 16]
    assert torch.equal(dirty.train.extras["true_label"], clean.train.labels)
    moved = dirty.train.labels != clean.train.labels
    assert torch.equal(moved, kind == 1)  # a wrong label is always wrong
    changed = (dirty.train.images != clean.train.images).flatten(1).any(dim=1)
    assert torch.equal(changed, kind == 2)
    assert dirty.test.digest() == clean.test.digest() and dirty.val.digest() == clean.val.digest()


def test_an_occluded_outlier_hides_the_middle_of_the_face(tmp_path):
    counts = {**SMALL, "outliers": 0.5, "noise": 0.0, "light": 0.0}
    train = portraits(tmp_path, **counts).train
    covered = train.images[train.extras["outlier"] == 2].float()
    assert len(covered) == 8
    middle = covered[:, :, 12:20, 12:20].flatten(2)
    assert (middle.amax(2) - middle.amin(2)).max() <= 1  # one even colour


def test_yaw_turns_the_face_and_mirrors_exactly():
    both = {**neutral(2), "yaw": torch.tensor([0.4, -0.4])}
    left, right = render(torch.zeros(2, 36), both, 32).int()
    front = render(torch.zeros(1, 36), neutral(1), 32)[0].int()
    assert (left - right.flip(2)).abs().max() <= 1
    assert (left - front).abs().max() > 50


@pytest.mark.parametrize("name", PARAMETER_NAMES)
def test_every_parameter_can_be_seen(name):
    column = PARAMETER_NAMES.index(name)
    pair = torch.zeros(2, 36)
    pair[:, PARAMETER_NAMES.index("glasses")] = -2  # glasses would hide the eyes
    pair[0, column], pair[1, column] = -2, 2
    low, high = render(pair, neutral(2), 32).int()
    assert (low - high).abs().max() > 15


def test_noise_has_the_stated_strength():
    covered = {"covered": torch.ones(20, dtype=torch.bool), "box_colour": torch.full((20, 3), 0.5)}
    grey = {**neutral(20), "box": torch.tensor([[0.0, 0, 3, 3]]).expand(20, -1), **covered}
    pixels = render(torch.zeros(20, 36), grey, 32, noise=0.04, generator=torch.Generator().manual_seed(0))
    assert pixels.float().std().item() / 255 == pytest.approx(0.04, rel=0.02)


def test_identity_can_be_read_from_the_pixels_and_nuisances_make_it_harder(tmp_path):
    def nearest_is_same(**knobs):
        train = portraits(tmp_path, identities=40, images=5, eval_identities=2, eval_images=2, **knobs).train
        middle = train.images[:, :, 6:26, 8:24].float().flatten(1)
        distances = torch.cdist(middle, middle).fill_diagonal_(torch.inf)
        return (train.labels[distances.argmin(1)] == train.labels).float().mean().item()

    easy = nearest_is_same(**PLAIN, noise=0.0)
    usual = nearest_is_same()
    assert easy > 0.95  # frontal faces in even light: only the background differs
    assert 1 / 40 < usual < easy


def test_two_looks_make_two_kinds_of_images_and_leave_the_rest_alone(tmp_path):
    counts = {"identities": 4, "images": 20, "eval_identities": 2, "eval_images": 4, "noise": 0.0}
    plain, both = portraits(tmp_path, **PLAIN, **counts), portraits(tmp_path, **PLAIN, **counts, looks=2)
    assert torch.equal(both.train.labels, plain.train.labels)
    changed = (both.train.images != plain.train.images).flatten(1).any(dim=1)
    for identity in range(4):
        assert 4 <= int(changed[both.train.labels == identity].sum()) <= 16  # of 20 fair coins
    assert (both.test.images != plain.test.images).any() and (both.val.images != plain.val.images).any()


def test_the_other_look_has_other_hair_and_glasses_on_or_off():
    first = draw_identities(500, torch.Generator().manual_seed(0))
    second = other_looks(first, torch.Generator().manual_seed(1))
    differ = [name for k, name in enumerate(PARAMETER_NAMES) if (first[:, k] != second[:, k]).any()]
    hair = {name for name in PARAMETER_NAMES if name.startswith(("hair", "fringe"))}
    assert set(differ) == hair | {"beard", "glasses"}
    worn = [each[:, PARAMETER_NAMES.index("glasses")] > 0.8 for each in (first, second)]
    assert torch.equal(worn[0], ~worn[1])


def test_class_sizes_fall_as_a_geometric_series(tmp_path):
    assert class_sizes(101, 1000, 100).tolist() == [round(1000 * 100 ** (-k / 100)) for k in range(101)]
    data = portraits(tmp_path, **{**SMALL, "images": 9}, imbalance=9, outliers=0.2)
    assert data.train.extras["true_label"].bincount().tolist() == class_sizes(6, 9, 9).tolist()
    assert data.test.labels.bincount().unique().tolist() == [2]


def test_the_shifted_part_shows_the_people_of_the_test_in_stronger_poses(tmp_path):
    counts = {**SMALL, "eval_identities": 40, "eval_images": 5, "occlusion": 0.0, "noise": 0.0}
    plain, data = portraits(tmp_path, **counts), portraits(tmp_path, **counts, test_pose=1.5, test_light=1)
    for part in ("train", "val", "test"):
        assert getattr(data, part).digest() == getattr(plain, part).digest()
    assert list(plain.tests) == [None] and list(data.tests) == [None, "shifted"]
    shifted = data.tests["shifted"]
    assert shifted.classes == data.test.classes and torch.equal(shifted.labels, data.test.labels)

    def spread(images):  # of the images of one person
        faces = images.images[:, :, 8:24, 8:24].float().reshape(40, 5, -1)
        return (faces - faces.mean(1, keepdim=True)).square().mean()

    assert spread(shifted) > 1.2 * spread(data.test)
    same = portraits(tmp_path, **counts, test_pose=0.7).tests["shifted"]  # 0.7 is the default
    assert not torch.equal(same.images, data.test.images)  # other images
    assert float(spread(same)) == pytest.approx(float(spread(data.test)), rel=0.1)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"size": 4}, "size is 4; give a whole number of at least 8"),
        ({"size": (48, 32)}, "drawn as squares, not 48 x 32: leave image_height out"),
        ({"images": 2.5}, "images is 2.5; give a whole number of at least 1"),
        ({"seed": -1}, "seed is -1; give a whole number of at least 0"),
        ({"pose": 1.5}, "pose must be a number between 0 and 1, not 1.5"),
        ({"noise": "0.1"}, "noise must be a number"),
        ({"outliers": 0.6}, "outliers must be a number between 0 and 0.5"),
        ({"looks": 3}, "looks is 3; choose one of 1, 2"),
        ({"imbalance": 6}, "imbalance must be a number between 1 and 5, not 6"),
        ({"test_pose": 1.6}, "test_pose must be a number between 0 and 1.5, not 1.6"),
        ({"test_light": "1"}, "test_light must be a number between 0 and 1.5"),
    ],
)
def test_arguments_out_of_range_are_named(tmp_path, change, sentence):
    with pytest.raises(ValueError, match=sentence):
        portraits(tmp_path, **{**SMALL, **change})
    assert not any(tmp_path.iterdir())
