"""The controls that every result is shown beside."""

import itertools
from collections.abc import Iterator

import keras
import tensorflow as tf

from mlutils.door.networks import check_network
from mlutils.door.numbers import check_count, check_seed
from mlutils.door.tasks import as_batches, check_learner, read_episode
from mlutils.evaluation import check_metric, score
from mlutils.few_shot.prototypical import PrototypicalNetwork
from mlutils.inner_loop import descend
from mlutils.networks import predict_with
from mlutils.optimizer_based.rules import AdamRule
from mlutils.vectorize import map_tasks


def controls(
    learner,
    episodes,
    tasks=None,
    *,
    model=None,
    encoder=None,
    scratch_steps=100,
    seed=0,
    metric=None,
    **adapt_options,
):
    """The scores that tell what adaptation by ``learner`` is worth.

    Args:
        learner: a ``MetaLearner``.
        episodes: as for ``evaluate``; iterated once per control, so it must give the same
            tasks each time, as the package's own pipelines do.
        tasks: how many tasks to score on.
        model: the network to train from scratch on each support set;
            ``learner.model`` by default.  It is cloned, not changed.
        encoder: a pretrained Keras model from inputs to embeddings, for the
            nearest-centroid control; classification only.
        scratch_steps: steps of Adam (0.01) when training from scratch.
        seed: of the shuffles.
        metric: as for ``evaluate``.
        **adapt_options: passed to ``learner.adapt``, for example ``steps=5``.

    Returns:
        A dict from the control's name to its ``Score``: ``"no adaptation"`` (absent if the
        method predicts nothing without a support set), ``"shuffled support labels"``,
        ``"trained from scratch"`` (absent without a model) and
        ``"nearest centroid"`` (absent without an encoder).

    Raises:
        ValueError: as ``evaluate``; if ``episodes`` can be iterated only once; if ``model``
            cannot be cloned; with an encoder, if the labels are not integers.
    """
    if isinstance(episodes, Iterator):
        raise ValueError(
            "episodes can be iterated only once, so that each control would get other tasks: "
            "give a dataset or a list, not an iterator."
        )
    check_learner(learner)
    learner.check_options(adapt_options)
    seed = check_seed(seed)
    check_metric(metric)
    if tasks is not None:
        tasks = check_count("tasks", tasks)
    episodes, scratch_steps = as_batches(episodes), check_count("scratch_steps", scratch_steps)
    model = model if model is not None else getattr(learner, "model", None)
    if model is not None:
        check_network(model)
        scratch = FromScratch(model, learner.task_loss, scratch_steps)
    nearest = None if encoder is None else PrototypicalNetwork(encoder)
    for reader in (learner, nearest):  # before anything is run
        for element in itertools.islice(episodes, 1) if reader else ():
            read_episode(reader, element, scored=True)
    results = {}
    try:
        unadapted = learner.unadapted()
    except NotImplementedError:
        pass
    else:
        results["no adaptation"] = score(
            lambda inputs: map_tasks(unadapted, inputs[2]), episodes, tasks, metric, learner
        )

    shuffle = keras.random.SeedGenerator(seed)

    def predict_shuffled(inputs):
        support_x, support_y, query_x = inputs
        order = tf.argsort(keras.random.uniform(tf.shape(support_y)[:2], seed=shuffle), axis=1)
        shuffled_y = tf.gather(support_y, order, axis=1, batch_dims=1)
        return learner((support_x, shuffled_y, query_x), **adapt_options)

    results["shuffled support labels"] = score(predict_shuffled, episodes, tasks, metric, learner)
    if model is not None:
        results["trained from scratch"] = score(scratch, episodes, tasks, metric)
    if nearest is not None:
        results["nearest centroid"] = score(nearest, episodes, tasks, metric, nearest)
    return results


class FromScratch:
    """Train a fresh copy of a model on each support set with Adam; predict the queries.

    The copies start from ten random initialisations in turn.

    Args:
        model: a Keras model that can be cloned, which a subclassed one cannot.
        task_loss: from targets and predictions of one task to a scalar.
        steps: of Adam.
        learning_rate: of Adam.
    """

    STARTS = 10

    def __init__(self, model, task_loss, steps=100, learning_rate=0.01):
        self.task_loss, self.steps, self.rule = task_loss, steps, AdamRule(learning_rate)
        self.model = model
        try:
            clones = [keras.models.clone_model(model) for _ in range(self.STARTS)]
        except (NotImplementedError, TypeError, ValueError) as error:
            raise ValueError(
                f"The model {model.name!r} cannot be cloned to be trained from scratch; pass a "
                f"Sequential or functional one as model=... ({error})"
            ) from error
        self.starts = [
            tf.stack([tf.convert_to_tensor(v) for v in values])
            for values in zip(*(c.trainable_variables for c in clones), strict=True)
        ]

    def __call__(self, inputs):
        support_x, support_y, query_x = inputs

        which = tf.range(tf.shape(support_x)[0]) % self.STARTS
        weights = [tf.gather(start, which) for start in self.starts]

        def of_task(task):
            weights, x, y = task
            return self.task_loss(y, predict_with(self.model, weights, x))

        def losses(weights, step):
            return map_tasks(of_task, (weights, support_x, support_y))

        weights, *_ = descend(self.rule, losses, weights, self.steps)
        return map_tasks(lambda task: predict_with(self.model, *task), (weights, query_x))
