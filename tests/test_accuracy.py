"""The benchmark of few-shot accuracy on Omniglot: recipes, interruption, the files it writes."""

import argparse
import itertools
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import mlutils
from benchmarks import omniglot, omniglot_recipes
from benchmarks.omniglot_recipes import RECIPES, Recipe, Training, fixed
from mlutils.data import glyphs
from mlutils.networks import BatchNorm

KEYS = {"method", "protocol", "ways", "shots", "seed", "mean", "ci95", "episodes", "transductive"}
KEYS |= {"command", "minutes", "config", "versions", "machine"}


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("ways", [5, 20])
def test_a_recipe_names_its_learners(name, ways):
    train = glyphs("train")
    training = RECIPES[name].make(train, ways, 1, 0)
    assert tuple(sorted(training.learners)) == tuple(sorted(RECIPES[name].learners))
    assert RECIPES[name].make.__doc__.splitlines()[0].endswith((".", ".)"))
    assert training.steps % omniglot.PARTS == 0
    assert (ways, 1) in RECIPES[name].sizes(ways, 1)
    if RECIPES[name].alpha:
        assert RECIPES[name].make(train, ways, 1, 0, alpha=0.3).alpha == 0.3 != training.alpha


def test_fixed_statistics_by_hand():
    """Where the training drawings are the batch, nothing changes; on other batches it does."""
    keras.utils.set_random_seed(0)
    network = mlutils.conv4(norm=True, filters=4)
    for layer in network.layers:
        if isinstance(layer, BatchNorm):
            layer.gamma.assign(tf.random.uniform(layer.gamma.shape, 0.5, 2))
            layer.beta.assign(tf.random.normal(layer.beta.shape))
    train = glyphs("validation")
    copy, batch = fixed(network, train), omniglot_recipes.some(train)
    assert not any(isinstance(layer, BatchNorm) for layer in copy.layers)
    np.testing.assert_allclose(copy(batch), network(batch), rtol=1e-3, atol=1e-3)
    few = batch[:5]
    assert np.abs(copy(few) - network(few)).max() > 0.1
    np.testing.assert_allclose(copy(few)[:2], copy(few[:2]), atol=1e-5)  # each by itself


# ---------------------------------------------------------------- a whole run, in small


@pytest.fixture
def small(tmp_path, monkeypatch):
    """One small recipe, on glyphs."""
    parts = tuple(glyphs(part) for part in ("train", "validation", "test"))
    monkeypatch.setattr(omniglot, "characters", lambda protocol: parts)
    for name, value in {"EPISODES": 8, "VALIDATION": 8, "PARTS": 3}.items():
        monkeypatch.setattr(omniglot, name, value)
    monkeypatch.setattr(omniglot, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(omniglot, "RUNNING", tmp_path / "running")

    def make(train, ways, shots, seed):
        """Pixels, linearly."""
        layers = [keras.layers.Flatten(), keras.layers.Dense(8)]
        encoder = keras.Sequential([keras.Input((28, 28, 1)), *layers])
        learner = mlutils.PrototypicalNetwork(encoder, scale=0.01)
        tasks = train.episodes(ways=ways, shots=shots, queries=1, meta_batch=2, seed=seed)
        return Training(learner, tasks, 6, {"linear": lambda: learner})

    monkeypatch.setitem(RECIPES, "linear", Recipe(make, ("linear",), "ways"))
    return tmp_path


def test_a_run_writes_the_cells_that_it_serves(small, capsys):
    omniglot.run("linear", 5, 1)
    files = sorted(small.glob("results/*.json"))
    assert [f.name for f in files] == ["linear-20w1s-vinyals-0.json", "linear-5w1s-vinyals-0.json"]
    cells = [json.loads(f.read_text("utf-8")) for f in files]
    for cell in cells:
        assert set(cell) == KEYS and cell["episodes"] == 8 and 0 < cell["mean"] < 100
        curve = cell["config"]["validation"]
        assert len(curve) == 3 and cell["config"]["chosen part"] == 1 + np.argmax(curve)
    assert cells[0]["mean"] < cells[1]["mean"]  # twenty ways are harder
    assert not omniglot.missing("linear", 20, 1, 0, "vinyals")
    assert omniglot.missing("linear", 5, 1, 1, "vinyals")
    omniglot.print_table("vinyals")
    row = next(x for x in capsys.readouterr().out.splitlines() if x.startswith("linear  "))
    assert row.count("(1)") == 2 and row.count("not run") == 2


def test_a_try_of_another_length_is_stored_apart(small):
    omniglot.run("linear", 5, 1, steps=3)
    files = sorted(small.glob("results/**/*.json"))
    assert [str(f.relative_to(small / "results")) for f in files] == [
        "tries/linear-20w1s-vinyals-0-3.json",
        "tries/linear-5w1s-vinyals-0-3.json",
    ]
    cell = json.loads(files[0].read_text("utf-8"))
    assert cell["config"]["steps"] == 3 and cell["command"].endswith("--steps 3")
    assert omniglot.end_of({"steps": 500, "alpha": 2.0}) == "-500-alpha-2.0"
    assert omniglot.missing("linear", 5, 1, 0, "vinyals") and not omniglot.stored()
    assert list(omniglot.stored("tries")) == [
        ("linear", 20, 1, "vinyals"),
        ("linear", 5, 1, "vinyals"),
    ]


def test_a_run_that_is_cut_off_ends_as_if_it_had_run_through(small, monkeypatch):
    omniglot.run("linear", 5, 1)
    path = small / "results" / "linear-5w1s-vinyals-0.json"
    whole = json.loads(path.read_text("utf-8"))
    path.unlink()
    monkeypatch.setattr(omniglot, "RUNNING", small / "running again")
    with pytest.raises(omniglot.OutOfTime):
        omniglot.run("linear", 5, 1, until=-1)
    evaluate, calls = mlutils.evaluate, []

    def cut(*arguments, **options):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return evaluate(*arguments, **options)

    monkeypatch.setattr(mlutils, "evaluate", cut)
    with pytest.raises(KeyboardInterrupt):
        omniglot.run("linear", 5, 1)
    assert not path.exists()
    omniglot.run("linear", 5, 1)
    again = json.loads(path.read_text("utf-8"))
    assert [again[k] for k in ("mean", "ci95")] == [whole[k] for k in ("mean", "ci95")]
    assert again["config"]["validation"] == whole["config"]["validation"]


def test_two_processes_do_not_train_in_one_folder(small):
    with omniglot.alone_in(omniglot.RUNNING / "linear-20w1s-vinyals-0"):
        with pytest.raises(SystemExit, match="Another process trains in"):
            omniglot.run("linear", 5, 1)
    omniglot.run("linear", 5, 1)


def test_other_recipes_do_not_go_on(small, monkeypatch):
    with pytest.raises(omniglot.OutOfTime):
        omniglot.run("linear", 5, 1, until=-1)
    (small / "others.py").write_text("")
    monkeypatch.setattr(omniglot_recipes, "__file__", str(small / "others.py"))
    with pytest.raises(SystemExit, match="begun by other recipes"):
        omniglot.run("linear", 5, 1)


# ---------------------------------------------------------------- what is stored, and the command


def test_stored_cells():
    paths = sorted(omniglot.RESULTS.glob("**/*.json"))
    learners = {name for recipe in RECIPES.values() for name in recipe.learners}
    assert paths
    for path in paths:
        cell = json.loads(path.read_text("utf-8"))
        assert set(cell) == KEYS and cell["method"] in learners
        size = cell["ways"], cell["shots"]
        name = omniglot.file_of(cell["method"], *size, cell["protocol"], cell["seed"])
        words = cell["command"].split()
        tried = {w[2:]: v for w, v in itertools.pairwise(words) if w in ("--steps", "--alpha")}
        assert (path.parent.name == "tries") == bool(tried)
        assert all(float(value) == cell["config"][word] for word, value in tried.items())
        a_try = omniglot.end_of(tried)
        assert path.stem == name + a_try and size in omniglot.SIZES
        assert cell["episodes"] == 1000 and 100 / cell["ways"] < cell["mean"] < 100
        curve = cell["config"]["validation"]
        assert len(curve) == 20 and cell["config"]["chosen part"] == 1 + np.argmax(curve)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("", "give --method with --ways and --shots"),
        ("--method maml --ways 5", "give --method with --ways and --shots"),
        ("--all --table", "or --all, or --table"),
        ("--method maml --ways 7 --shots 1", "invalid choice: 7"),
        ("--method mamml --ways 5 --shots 1", "invalid choice: 'mamml'"),
        ("--method maml --ways 5 --shots 5 --protocol lake", "--shots 1"),
        ("--method maml --ways 5 --shots 1 --steps 30", "a multiple of 20"),
        ("--all --steps 40", "--steps is for one training"),
        ("--all --alpha .1", "--alpha is for one training of maml, first-order-maml, anil"),
        ("--method reptile --ways 5 --shots 1 --alpha .1", "--alpha is for one training of maml"),
        ("--method maml --ways 5 --shots 1 --alpha -1", "and positive"),
    ],
)
def test_what_the_command_refuses(words, says, capsys):
    parser = argparse.ArgumentParser()
    omniglot.add_options(parser)
    with pytest.raises(SystemExit):
        omniglot.main(parser, parser.parse_args(words.split()))
    assert says in capsys.readouterr().err
