"""Meta-SGD, ANIL, the Taylor expansions, the options of all variants, and their benchmark."""

import json
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from mlutils import ANIL, MAML, MetaSGD, Reptile, Score, iMAML
from tests.maml.tasks import (
    adapted,
    as_vector,
    classifier,
    conv_model,
    cross_entropy,
    dense_model,
    derivatives,
    gradient_error,
    linear_model,
    named_model,
    random_episode,
    regression_episode,
    scalar_episode,
    scalar_learner,
    shrinking,
)
from tests.numeric import RELATIVE_TOLERANCE, flatten, relative_error
from tools.notebooks import ROOT

# ---------------------------------------------------------------- Meta-SGD


@pytest.mark.parametrize("first_order, by_theta", [(False, 0.5), (True, -1.0)])
def test_meta_sgd_on_the_pocket_quartic(first_order, by_theta):
    """eq-meta-sgd on the pocket numbers: theta = 1, alpha = 1/2, theta' = 1/2.

    dJ/dalpha = -grad L^S(theta) grad L^Q(theta') = -1 * (1/2 - 3/2)^3 = 1, also without second
    derivatives, of which it has none; dJ/dtheta is as in MAML.  At alpha = 1/4, theta' = 3/4:
    dJ/dalpha = -(3/4 - 3/2)^3 = 27/64.
    """
    learner = scalar_learner(kind=MetaSGD, first_order=first_order)
    _, (theta, alpha) = learner.meta_gradients(scalar_episode())
    assert (theta.numpy().item(), alpha.numpy().item()) == pytest.approx((by_theta, 1.0))
    learner.step_sizes[0].alpha.assign([[0.25]])
    _, (_, alpha) = learner.meta_gradients(scalar_episode())
    assert alpha.numpy().item() == pytest.approx(27 / 64)


def test_fit_trains_alpha_and_may_turn_its_sign():
    """eq-meta-sgd: one outer step of size 1 makes alpha = 1/2 - 1 and theta = 1 - 1/2.

    Then theta' = 1/2 + 1/2 * (1/2)^3 = 9/16: the inner step goes uphill.
    """
    learner = scalar_learner(kind=MetaSGD)
    learner.fit(tf.data.Dataset.from_tensors(scalar_episode().element), verbose=0)
    assert learner.step_sizes[0].alpha.numpy().item() == pytest.approx(-0.5)
    assert learner.model.get_weights()[0].item() == pytest.approx(0.5)
    assert adapted(learner) == pytest.approx(9 / 16)


def spread(step_sizes):
    """Give every alpha a value of its own, some of them negative."""
    random = np.random.default_rng(1)
    for step_size in step_sizes:
        step_size.alpha.assign(random.normal(0.5, 0.5, step_size.alpha.shape))


def test_the_gradient_by_theta_and_alpha_equals_finite_differences(float64):
    """eq-meta-sgd, with one alpha for each weight; they begin at 0.1 of float64, not of float32."""
    learner = classifier(conv_model(), MetaSGD, inner_lr=0.1, inner_steps=2)
    for step_size in learner.step_sizes:
        np.testing.assert_array_equal(step_size.alpha, 0.1)
    spread(learner.step_sizes)
    assert gradient_error(learner, random_episode(learner.model)) < RELATIVE_TOLERANCE


def test_an_alpha_stays_with_its_weight_when_others_are_frozen(float64):
    """By hand, one step: w - alpha * gradient, with the alphas that belong to the last layer."""
    model = named_model()
    learner = classifier(model, MetaSGD)
    spread(learner.step_sizes)
    support_x, support_y, *_ = (value[0] for value in random_episode(model))
    learner.adapt(support_x, support_y)  # traced with all of them
    model.layers[0].trainable = False
    head = model.layers[1].trainable_variables
    with tf.GradientTape() as tape:
        loss = learner.task_loss(support_y, model(support_x))
    gradients = tape.gradient(loss, head)
    found = learner.adapted_weights(learner.initialisation(), support_x, support_y)
    expected = [
        v - step_size.alpha * gradient
        for v, step_size, gradient in zip(head, learner.step_sizes[2:], gradients, strict=True)
    ]
    np.testing.assert_allclose(flatten(found), flatten(expected), rtol=1e-12)


@pytest.mark.parametrize(
    "kind, before, after, words",
    [
        (MetaSGD, False, True, r"body/kernel.*body/bias.*have no alpha"),
        (ANIL, True, False, "head is frozen"),
    ],
)
def test_a_layer_frozen_or_unfrozen_later_raises(kind, before, after, words):
    model = named_model()
    layer = model.layers[0 if kind is MetaSGD else 1]
    layer.trainable = before
    learner = classifier(model, kind)
    layer.trainable = after
    with pytest.raises(ValueError, match=words):
        learner.adapt(tf.zeros((3, 2)), tf.constant([0, 1, 2]))


# ---------------------------------------------------------------- ANIL


def anil_by_hand(model, episode, inner_lr, steps):
    """eq-anil with the features computed once; the meta-loss and its gradient by all weights."""
    variables, cross_entropy_of = model.trainable_variables, cross_entropy()
    body = keras.Sequential([keras.Input(model.input_shape[1:]), *model.layers[:-1]])
    kernel, bias = (v.value for v in variables[-2:])
    with tf.GradientTape() as outer:
        losses = []
        for support_x, support_y, query_x, query_y in zip(*episode, strict=True):
            head, features = [kernel, bias], body(support_x)
            for _ in range(steps):
                with tf.GradientTape() as inner:
                    inner.watch(head)
                    loss = cross_entropy_of(support_y, features @ head[0] + head[1])
                gradients = inner.gradient(loss, head)
                head = [w - inner_lr * g for w, g in zip(head, gradients, strict=True)]
            losses.append(cross_entropy_of(query_y, body(query_x) @ head[0] + head[1]))
        loss = tf.add_n(losses) / len(losses)
    return loss, outer.gradient(loss, variables)


def test_anil_adapts_the_head_on_fixed_features(float64):
    """eq-anil; negative control: MAML on the same model gives another gradient."""
    model, options = conv_model(), dict(inner_lr=1.0, inner_steps=2)
    learner = classifier(model, ANIL, **options)
    episode = random_episode(model)
    by_hand, expected = anil_by_hand(model, episode, 1.0, 2)
    loss, gradients = learner.meta_gradients(episode)
    assert float(loss) == pytest.approx(float(by_hand), rel=1e-10)
    assert relative_error(flatten(gradients), flatten(expected)) < 1e-9
    _, maml = classifier(model, **options).meta_gradients(episode)
    assert relative_error(flatten(maml), flatten(expected)) > 1e-2


def nested(*layers):
    """Keras lists the layers of nested models in another order than their weights."""
    return lambda: keras.Sequential([keras.Input((2,)), *(make() for make in layers)])


def functional():
    inputs = keras.Input((2,))
    return keras.Model(inputs, named_model()(keras.layers.Dense(2, name="first")(inputs)))


class Subclassed(keras.Model):
    """Its dropout is inert, though its ``call`` takes no training flag."""

    def __init__(self):
        super().__init__()
        self.first, self.inner = keras.layers.Dense(2, name="first"), named_model()
        self.dropout = keras.layers.Dropout(0.9)
        self(tf.zeros((1, 2)))

    def call(self, x):
        return self.inner(self.dropout(self.first(x)))


@pytest.mark.parametrize(
    "make, head, moving",
    [
        (named_model, None, "last"),
        (named_model, "body", "body"),
        (nested(lambda: keras.layers.Dense(2), named_model), None, "last"),
        (nested(lambda: keras.layers.Dense(2), named_model), "body", "body"),
        (nested(named_model, lambda: keras.layers.Dense(3, name="end")), None, "end"),
        (functional, None, "last"),
        (Subclassed, None, "last"),
    ],
)
def test_only_the_head_moves(make, head, moving):
    """eq-anil: the layer that owns the last weight when none is named, also in nested models."""
    model = make()
    learner = classifier(model, ANIL, inner_lr=1.0, head=head)
    random = np.random.default_rng(0)
    support = tf.constant(random.normal(size=(4, 2)), tf.float32), tf.constant([0, 1, 2, 0])
    theta = learner.initialisation()
    moved = [
        variable.path.split("/")[-2]
        for variable, old, new in zip(
            model.trainable_variables, theta, learner.adapted_weights(theta, *support), strict=True
        )
        if np.any(old != new)
    ]
    assert moved == [moving] * 2


def test_a_subclassed_model_is_as_the_functional_one():
    models = functional(), Subclassed()
    models[1].set_weights(models[0].get_weights())
    inputs, _ = random_episode(models[0], dtype="float32").element
    plain, subclassed = (classifier(m, inner_lr=1.0)(inputs, training=True) for m in models)
    np.testing.assert_allclose(subclassed, plain, rtol=1e-5)


# ---------------------------------------------------------------- expansions


@pytest.mark.parametrize("first_order", [False, True])
def test_taylor_expansions(float64, first_order):
    """eq-maml-taylor and eq-fomaml-taylor: halving alpha quarters what they leave out.

    grad [L^Q - alpha grad L^S . grad L^Q] = g^Q - alpha (H^S g^Q + H^Q g^S), and FOMAML is
    g^Q - alpha H^Q g^S.
    Negative control: with H^S g^Q in place of H^Q g^S, or H^Q g^S twice, halving alpha only
    halves it.
    """
    learner = classifier(dense_model(), first_order=first_order)
    episode = random_episode(learner.model, tasks=1)
    support_x, support_y, query_x, query_y = (value[0] for value in episode)
    theta, loss = as_vector(learner)
    support, support_hessian = derivatives(loss, theta, support_x, support_y)
    query, query_hessian = derivatives(loss, theta, query_x, query_y)
    right, wrong = query_hessian @ support, support_hessian @ query
    if not first_order:
        right, wrong = right + wrong, 2 * right

    def residual(alpha, term):
        learner.inner_lr = alpha
        return flatten(learner.meta_gradients(episode)[1]) - (query - alpha * term)

    assert shrinking(lambda alpha: residual(alpha, right)) == pytest.approx([4, 4], abs=0.5)
    assert shrinking(lambda alpha: residual(alpha, wrong)) == pytest.approx([2, 2], abs=0.25)


def test_few_steps_on_a_quadratic_stay_between_the_start_and_the_minimum(float64):
    """eq-map-estimate: theta_k = (I - M) theta_hat + M theta_0, with M = (I - alpha H)^k.

    For mean squared error of X w, H = 2/S X'X, and theta_hat solves the least squares.
    Each step starts where the last ended (museum of bugs, 4); negative control: k + 1 for k.
    """
    learner = MAML(linear_model(3), inner_lr=0.1)
    learner.compile(loss="mse")
    x, y, *_ = (value[0].numpy() for value in regression_episode(3))
    start, minimum = learner.model.get_weights()[0], np.linalg.lstsq(x, y)[0]

    def estimate(k):
        left = np.linalg.matrix_power(np.eye(3) - 0.1 * 2 / len(x) * x.T @ x, k)
        return (np.eye(3) - left) @ minimum + left @ start

    for steps in (1, 2, 5, 9):
        (found,) = learner.adapted_weights(learner.initialisation(), x, y, steps)
        np.testing.assert_allclose(found, estimate(steps), rtol=1e-9)
        assert np.max(np.abs(found - estimate(steps + 1))) > 1e-3


@pytest.mark.parametrize(
    "kind, options",
    [
        (MAML, dict(inner_lr=0.3, inner_steps=2, first_order=True, transductive=False)),
        (MetaSGD, dict(inner_lr=0.3, inner_steps=2, first_order=True, transductive=False)),
        (ANIL, dict(inner_steps=2, head="body", first_order=True, transductive=False)),
        (iMAML, dict(inner_steps=3, strength=3.0, cg_steps=2, transductive=False)),
        (Reptile, dict(inner_steps=2, batch_size=3, seed=5, transductive=True)),
    ],
)
def test_the_config_holds_all_options(kind, options):
    """None of them is the default."""
    config = kind(named_model(), **options).get_config()
    made = kind.from_config(config)
    assert options.items() <= config.items()
    assert type(made) is kind and made.get_config() == config


# ---------------------------------------------------------------- the benchmark


@pytest.fixture(scope="module")
def measured():
    """The benchmark's results by method, and the page that shows them."""
    path = ROOT / "benchmarks/results/variants.json"
    page = json.loads((ROOT / "chapters/maml/variants.ipynb").read_text(encoding="utf-8"))
    text = "\n".join("".join(c["source"]) for c in page["cells"] if c["cell_type"] == "markdown")
    return json.loads(path.read_text(encoding="utf-8"))["methods"], text


def less(methods, first, second):
    """By how much the first method's error is less, over the seeds, and half its interval."""
    difference = Score(np.subtract(methods[second]["errors"], methods[first]["errors"]))
    return difference.mean, difference.ci95


def test_the_page_shows_what_the_benchmark_found(measured):
    """Every row of its table: five seeds, as many tries, mean, range and difference."""
    methods, text = measured
    for name, found in methods.items():
        assert len(found["errors"]) == 5 and len(found["errors of the tries"]) == 6
        (row,) = re.findall(rf"^\| {re.escape(name)} \|.*\|$", text, re.MULTILINE)
        assert row == table_row(methods, name)


def table_row(methods, name):
    errors, ten = (
        methods[name]["errors"],
        np.median([np.inf if v is None else v for v in methods[name]["medians after ten steps"]]),
    )
    gain, ci95 = less(methods, name, "MAML")
    cells = [
        name,
        str(methods[name]["trained for"]),
        f"{np.mean(errors):.2f}",
        f"{min(errors):.2f} to {max(errors):.2f}",
        "" if name == "MAML" else f"{gain:+.2f} ± {ci95:.2f}",
        f"{ten:.2f}" if ten < 10 else "over 10",
    ]
    return "| " + " | ".join(cells) + " |"


def test_the_page_says_what_the_benchmark_found(measured):
    """The differences in its prose, and that those it calls differences are some."""
    methods, text = measured
    for first, second, differ in [
        ("Meta-SGD", "MAML", True),
        ("Meta-SGD", "first kernel alone", True),
        ("MAML, k = 5", "Meta-SGD", False),
        ("MAML", "first-order MAML", True),
        ("first-order MAML", "ANIL", True),
        ("MAML", "ANIL", True),
        ("MAML, k = 5", "Reptile, k = 5", True),
        ("MAML", "Reptile, k = 5", False),
        ("MAML", "iMAML, k = 30", False),
    ]:
        gain, ci95 = less(methods, first, second)
        assert (gain > ci95) == differ, (first, second)
        if (first, second) not in UNQUOTED:
            assert f"{gain:.2f} ± {ci95:.2f}" in text, (first, second)
    assert less(methods, "first kernel alone", "MAML")[0] > 0
    for name, key in [
        ("iMAML, k = 30", "errors"),
        ("Meta-SGD", "medians after ten steps"),
        ("MAML", "medians after ten steps"),
    ]:
        values = methods[name][key]
        assert f"from {min(values):.2f} to {max(values):.2f}" in text, name


UNQUOTED = {("first-order MAML", "ANIL"), ("MAML", "Reptile, k = 5"), ("MAML", "iMAML, k = 30")}
