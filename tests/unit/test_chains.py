"""Chains of generations: which runs make one, and their numbers against scikit-learn's."""

from types import SimpleNamespace

import keep_runs
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import average_precision_score

from companion import chains, reading
from compat_lib.config import ExperimentConfig
from compat_lib.evaluation.chain import matrix
from compat_lib.evaluation.paired import paired_comparison
from compat_lib.experiment import Experiment
from compat_lib.files import load_tensors, save_tensors
from compat_lib.runs import described, list_runs, write_json

OPTIONS = {"identities": 4, "images": 2, "eval_identities": 6, "eval_images": 4}
LABELS = torch.arange(6).repeat_interleave(4)
MADE = SimpleNamespace(data=SimpleNamespace(test=SimpleNamespace(labels=LABELS)))
FIRST = ExperimentConfig(dataset_options=OPTIONS, image_size=16, method="bct")
SECOND = FIRST.next_generation(new_backbone="convnet", method="dual_tuning", epochs=30)


def features():
    """Three generations in one space, each with less noise than the one before."""
    generator = np.random.default_rng(3)
    centres = generator.normal(size=(6, 5))[LABELS.numpy()]
    noises = (1.2, 0.9, 0.5)
    return [torch.tensor(centres + noise * generator.normal(size=(24, 5))).float() for noise in noises]


def write(root, config, tensors, *, old=False, digest="0"):
    folder = root / config.experiment_id / (config.old_folder.name if old else config.run_id)
    made_of = {"made_of": {"test images": digest}}
    write_json(folder / "config.json", described(config, folder) | made_of)
    save_tensors({name: value.clone() for name, value in tensors.items()}, folder / "features.safetensors")
    write_json(folder / "metrics.json", [{"metric": "map", "value": 0.5, "query": "new", "gallery": "new"}])
    return folder


def three_generations(root, digest="0"):
    first, second, third = features()
    write(root, FIRST, {"test": first}, old=True)
    write(root, FIRST, {"test": second, "query": second, "gallery": first})
    write(root, SECOND, {"test": second}, old=True)
    return write(root, SECOND, {"test": third, "query": third, "gallery": second}, digest=digest)


def precision(query, gallery):
    """Mean average precision with every image as a query, itself left out of the gallery."""
    query, gallery = (torch.nn.functional.normalize(side.double(), dim=1) for side in (query, gallery))
    found = []
    for i, scores in enumerate(query @ gallery.T):
        others = torch.arange(len(LABELS)) != i
        found.append(average_precision_score((LABELS[i] == LABELS)[others], scores[others]))
    return np.mean(found)


def test_a_chain_is_found_whole_and_once(tmp_path):
    last = three_generations(tmp_path)
    (chain,) = chains.find_chains(tmp_path)
    assert [run.folder.name for run in chain.runs] == [FIRST.old_folder.name, FIRST.run_id, last.name]
    networks = ("convnet", "resnet-small by BCT", "convnet by Dual-Tuning (reconstruction)")
    assert chain.models == tuple(f"{n} ({e} epochs)" for n, e in zip(networks, (20, 20, 30), strict=True))
    assert chain.title == "Portraits, open-class: " + ", then ".join(chain.models)
    fourth = SECOND.next_generation()
    write(tmp_path, fourth, load_tensors(last / "features.safetensors")[0])
    (longer,) = chains.find_chains(tmp_path)
    assert longer.runs[:3] == chain.runs and longer.runs[3].folder.name == fourth.run_id


def test_a_chain_of_another_experiment_is_left_out(tmp_path):
    three_generations(tmp_path)
    assert chains.find_chains(tmp_path, ["another"]) == []
    assert chains.find_chains(tmp_path, [FIRST.experiment_id]) == []
    assert len(chains.find_chains(tmp_path, [SECOND.experiment_id])) == 1
    assert chains.find_chains(tmp_path / "absent") == []


@pytest.mark.parametrize("file", ["metrics.json", "features.safetensors"])
def test_a_chain_without_its_middle_is_none(tmp_path, file):
    three_generations(tmp_path)
    (tmp_path / FIRST.experiment_id / FIRST.run_id / file).unlink()
    assert chains.find_chains(tmp_path) == []


def test_a_chain_that_ends_without_compatible_training_comes_last(tmp_path):
    third = features()[2]
    three_generations(tmp_path)
    for method in ("independent", "advbct", "nccl"):
        write(tmp_path, SECOND.changed(method=method), {"test": third})
    found = [chain.runs[-1].config["method"] for chain in chains.find_chains(tmp_path)]
    assert found == ["advbct", "dual_tuning", "nccl", "independent"]
    assert chains.find_chains(tmp_path)[-1].models[-1] == "convnet without a method (30 epochs)"


def test_composed_maps_carry_a_query_back_to_any_gallery(tmp_path):
    turns = [np.linalg.qr(np.random.default_rng(g).normal(size=(5, 5)))[0] for g in range(3)]
    pairs = zip(features(), turns, strict=True)
    test = [(side.double() @ torch.from_numpy(turn)).float() for side, turn in pairs]
    val = [side[::2] + 0.1 for side in test]
    write(tmp_path, FIRST, {"test": test[0], "val": val[0]}, old=True)
    write(tmp_path, FIRST, {"test": test[1], "val": val[1]})
    write(tmp_path, SECOND, {"test": test[1], "val": val[1]}, old=True)
    write(tmp_path, SECOND.changed(method="independent"), {"test": test[2], "val": val[2]})
    (chain,) = chains.find_chains(tmp_path)
    values = matrix(chain.measure(LABELS, draws=0, composed=True))
    rows = [torch.nn.functional.normalize(side.double(), dim=1).numpy() for side in val]
    steps = []  # of generation g + 1 to generation g
    for older, newer in ((0, 1), (1, 2)):
        left, _, right = np.linalg.svd(rows[newer].T @ rows[older])
        steps.append(torch.tensor(left @ right))
    for (i, j), path in {(1, 0): steps[:1], (2, 1): steps[1:], (2, 0): [steps[1], steps[0]]}.items():
        query = test[i].double()
        for step in path:
            query = query @ step
        assert values[i, j] == pytest.approx(precision(query, test[j]), abs=1e-6)
    for i in range(3):
        assert values[i, i] == pytest.approx(precision(test[i], test[i]), abs=1e-6)


def test_learned_maps_carry_a_query_on_where_bc_aligner_trained_it(tmp_path):
    """Generations two and three have maps; a plain method between two of them changes no query."""
    turns = [torch.randn(5, 5, generator=torch.Generator().manual_seed(g)).double() for g in range(3)]
    test = features()
    query = [None] + [(test[g].double() @ turns[g].T).float() for g in (1, 2)]
    for methods in (("bc_emb", "bc_emb"), ("bct", "bc_emb"), ("bc_emb", "bct")):
        root, second = tmp_path / "-".join(methods), FIRST.changed(method=methods[0])
        third = second.next_generation(method=methods[1])
        write(root, second, {"test": test[0]}, old=True)
        write(root, third, {"test": test[1]}, old=True)
        for g, config in ((1, second), (2, third)):
            learned = config.method == "bc_emb"
            forms = {"query": query[g] if learned else test[g], "gallery": test[g - 1]}
            folder = write(root, config, {"test": test[g]} | forms)
            weights = {"method.map": 2 * turns[g].float(), "method.factor": torch.tensor(0.5)}
            weights = weights if learned else {}
            save_tensors(weights | {"model.first": torch.ones(1)}, folder / "model.safetensors")
        (chain,) = chains.find_chains(root)
        values = matrix(chain.measure(LABELS, draws=0))
        one = torch.eye(5).double()
        steps = [turns[g] if method == "bc_emb" else one for g, method in enumerate(methods, 1)]
        carried = {(1, 0): test[1].double() @ steps[0].T, (2, 1): test[2].double() @ steps[1].T}
        carried[2, 0] = carried[2, 1] @ steps[0].T
        for (i, j), asked in carried.items():
            assert values[i, j] == pytest.approx(precision(asked, test[j]), abs=1e-6), (methods, i, j)
        for i in range(3):
            assert values[i, i] == pytest.approx(precision(test[i], test[i]), abs=1e-6)


def test_numbers_are_those_of_scikit_learn(tmp_path):
    three_generations(tmp_path)
    (chain,) = chains.find_chains(tmp_path)
    measured = chain.measure(LABELS, draws=30)
    values, tables, names = matrix(measured), features(), [f"generation {g}" for g in (1, 2, 3)]
    text = chains.chain_table(measured, chain.models)
    assert list(text) == ["gen.", "model", "self-test", "gallery of 1", "gallery of 2"]
    assert text["gen."].tolist() == ["1", "2", "3"] and text["model"].tolist() == list(chain.models)
    held = np.mean([values[i, j] > values[j, j] for i in range(3) for j in range(i)])
    mean = np.mean(values[np.tril_indices(3)])
    assert chains.averages(measured) == f"AC {100 * held:.0f}, AA {100 * mean:.1f}"
    for i in range(3):
        assert values[i, i] == pytest.approx(precision(tables[i], tables[i]), abs=1e-6)
        assert text["self-test"][i].startswith(f"{100 * values[i, i]:.1f} [")
        for j in range(2):
            cell = text[f"gallery of {j + 1}"][i]
            if j >= i:
                assert cell == ""
                continue
            assert values[i, j] == pytest.approx(precision(tables[i], tables[j]), abs=1e-6)
            cross, bar = (measured.get(names[one], names[j], "map") for one in (i, j))
            margin = paired_comparison(cross.value, bar.value, draws_a=cross.draws, draws_b=bar.draws)
            value, difference = cell.split("\n")
            assert value.startswith(f"{100 * values[i, j]:.1f} [")
            assert difference.startswith(f"{100 * margin.value:+.1f} [")
            assert ("within noise" in difference) != margin.decided


def test_a_transformed_gallery_is_compared_as_the_method_does(tmp_path):
    folder = three_generations(tmp_path)
    stored = load_tensors(folder / "features.safetensors")[0]
    turned = {"query": -stored["query"], "gallery": stored["gallery"].flip(1)}
    save_tensors(stored | turned, folder / "features.safetensors")
    (chain,) = chains.find_chains(tmp_path)
    measured = chain.measure(LABELS, draws=0)
    values = matrix(measured)
    assert values[2, 1] == pytest.approx(precision(turned["query"], turned["gallery"]), abs=1e-6)
    assert np.isnan(values[2, 0])  # what the method would do with an older gallery is not in the folder
    assert values[2, 2] == pytest.approx(precision(stored["test"], stored["test"]), abs=1e-6)
    text = chains.chain_table(measured, chain.models).iloc[2]
    assert text["gallery of 1"] == "n/a" and text["gallery of 2"].startswith(f"{100 * values[2, 1]:.1f}")


def test_a_method_that_compares_nothing_is_not_measured(tmp_path):
    folder = three_generations(tmp_path)
    save_tensors({"test": features()[2]}, folder / "features.safetensors")
    (chain,) = chains.find_chains(tmp_path)
    row = chains.chain_table(chain.measure(LABELS, draws=0), chain.models).iloc[2]
    assert (row["gallery of 1"], row["gallery of 2"]) == ("n/a", "n/a")


def test_labels_come_from_the_data_set_and_must_be_the_same(tmp_path, monkeypatch):
    monkeypatch.setenv("COMPAT_DATA", str(tmp_path / "data"))
    digest = Experiment(FIRST).data.test.digest()
    three_generations(tmp_path / "runs", digest)
    (chain,) = chains.find_chains(tmp_path / "runs")
    assert list(chain.measure(draws=0)) == list(chain.measure(LABELS, draws=0))
    write(tmp_path / "runs", SECOND, {"test": features()[2]}, digest="1")
    (chain,) = chains.find_chains(tmp_path / "runs")
    with pytest.raises(ValueError, match="dual-tuning-s.* was made with other test images than now"):
        chain.measure()


def test_the_other_tables_are_without_chains(tmp_path):
    three_generations(tmp_path)
    read = reading.read_runs(tmp_path, None, [FIRST, SECOND])
    rest = read.without_chains()
    assert set(read.runs["experiment_id"]) == {FIRST.experiment_id, SECOND.experiment_id}
    assert set(rest.runs["experiment_id"]) == {FIRST.experiment_id} and rest.expected == (FIRST,)
    unlisted = reading.read_runs(tmp_path).without_chains()
    assert set(unlisted.runs["experiment_id"]) == {FIRST.experiment_id}
    empty = reading.read_runs(tmp_path / "absent", None, [FIRST, SECOND]).without_chains()
    assert empty.runs.empty and empty.expected == (FIRST,)


def test_the_note_says_what_is_missing(tmp_path):
    assert "There is no chain" in chains.chains_note([], [], "make reproduce")
    note = chains.chains_note([], [SECOND], "make reproduce")
    assert SECOND.run_id in note and "`make reproduce` makes what is missing" in note
    three_generations(tmp_path)
    assert chains.chains_note(chains.find_chains(tmp_path), [SECOND], "make reproduce") == ""


def test_a_chain_that_was_kept_without_features_says_the_same(tmp_path, monkeypatch):
    expected = {}
    for seed in (0, 1):
        first = FIRST.changed(seed=seed)
        second = first.next_generation(new_backbone="convnet", method="dual_tuning", epochs=30)
        noise = torch.Generator().manual_seed(seed)
        shown = [side + 0.3 * torch.randn(side.shape, generator=noise) for side in features()]
        old, new, newest = ({"test": side, "val": side[::2]} for side in shown)
        asked = (
            {"query": new["test"], "gallery": old["test"]},
            {"query": newest["test"], "gallery": new["test"]},
        )
        write(tmp_path / "runs", first, old, old=True)
        write(tmp_path / "runs", first, new | asked[0])
        write(tmp_path / "runs", second, new, old=True)
        write(tmp_path / "runs", second, newest | asked[1])
        for chain in chains.find_chains(tmp_path / "runs"):
            expected[chain.runs[-1].folder.name] = [chain.measure(LABELS, composed=c) for c in (False, True)]
    monkeypatch.setattr(chains, "data_of_run", lambda folder: MADE)
    whole = chains.find_chains(tmp_path / "runs")
    for run in list_runs(tmp_path / "runs"):
        write_json(run.folder / "draws.json", [])
        (chain,) = [one for one in whole if one.runs[-1] == run] or [None]
        keep_runs.keep(run, tmp_path / "kept" / run.folder.parent.name / run.folder.name, chain=chain)
    assert not list((tmp_path / "kept").rglob("*.safetensors"))
    kept = chains.find_chains(tmp_path / "kept")
    assert [one.title for one in kept] == [one.title for one in whole] and len(kept) == 2
    for chain in kept:
        for composed, before in zip((False, True), expected[chain.runs[-1].folder.name], strict=True):
            assert set(chain.measure(composed=composed)) == set(before)
    (line,) = chains.over_seeds(kept).to_dict("records")
    pd.testing.assert_frame_equal(chains.over_seeds(whole), chains.over_seeds(kept))
    assert line["seeds"] == 2 and line["methods"] == "BCT, then Dual-Tuning (reconstruction)"
    cells = {"2 in 1": (0, 1, 0), "3 in 2": (0, 2, 1), "3 in 1": (0, 2, 0), "3 carried to 1": (1, 2, 0)}
    for title, (composed, query, gallery) in cells.items():
        values = [matrix(found[composed]) for found in expected.values()]
        points = np.mean([one[query, gallery] - one[gallery, gallery] for one in values])
        assert line[title].startswith(f"{100 * points:+.1f} [")
    own = [matrix(found[0]) for found in expected.values()]
    assert line["1 in 1"] == f"{100 * np.mean([one[0, 0] for one in own]):.1f}"
