"""A training that is cut off, and goes on, ends like one that ran through, bit for bit."""

import random
import subprocess
import sys
import time
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import mlutils
from mlutils import resume
from mlutils.resume import fit_or_resume

ROOT = Path(__file__).resolve().parents[1]
LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
EPOCHS, STEPS = 4, 4


def maml(**options):
    learner = mlutils.MAML(mlutils.mlp(1, (4,), 1), 0.1, 1)
    learner.compile(keras.optimizers.Adam(0.01), "mse", **options)
    return learner, mlutils.data.sinusoids(shots=3, queries=3, meta_batch=2)


def xla():
    return maml(steps_per_execution=4, jit_compile=True)


def clouds():
    """Episodes of points about three centres."""
    random = np.random.default_rng(0)
    y = np.arange(30) % 3
    return mlutils.data.episodes(
        random.normal(size=(30, 2)) + y[:, np.newaxis], y, ways=3, queries=2, meta_batch=2
    )


def reptile():
    learner = mlutils.Reptile(mlutils.mlp(2, (4,), 3), 0.1, 2, batch_size=2)
    learner.compile(keras.optimizers.SGD(0.5), LOGITS)
    return learner, clouds()


def prototypical():
    learner = mlutils.PrototypicalNetwork(mlutils.mlp(2, (4,), 3))
    decay = keras.optimizers.schedules.CosineDecay(0.1, EPOCHS * STEPS)
    learner.compile(keras.optimizers.AdamW(decay, weight_decay=0.01), LOGITS)
    return learner, clouds()


def points():
    """Endless batches for a plain model of Keras."""

    def batch(index):
        x = tf.random.stateless_normal((4, 3), [0, index])
        return x, tf.abs(x[:, :1])

    return tf.data.Dataset.counter().map(batch)


def shuffled(**options):
    """An epoch's examples in an order that is another each time, as Keras's users make it."""
    examples = points().unbatch().take(60)
    return dropout()[0], examples.shuffle(60, **options).repeat().batch(4)


class Unregistered(keras.Model):
    """Not registered for saving; with statistics, and built at its first call."""

    def __init__(self):
        super().__init__()
        self.network = keras.Sequential([keras.layers.Dense(4, "relu"), keras.layers.Dense(1)])
        self.norm, self.dropout = keras.layers.BatchNormalization(), keras.layers.Dropout(0.5)

    def call(self, x, training=None):
        return self.network(self.dropout(self.norm(x, training=training), training=training))


def dropout(optimizer=None, dtype=None):
    layers = [
        keras.layers.Dense(4, "relu", dtype=dtype),
        keras.layers.Dropout(0.5, seed=1, dtype=dtype),
        keras.layers.Dense(1, dtype=dtype),
    ]
    model = keras.Sequential([keras.Input((3,)), *layers])
    model.compile(optimizer or keras.optimizers.Adam(0.01), "mse")
    return model, points()


def unregistered():
    model = Unregistered()
    model(tf.zeros((1, 3)))
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), "mse")
    return model, points()


def averaged():
    return dropout(keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.7))


def half_precision():
    """With gradients accumulated over epochs' ends, and a scale that grows at every other step."""
    inner = keras.optimizers.Adam(0.01, gradient_accumulation_steps=3)
    scaled = keras.optimizers.LossScaleOptimizer(inner, 2.0, dynamic_growth_steps=2)
    return dropout(scaled, "mixed_float16")


def bfloat16():
    return dropout(dtype="bfloat16")


LEARNERS = [maml, xla, reptile, prototypical]
MODELS = [dropout, unregistered, averaged, half_precision, bfloat16]


def made(make):
    """A model and its data, the same each time."""
    keras.utils.set_random_seed(0)
    return make()


def through(make, epochs=EPOCHS):
    """What Keras's own ``fit`` makes without a cut: the model, and its losses."""
    model, data = made(make)
    history = model.fit(data, epochs=epochs, steps_per_epoch=STEPS, verbose=0, shuffle=False)
    return model, history.history["loss"]


def go_on(make, folder, epochs=EPOCHS, **options):
    """The model and the losses of a call in, as it were, a new process."""
    model, data = made(make)
    options = {"epochs": epochs, "steps_per_epoch": STEPS, "verbose": 0} | options
    history = fit_or_resume(model, data, folder, **options)
    return model, history.history.get("loss", [])


def different(model, other):
    """The paths of the variables in which two models, or their optimizers, differ."""
    pairs = zip(
        [*model.variables, *model.optimizer.variables],
        [*other.variables, *other.optimizer.variables],
        strict=True,
    )
    return [u.path for u, v in pairs if np.asarray(u).tobytes() != np.asarray(v).tobytes()]


class Cut(keras.callbacks.Callback):
    """Ends a training, as Ctrl-C would, at a moment of an epoch."""

    def __init__(self, epoch, moment):
        super().__init__()
        self.epoch, self.moment = epoch, moment

    def on_epoch_begin(self, epoch, logs=None):
        self.now = epoch
        self.raise_at("begin")

    def on_train_batch_end(self, batch, logs=None):
        self.raise_at("within")

    def on_epoch_end(self, epoch, logs=None):
        self.raise_at("end")

    def raise_at(self, moment):
        if (self.now, moment) == (self.epoch, self.moment):
            raise KeyboardInterrupt


def cut(make, folder, epoch, moment):
    with pytest.raises(KeyboardInterrupt):
        go_on(make, folder, callbacks=Cut(epoch, moment))


@pytest.mark.parametrize("make", LEARNERS + MODELS, ids=lambda make: make.__name__)
def test_a_training_cut_off_twice_ends_as_if_it_had_run_through(make, tmp_path, xla):
    cut(make, tmp_path, 0, "within")
    cut(make, tmp_path, 2, "within")
    model, losses = go_on(make, tmp_path)
    whole, all_losses = through(make)
    assert different(model, whole) == []
    assert losses == all_losses[2:]


@pytest.mark.parametrize(
    ("epoch", "moment", "left"), [(0, "begin", 4), (1, "begin", 3), (1, "end", 3), (3, "end", 1)]
)
def test_other_moments(tmp_path, epoch, moment, left):
    """An epoch at whose end another callback raises is run again."""
    cut(dropout, tmp_path, epoch, moment)
    model, losses = go_on(dropout, tmp_path)
    whole, all_losses = through(dropout)
    assert different(model, whole) == []
    assert losses == all_losses[-left:]


@pytest.mark.parametrize("epoch", [0, 2])
def test_the_same_model_may_be_used_again(tmp_path, epoch):
    """In a notebook a cell is run again, and the model holds what the cut left in it."""
    model, data = made(maml)
    options = {"epochs": EPOCHS, "steps_per_epoch": STEPS, "verbose": 0}
    with pytest.raises(KeyboardInterrupt):
        fit_or_resume(model, data, tmp_path, callbacks=[Cut(epoch, "within")], **options)
    fit_or_resume(model, data, tmp_path, **options)
    assert different(model, through(maml)[0]) == []


def no_skip(patch):
    patch.setattr(tf.data.Dataset, "skip", lambda data, count: data)


def no_optimizer(patch):
    patch.setattr(resume, "variables_of", lambda model: model.variables)


def no_seeds(patch):
    patch.setattr(
        resume, "variables_of", lambda model: [*model.weights, *model.optimizer.variables]
    )


def nothing_restored(patch):
    patch.setattr(resume, "restore", lambda *_: None)


@pytest.mark.parametrize("wrong", [no_skip, no_optimizer, no_seeds, nothing_restored])
def test_a_wrong_way_to_resume_is_seen(tmp_path, monkeypatch, wrong):
    """Negative control of the tests above: they fail for what forgets something."""
    cut(dropout, tmp_path / "right", 2, "within")
    right, _ = go_on(dropout, tmp_path / "right")
    wrong(monkeypatch)
    cut(dropout, tmp_path / "wrong", 2, "within")
    model, _ = go_on(dropout, tmp_path / "wrong")
    assert different(right, model) != []


KILLED = """
import sys
from tests.test_resume import go_on, maml
go_on(maml, sys.argv[1], epochs=int(sys.argv[2]), steps_per_epoch=20)
"""


def killed_until_done(folder, epochs, kills, seed):
    """Run the training in processes that are killed, at random moments; then one to the end.

    A moment is up to 50 ms after an epoch's file appeared, so that most fall into the training.
    """
    moments = random.Random(seed)
    after = sorted(moments.sample(range(epochs - 5), kills))
    for epoch in [*after, None]:
        command = [sys.executable, "-c", KILLED, str(folder), str(epochs)]
        with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
            while epoch is not None and process.poll() is None:
                if any(number >= epoch for number, _ in resume.numbered(folder)):
                    time.sleep(moments.uniform(0, 0.05))
                    process.kill()
                    break
                time.sleep(0.001)
            errors = process.communicate()[1]
        assert process.returncode in ((0,) if epoch is None else (0, -9)), errors[-2000:]


def test_kill_9(tmp_path):
    """The last file holds, bit for bit, what a training that ran through has at its end."""
    killed_until_done(tmp_path, epochs=30, kills=2, seed=0)
    model, data = made(maml)
    model.fit(data, epochs=30, steps_per_epoch=20, verbose=0, shuffle=False)
    other, _ = go_on(maml, tmp_path, epochs=30, steps_per_epoch=20)
    assert different(model, other) == []


# ---------------------------------------------------------------- files


def test_the_newest_files_are_kept_and_what_a_killed_run_left_is_removed(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "unfinished.npz").write_bytes(b"half")
    go_on(dropout, tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"notes.txt", "epoch-0003.npz", "epoch-0004.npz"}
    go_on(dropout, tmp_path / "one", keep=1)
    assert [p.name for p in (tmp_path / "one").iterdir()] == ["epoch-0004.npz"]


@pytest.mark.parametrize("make", [dropout, averaged])
def test_nothing_is_left_to_do(tmp_path, make):
    """The history is empty, and the model has its final weights: the averages, where there are."""
    whole, _ = go_on(make, tmp_path)
    model, losses = go_on(make, tmp_path)
    assert losses == []
    assert different(model, whole) == []
    model, losses = go_on(make, tmp_path, epochs=EPOCHS + 1)
    whole, all_losses = through(make, EPOCHS + 1)
    assert different(model, whole) == []
    assert losses == all_losses[-1:]


def halved(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flipped(path):
    """One bit of a number is another."""
    content = bytearray(path.read_bytes())
    content[content.index(b"NUMPY") + 128] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "halved": halved,
    "a bit": flipped,
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("not here"),
    "array": lambda path: np.save(path.open("wb"), np.ones(3)),
    "arrays": lambda path: np.savez(path, np.ones(3)),
}


@pytest.mark.parametrize(("damage", "files"), [*((d, 1) for d in DAMAGES), ("empty", 2)])
def test_a_damaged_file_is_stepped_over(tmp_path, damage, files):
    """With a warning; where there is no other, the training begins anew."""
    go_on(dropout, tmp_path, epochs=EPOCHS - 1)
    for number in (3, 2)[:files]:
        DAMAGES[damage](tmp_path / f"epoch-000{number}.npz")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model, losses = go_on(dropout, tmp_path)
    said = [str(w.message) for w in caught if "stepped over" in str(w.message)]
    assert [f"epoch-000{n}.npz" in s for n, s in zip((3, 2), said, strict=False)] == [True] * files
    whole, all_losses = through(dropout)
    assert different(model, whole) == []
    assert losses == all_losses[2:] if files == 1 else all_losses
    assert len(list(tmp_path.iterdir())) == 2


# ---------------------------------------------------------------- callbacks and data


def test_callbacks_and_validation_are_those_of_fit(tmp_path):
    seen = []
    note = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(epoch))
    model, data = made(dropout)
    history = fit_or_resume(
        model, data, tmp_path, epochs=2, steps_per_epoch=STEPS, verbose=0, callbacks=note,
        validation_data=data, validation_steps=2,
    )  # fmt: skip
    assert seen == history.epoch == [0, 1]
    assert set(history.history) == {"loss", "val_loss"}


def test_what_a_callback_changes_at_an_epochs_end_is_kept(tmp_path):
    class Slower(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.optimizer.learning_rate = 0.01 / (epoch + 2)

    with pytest.raises(KeyboardInterrupt):
        go_on(dropout, tmp_path, callbacks=[Slower(), Cut(2, "within")])
    model, _ = go_on(dropout, tmp_path, callbacks=[Slower()])
    whole, _ = go_on(dropout, tmp_path / "whole", callbacks=[Slower()])
    assert different(model, whole) == []


def test_an_epoch_cut_short_by_a_callback_is_not_written(tmp_path):
    def stop(batch, logs):
        model.stop_training = batch == 1 and model.optimizer.iterations > STEPS

    model, data = made(dropout)
    stopping = keras.callbacks.LambdaCallback(on_train_batch_end=stop)
    fit_or_resume(
        model, data, tmp_path, epochs=3, steps_per_epoch=STEPS, callbacks=stopping, verbose=0
    )
    assert resume.newest(tmp_path)[0] == 1
    model, _ = go_on(dropout, tmp_path)
    assert different(model, through(dropout)[0]) == []


def test_data_that_end_too_early_are_an_error(tmp_path):
    model, data = made(dropout)
    of_unknown_length = data.take(6).filter(lambda x, y: True)
    with (
        pytest.raises(ValueError, match="ended in epoch 2, after 2 of 4 steps"),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # Keras's own
        fit_or_resume(
            model, of_unknown_length, tmp_path, epochs=3, steps_per_epoch=STEPS, verbose=0
        )
    assert resume.newest(tmp_path)[0] == 1


def test_data_that_are_not_repeatable_are_warned_of(tmp_path):
    """Shuffled without a seed; the other tests show that there is no false alarm."""
    go_on(shuffled, tmp_path, epochs=1)
    with pytest.warns(UserWarning, match="first element of data is not what it was"):
        go_on(lambda: keras.utils.set_random_seed(1) or shuffled(), tmp_path)


def test_data_shuffled_with_a_seed(tmp_path):
    """Their order is another at each iteration of the same object: they are to be made anew."""

    def seeded():
        return shuffled(seed=1)

    cut(seeded, tmp_path / "cut", 2, "within")
    model, _ = go_on(seeded, tmp_path / "cut")
    whole, _ = go_on(seeded, tmp_path / "whole")
    assert different(model, whole) == []
    same = seeded()
    go_on(lambda: same, tmp_path / "same", epochs=1)
    with pytest.warns(UserWarning, match="make the data anew"):
        go_on(lambda: same, tmp_path / "same", epochs=2)


def test_two_replicas(tmp_path, strategy):
    def mirrored():
        with strategy.scope():
            return reptile()

    cut(mirrored, tmp_path, 2, "within")
    model, losses = go_on(mirrored, tmp_path)
    whole, all_losses = through(mirrored)
    assert different(model, whole) == []
    assert losses == all_losses[2:]


# ---------------------------------------------------------------- wrong arguments


def not_compiled():
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])


def not_built():
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


def two_optimizers():
    model, _ = dropout()
    model.other = keras.optimizers.SGD()
    return model


def executions_of_three():
    model, _ = dropout()
    model.compile("sgd", "mse", steps_per_execution=3)
    return model


BACKUP = keras.callbacks.BackupAndRestore("nowhere")
WRONG = [
    ({"model": lambda: "a model"}, TypeError, "must be a keras.Model; got str"),
    ({"model": not_compiled}, ValueError, "compile it first"),
    ({"model": not_built}, ValueError, "no weights yet"),
    ({"model": two_optimizers}, ValueError, "other than the compiled one"),
    ({"model": executions_of_three}, ValueError, "multiple of the model's steps_per_execution=3"),
    ({"data": np.ones((4, 3))}, TypeError, "must be a tf.data.Dataset; got ndarray"),
    ({"data": points().take(7)}, ValueError, "hold 7 elements, and .* is 8"),
    ({"epochs": 0}, ValueError, "epochs must be an integer"),
    ({"steps_per_epoch": 2.5}, ValueError, "steps_per_epoch must be an integer"),
    ({"keep": 0}, ValueError, "keep must be an integer"),
    ({"initial_epoch": 1}, TypeError, "initial_epoch"),
    ({"x": 1, "y": 2}, TypeError, r"\['x', 'y'\]"),
    ({"callbacks": [print]}, TypeError, "must hold callbacks of Keras"),
    ({"callbacks": [BACKUP]}, ValueError, "BackupAndRestore"),
]


@pytest.mark.parametrize(("wrong", "kind", "message"), WRONG, ids=[w[2] for w in WRONG])
def test_wrong_arguments(tmp_path, wrong, kind, message):
    options = {"data": points(), "epochs": 2, "steps_per_epoch": STEPS, "verbose": 0} | wrong
    model = options.pop("model", lambda: dropout()[0])()
    with pytest.raises(kind, match=message):
        fit_or_resume(model, options.pop("data"), tmp_path / "new", **options)
    assert not (tmp_path / "new").exists()


def test_the_folder_is_a_file(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="file is a file"):
        go_on(dropout, tmp_path / "file")


def wider():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(0.01), "mse")
    return model, points()


def narrower():
    return dropout(keras.optimizers.SGD(0.01))


def single():
    layers = [keras.layers.Dense(5), keras.layers.Dropout(0.5, seed=1), keras.layers.Dense(1)]
    model = keras.Sequential([keras.Input((3,)), *layers])
    model.compile(keras.optimizers.Adam(0.01), "mse")
    return model, points()


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (wider, {}, "another model, of 15 variables"),
        (narrower, {}, "another model, of 15 variables"),
        (single, {}, r"another model: .* is float32 \(3, 5\), and in the folder float32 \(3, 4\)"),
        (bfloat16, {}, "another model: .* is bfloat16"),
        (dropout, {"epochs": 1}, "of 2 epochs already; epochs is 1"),
        (dropout, {"steps_per_epoch": 3}, "steps_per_epoch=4; now it is 3"),
    ],
)
def test_the_folder_holds_another_training(tmp_path, make, options, message):
    """Nothing in it changes, nor in the model."""
    go_on(dropout, tmp_path, epochs=2)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    model, data = made(make)
    weights = model.get_weights()
    options = {"epochs": 3, "steps_per_epoch": STEPS, "verbose": 0} | options
    with pytest.raises(ValueError, match=message) as caught:
        fit_or_resume(model, data, tmp_path, **options)
    assert str(tmp_path) in str(caught.value)
    assert before == {path: path.read_bytes() for path in tmp_path.iterdir()}
    for was, now in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(was, now)
