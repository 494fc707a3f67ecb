import pickle

import numpy as np
import pytest
import torch
from image_folders import change_lines
from PIL import Image

from compat_lib.data.alignment import TEMPLATE
from compat_lib.data.decoding import UnreadableImages
from compat_lib.data.ijb import ijb

TEMPLATES = [(11, 1), (11, 2), (11, 2), (12, 3), (13, 1), (14, 5), (15, 6)]  # of each image: template, medium
HEAD = "TEMPLATE_ID,SUBJECT_ID,FILENAME,SIGHTING_ID,FACE_X\n"
SUBJECTS = {11: 500, 12: 600, 13: 500, 14: 600, 15: 700}


def write_ijb(path, part="ijbc", search=True, shift=20):
    """The kit's own layout; image k is grey 30 k with a white dot where its nose is."""
    (path / "meta").mkdir(parents=True)
    (path / "loose_crop").mkdir()
    points = TEMPLATE + shift
    coordinates = " ".join(f"{value:.4f}" for value in points.flatten())
    faces, scores = [], []
    for number, (template, medium) in enumerate(TEMPLATES, 1):
        pixels = np.full((160, 150, 3), 30 * number, np.uint8)
        x, y = points[2].round().astype(int)
        pixels[y - 3 : y + 4, x - 3 : x + 4] = 255
        Image.fromarray(pixels).save(path / "loose_crop" / f"{number}.jpg", quality=95)
        faces.append(f"{number}.jpg {template} {medium}\n")
        scores.append(f"{number}.jpg {coordinates} 0.{10 - number}\n")
    write = {"face_tid_mid.txt": "".join(faces), "name_5pts_score.txt": "".join(scores)}
    write["template_pair_label.txt"] = "11 13 1\n12 14 1\n11 12 0\n11 15 0\n"
    if search:
        one, two = ("G1", "G2") if part == "ijbc" else ("S1", "S2")
        write[f"1N_gallery_{one}.csv"] = f"{HEAD}11,500,img/1.jpg,7,\n11,500,frames/2.jpg,7,\n"
        write[f"1N_gallery_{two}.csv"] = f"{HEAD}12,600,img/4.jpg,8,3.5\n"
        write["1N_probe_mixed.csv"] = f"{HEAD}13,500,img/5.jpg,,\n14,600,img/6.jpg,,\n15,700,img/7.jpg,,\n"
    for name, text in write.items():
        (path / "meta" / f"{part}_{name}").write_text(text)
    return path


@pytest.fixture
def place(tmp_path):
    return write_ijb(tmp_path / "IJBC")


@pytest.mark.parametrize("part", ["ijbc", "ijbb"])
def test_images_extras_and_lists(tmp_path, part):
    images, lists = ijb(write_ijb(tmp_path / "there", part), part)
    assert images.images.shape == (7, 3, 112, 112)
    assert images.extras["template"].tolist() == [11, 11, 11, 12, 13, 14, 15]
    assert images.extras["media"].tolist() == [1, 2, 2, 3, 1, 5, 6]
    assert images.extras["detector"].dtype == torch.float32
    assert images.extras["detector"].tolist() == pytest.approx([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3])
    names = [f"subject {SUBJECTS[template]}" for template, _ in TEMPLATES]
    assert [images.classes[label] for label in images.labels.tolist()] == names
    assert lists["pairs"].tolist() == [[11, 13, 1], [12, 14, 1], [11, 12, 0], [11, 15, 0]]
    assert lists["gallery1"].tolist() == [[11, 500]] and lists["gallery2"].tolist() == [[12, 600]]
    assert lists["probes"].tolist() == [[13, 500], [14, 600], [15, 700]]


def test_the_nose_lies_on_the_template(place):
    pixels = pickle.loads(pickle.dumps(ijb(place)[0].images))[torch.tensor([3, 0])]
    assert pixels[:, 0, 5, 5].tolist() == [120, 30]  # in the order that was asked for
    for image in pixels.float():
        rows, columns = (image[0] > 200).nonzero(as_tuple=True)
        centre = torch.stack([columns.float().mean(), rows.float().mean()])
        assert (centre - torch.tensor(TEMPLATE[2])).abs().max() < 0.6


def test_without_the_lists_of_1_to_n_a_class_is_a_template(tmp_path):
    images, lists = ijb(write_ijb(tmp_path / "there", search=False))
    assert set(lists) == {"pairs"}
    assert images.classes == tuple(f"template {number}" for number in SUBJECTS)


def test_a_missing_set_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder .*IJBC: put meta/ijbc_face_tid_mid\.txt"):
        ijb(tmp_path / "IJBC")
    with pytest.raises(ValueError, match="the part of IJB is 'ijba'; choose one of ijbb, ijbc"):
        ijb(tmp_path, "ijba")


@pytest.mark.parametrize(
    ("name", "old", "new", "told"),
    [
        ("face_tid_mid.txt", "2.jpg 11 2\n", "2.jpg 11\n", r"line 2 of .*mid\.txt is '2\.jpg 11'"),
        ("face_tid_mid.txt", "7.jpg 15 6\n", "", r"mid\.txt and .*score\.txt do not have the same images"),
        ("face_tid_mid.txt", "2.jpg", "9.jpg", r"do not have the same images in one order"),
        ("name_5pts_score.txt", "0.8", "-0.8", r"line 2 of .*score\.txt has the score -0\.8"),
        ("template_pair_label.txt", "12 14 1", "12 1", r"line 2 of .*label\.txt is '12 1'"),
        (
            "1N_gallery_G1.csv",
            "11,500,f",
            "11,501,f",
            r"the lists 1N in .*meta give template 11 two subjects",
        ),
        ("1N_probe_mixed.csv", "13,500", "11,501", r"the lists 1N in .*meta give template 11 two subjects"),
    ],
)
def test_a_damaged_list_is_told_by_file_and_line(place, name, old, new, told):
    path = place / "meta" / f"ijbc_{name}"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(ValueError, match=told):
        ijb(place)


def test_absent_and_broken_images_and_points_without_extent_are_told(place):
    (place / "loose_crop" / "6.jpg").write_bytes(b"no picture")
    with pytest.raises(UnreadableImages, match=r"loose_crop/6\.jpg"):
        _ = ijb(place)[0].images[torch.tensor([5])]
    flat = "5.jpg" + " 3.0" * 10 + " 0.5"
    change_lines(place / "meta" / "ijbc_name_5pts_score.txt", lambda x: [*x[:4], flat, *x[5:]])
    with pytest.raises(ValueError, match=r"line 5 of .*score\.txt has five points of 5\.jpg"):
        ijb(place)
    (place / "loose_crop" / "4.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"lists name 4\.jpg, which is not in"):
        ijb(place)
