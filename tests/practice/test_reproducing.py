"""``benchmarks.reproducing``, and what the page on reproducing papers says of its runs."""

import keras
import numpy as np

import mlutils
from benchmarks import reproducing
from mlutils.results import stored_result

STORED = stored_result("reproducing")


def accuracies(name, split="test"):
    return np.array([run[split] for run in STORED["runs"][name]])


def test_every_training_is_stored_with_five_seeds():
    names = [f"alpha {a}, outer {o}" for a in reproducing.ALPHAS for o in reproducing.OUTER]
    assert set(STORED["runs"]) == {*names, *reproducing.CHANGES}
    for runs in STORED["runs"].values():
        assert [run["seed"] for run in runs] == list(range(reproducing.SEEDS))
    assert STORED["recipe"] == reproducing.RECIPE
    assert STORED["steps of MAML"] == reproducing.MAML_STEPS


def test_a_factor_of_the_loss_is_a_factor_of_alpha():
    """How one traced learner stands for all: a step of 1 on alpha times the loss."""
    (support_x, support_y, query_x), _ = next(
        iter(mlutils.data.glyphs("test").episodes(meta_batch=1, seed=1))
    )
    learner, loss = reproducing.maml()
    learner.compile(loss=loss)
    other = mlutils.MAML(learner.model, inner_lr=0.4)
    other.compile(loss=reproducing.LOGITS)
    predicted = []
    for factor, one in ((0.4, learner), (1.0, other), (2.0, learner)):
        reproducing.scale().assign(factor)
        predicted.append(one.adapt(support_x[0], support_y[0])(query_x[0]).numpy())
    np.testing.assert_allclose(predicted[0], predicted[1], rtol=1e-4, atol=1e-5)
    assert np.abs(predicted[2] - predicted[1]).max() > 1e-2


def test_a_training_begins_anew():
    """New weights from the seed, and an optimizer without memory."""

    def make():
        network = keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Flatten()])
        network.add(keras.layers.Dense(8))
        return mlutils.PrototypicalNetwork(network), reproducing.LOGITS

    training = reproducing.Training(make)
    data = mlutils.data.glyphs("train").episodes(meta_batch=2, seed=0)
    first, other, again = (training.run(data, 200, 0.01, True, seed) for seed in (0, 1, 0))
    assert first == again != other


def test_what_the_page_says_of_the_inner_step():
    best = {}
    for alpha in reproducing.ALPHAS:
        names = [f"alpha {alpha}, outer {rate}" for rate in reproducing.OUTER]
        best[alpha] = accuracies(max(names, key=lambda n: accuracies(n, "validation").mean()))
    gap = {a: mlutils.Score(v - best[2.0]) for a, v in best.items() if a != 2.0}
    assert 0 < gap[0.4].mean < 2 and -4 < gap[0.08].mean < -1 and gap[10.0].mean < -5
    assert all(gap[a].mean + gap[a].ci95 < 0 for a in (0.08, 10.0))


def test_what_the_page_says_of_the_recipe():
    lost = {
        name: mlutils.Score(accuracies(name) - accuracies("as written"))
        for name in reproducing.CHANGES
        if name != "as written"
    }
    for name, score in lost.items():
        if name in ("a fifth of the steps", "5 ways in training"):
            assert score.mean + score.ci95 < -10
        else:
            assert abs(score.mean) < 2
