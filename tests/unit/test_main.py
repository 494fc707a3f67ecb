"""The command line: exit codes, refusals and files."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from image_folders import paint
from PIL import Image

import compat_lib.__main__ as command
from compat_lib.adapters import load_adapter
from compat_lib.config import ExperimentConfig
from compat_lib.deploy.check import check_compatibility
from compat_lib.evaluation.records import Records
from compat_lib.experiment_data import ExperimentData
from compat_lib.runs import write_json

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files of an old model, a better one of the same space, one of another space, and broken ones."""
    place = tmp_path_factory.mktemp("features")
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(30), 5)
    centres = rng.normal(size=(30, 12))
    photos = centres[labels] + 0.4 * rng.normal(size=(150, 12))
    old, new = ((photos + noise * rng.normal(size=(150, 12))).astype(np.float32) for noise in (0.8, 0.3))
    np.savez(place / "old.npz", features=old, labels=labels)
    np.savez(place / "new.npz", features=new, labels=labels)
    np.savez(place / "apart.npz", features=new @ np.linalg.qr(rng.normal(size=(12, 12)))[0], labels=labels)
    # Only queries of one identity get better: in a draw without it nothing is gained.
    np.savez(place / "near.npz", features=np.where(labels[:, None] == 0, centres[0], old), labels=labels)
    np.savez(place / "wide.npz", features=np.c_[new, new], labels=labels)
    order = rng.permutation(150)
    np.savez(place / "named.npz", features=old, labels=labels, ids=np.arange(150))
    frame = pd.DataFrame(new[order], columns=[f"f{n}" for n in range(12)])
    frame.assign(id=order, label=labels[order]).to_parquet(place / "shuffled.parquet")
    (place / "text.npz").write_text("features")
    return place


@pytest.fixture
def check(folder, monkeypatch, capsys):
    """A function that runs the command in the folder and returns exit code, output and errors."""
    monkeypatch.chdir(folder)

    def run(*arguments):
        try:
            code = command.main(["check", *map(str, arguments)])
        except SystemExit as left:
            code = left.code
        return code, *capsys.readouterr()

    return run


def test_compatible_is_0_and_anything_else_1(check, folder):
    code, out, errors = check("old.npz", "new.npz", "--draws", 60)
    assert code == 0 and errors == ""
    data = [np.load(folder / name) for name in ("old.npz", "new.npz")]
    expected = check_compatibility(*(one["features"] for one in data), data[0]["labels"], draws=60)
    assert out == expected.summary() + "\n"
    for name, verdict in (("apart", "Not compatible: "), ("wide", "Not compatible: ")):
        code, out, errors = check("old.npz", f"{name}.npz", "--draws", 60, "--ignore-noise")
        assert code == 1 and out.startswith(verdict) and errors == ""


def test_undecided_is_1_unless_noise_is_ignored(check):
    options = ["--draws", 60, "--metric", "map", "--no-adapter"]
    code, out, _ = check("old.npz", "near.npz", *options)
    assert code == 1 and out.startswith("Undecided: ") and "Procrustes" not in out
    assert check("old.npz", "near.npz", *options, "--ignore-noise")[0] == 0


def test_ids_join_rows_of_files_of_different_kinds(check):
    _, plain, _ = check("old.npz", "new.npz", "--draws", 60)
    code, joined, _ = check("named.npz", "shuffled.parquet", "--draws", 60)
    assert code == 0 and joined.split("Measured")[0] == plain.split("Measured")[0]


def test_labels_and_ids_beside_the_files_a_group_a_threshold_and_a_map(check, folder, tmp_path):
    data = {name: np.load(folder / f"{name}.npz") for name in ("old", "apart")}
    for name, one in data.items():
        np.save(tmp_path / f"{name}.npy", one["features"])
    np.savetxt(tmp_path / "labels.txt", data["old"]["labels"], fmt="person %02d")
    np.savetxt(tmp_path / "ids.txt", np.arange(150), fmt="%d.png")
    beside = ["--labels", "labels.txt", "--ids", "ids.txt", "--new-ids", "ids.txt"]
    beside = [one if one.startswith("--") else tmp_path / one for one in beside]
    files = [tmp_path / "old.npy", tmp_path / "apart.npy"]
    outputs = ["--save-adapter", tmp_path / "map.safetensors"]
    code, out, errors = check(*files, *beside, "--draws", 60, "--threshold", 0.5, *outputs)
    assert code == 1 and errors == "" and "Your old threshold 0.500 accepts" in out and "Next: If" in out
    sides = (one["features"] for one in data.values())
    expected = check_compatibility(*sides, data["old"]["labels"], draws=60)
    found = load_adapter(tmp_path / "map.safetensors")
    assert found.side == expected.adapter.side
    torch.testing.assert_close(found.matrix, expected.adapter.matrix)
    code, out, _ = check(*files, "--draws", 60)
    assert code == 1 and out.startswith("Undecided without labels: ")
    # Columns of other names, and groups in one of the files.
    frame = pd.DataFrame(data["old"]["features"], columns=[f"v{n}" for n in range(12)])
    frame.assign(who=data["old"]["labels"], site=np.arange(150) % 2).to_csv(tmp_path / "old.csv", index=False)
    options = ["--column", "features=v", "--column", "labels=who", "--group", "site", "--draws", 60]
    frame.to_csv(tmp_path / "new.csv", index=False)  # labels, too, stand in either file
    code, out, errors = check(tmp_path / "old.csv", tmp_path / "new.csv", *options, "--no-adapter")
    assert (code, errors) == (1, "") and "both sides hold the same features" in " ".join(out.split())
    assert "difference" in out
    options[3] = "labels=whom"
    code, _, errors = check(tmp_path / "old.csv", tmp_path / "new.csv", *options, "--no-adapter")
    assert code == 2 and "neither file has a column of labels 'whom'" in errors
    pairs = [f"{q}.png 0 {d}.png 1" for q in range(0, 150, 5) for d in range(q + 1, q + 5)]
    (tmp_path / "qrels").write_text("\n".join(pairs))
    ids = beside[2:]
    code, out, errors = check(*files, *ids, "--relevance", tmp_path / "qrels", "--draws", 60, "--no-adapter")
    assert (code, errors) == (1, "") and out.startswith("Not compatible: ") and "30 of them as queries" in out


def test_page_and_json_hold_everything(check, tmp_path):
    outputs = ["--json", tmp_path / "all.json", "--report", tmp_path / "page.html"]
    code, _, _ = check("old.npz", "new.npz", "--draws", 60, "--queries", 50, "--seed", 3, *outputs)
    record = json.loads((tmp_path / "all.json").read_text(encoding="utf-8"))
    assert record["verdict"] == "compatible" and record["exit_code"] == code == 0
    assert record["basis"]["queries"] == 50 and record["basis"]["seed"] == 3
    records = Records.from_plain(record["records"])
    assert records.value("new", "old", "map") > records.value("old", "old", "map")
    assert [one["name"] for one in record["files"]] == ["old.npz", "new.npz"]
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert record["files"][1]["sha256"] in html and str(tmp_path) not in html
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all.json", "page.html"]


@pytest.mark.parametrize(
    "arguments, part",
    [
        (["none.npz", "new.npz"], "none.npz"),
        (["old.npz", "text.npz"], "text.npz"),
        (["named.npz", "new.npz"], "only the old side has ids"),
        (["old.npz", "new.npz", "--frobnicate"], "unrecognized arguments: --frobnicate"),
        (["old.npz", "new.npz", "--report", "./old.npz"], "is an input, or written twice, and would be over"),
        (["old.npz", "new.npz", "--labels", "a.txt", "--json", "a.txt"], "a.txt is an input"),
        (["old.npz", "new.npz", "--report", "page", "--json", "page"], "page is an input, or written twice"),
        (["old.npz", "new.npz", "--save-adapter", "map", "--no-adapter"], "give one of them"),
        (["old.npz", "new.npz", "--group", "camera"], "neither file has a column 'camera'"),
        (["old.npz", "new.npz", "--relevance", "qrels"], "no file qrels"),
        (["old.npz", "new.npz", "--relevance", "qrels", "--labels", "who.txt"], "take the place of labels"),
        (["old.npz", "new.npz", "--column", "features"], "ROLE=NAME"),
        (["old.npz", "new.npz", "--column", "ids=a", "--column", "ids=b"], "ids is given twice, last as"),
        (["old.npz", "new.npz", "--json", "."], "or a folder; give another"),
        (["old.npz"], "NEW"),
    ],
)
def test_what_gives_no_answer_is_2_with_its_reason(check, arguments, part):
    code, out, errors = check(*arguments)
    assert (code, out) == (2, "") and part in errors and "Traceback" not in errors


@pytest.mark.parametrize(
    "error, code, part",
    [(KeyboardInterrupt(), 130, "stopped"), (ZeroDivisionError("ours"), 2, "says nothing about the models")],
)
def test_a_fault_is_never_taken_for_an_answer(check, monkeypatch, error, code, part):
    def broken(*_, **__):
        raise error

    monkeypatch.setattr("compat_lib.deploy.check.check_files", broken)
    found, out, errors = check("old.npz", "new.npz")
    assert found == code and out == "" and part in errors


def test_a_reader_who_leaves_does_not_change_the_answer(folder, tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    arguments = ["check", "old.npz", "apart.npz", "--draws", "0", "--json", str(tmp_path / "all.json")]
    command = [sys.executable, "-m", "compat_lib", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, cwd=folder, env=environment, stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (1, b"")
    assert json.loads((tmp_path / "all.json").read_text())["exit_code"] == 1


def test_help_does_not_wait_for_torch():
    code = (
        "import runpy, sys; sys.modules.update(dict.fromkeys(('torch', 'numpy')));"
        "sys.argv = ['compat_lib', 'check', '--help']; runpy.run_module('compat_lib', run_name='__main__')"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    helped = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert helped.returncode == 0 and "--report PAGE" in helped.stdout and "exit code:" in helped.stdout


def test_run_trains_what_is_asked_for_and_names_what_is_not(tmp_path, capsys):
    preset = tmp_path / "tiny.yml"
    preset.write_text(
        f"defaults: {{dataset_options: {FEW},\n"
        "  old_epochs: 1, epochs: 1, batch_size: 8, image_size: 16, bootstrap_draws: 2}\n"
        "methods: [{method: l2}, {method: mixbct}]\n"
    )
    changes = ["--set", f"runs_root={tmp_path / 'runs'}", "--set", "lr=0.01"]
    assert command.main(["run", str(preset), "--only", "method=mixbct", *changes]) == 0
    (done,) = (tmp_path / "runs").glob("*/mixbct-*/metrics.json")
    assert str(done.parent) in capsys.readouterr().out
    assert json.loads((done.parent / "config.json").read_text())["lr"] == 0.01
    assert not list((tmp_path / "runs").glob("*/l2-*"))
    for wrong, words in (
        (["--only", "method=bct"], "it has method l2, mixbct"),
        (["--only", "methode=l2"], "no such field"),
        (["--set", "lr"], "FIELD=VALUE"),
        (["--only", "method=l2", "--only", "method=mixbct"], "method is given twice"),
        (["--set", "lr=0"], "above 0"),
    ):
        assert command.main(["run", str(preset), *wrong]) == 2
        assert words in capsys.readouterr().err


FEW = "{identities: 12, images: 4, eval_identities: 4, eval_images: 2}"


@pytest.mark.parametrize(
    ("second", "words"),
    [
        ("method: mixbtc", "wrong.yml, .*/mixbtc-s0-.*the method is 'mixbtc'.*(nearest: mixbct)"),
        (f"old_share: 0.1, dataset_options: {FEW}", "the old model would train on one class"),
        ("device: meta", "device is 'meta', which is not there"),
        (f"task_loss: triplet, per_identity: 4, batch_size: 64, dataset_options: {FEW}", "need 16 ident"),
        ("dataset_options: {identites: 9}", "takes the options identities,.*(nearest: identities)"),
        ("dataset: market1501", "no/Market-1501-v15.09.15 has no folder.*; docs/data_sets.md says where"),
    ],
)
def test_run_refuses_a_wrong_run_before_the_first_is_trained(tmp_path, capsys, second, words):
    preset = tmp_path / "wrong.yml"
    preset.write_text(
        f"defaults: {{runs_root: {tmp_path / 'runs'}, data_root: {tmp_path / 'no'}}}\n"
        f"methods: [{{method: l2, dataset_options: {FEW}}}, {{{second}}}]\n"
    )
    assert command.main(["run", str(preset)]) == 2
    assert re.search(words.replace("(", r"\(").replace(")", r"\)"), capsys.readouterr().err, re.DOTALL)
    assert not list(tmp_path.glob("runs/*/*"))


def test_finished_runs_of_other_images_are_refused_and_not_shown(tmp_path):
    """Where all runs are done nobody reads the images any more: the pages had the former numbers."""
    for part, names, images in (("train", "abcdefghij", 4), ("test", "xyz", 3)):
        paint(tmp_path / "photos" / part, dict.fromkeys(names, images), noise=np.random.default_rng(images))
    config = ExperimentConfig(
        dataset="folder",
        dataset_options={"path": str(tmp_path / "photos")},
        image_size=16,
        data_root=str(tmp_path),
        runs_root=str(tmp_path / "runs"),
        method="l2",
        device="cuda:99",  # of the machine that it was made on
    )
    made_of = ExperimentData(config).made_of
    for folder in (config.old_folder, config.run_folder):
        write_json(folder / "config.json", {"made_of": made_of})
        write_json(folder / "metrics.json", [])
    command.refuse(Path("mine.yml"), [config], own_data=True)
    Image.new("L", (16, 16), 99).save(tmp_path / "photos/test/x/000.png")
    words = f"mine.yml, .*{config.run_id}: .*was made with other test images than now in .*photos: put them"
    with pytest.raises(ValueError, match=words):
        command.refuse(Path("mine.yml"), [config], own_data=True)
    write_json(config.old_folder / "config.json", {"made_of": ExperimentData(config).made_of})  # trained anew
    with pytest.raises(ValueError, match=f"runs/{config.experiment_id}/{config.run_id} was made with other"):
        command.refuse(Path("mine.yml"), [config], own_data=True)
