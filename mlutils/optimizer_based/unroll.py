"""Running an update rule on a batch of functions, and training the rule through the run."""

import keras
import numpy as np
import tensorflow as tf

from mlutils.compiled import Graphs, as_graph
from mlutils.door.functions import check_function, check_rule_type, check_state, checked, read_theta
from mlutils.door.numbers import (
    check_count,
    check_flag,
    check_option,
    check_positive,
    check_seed,
)
from mlutils.door.tasks import as_tensor, check_ends, sizes_of, without_values
from mlutils.episodes import describe
from mlutils.inner_loop import descend
from mlutils.optimizer_based.estimators import EvolutionStrategy, PersistentEvolutionStrategy, Tape
from mlutils.workers import logs_for_keras, tasks_of_replica

GRADIENTS = ("tape", "es", "pes")
WEIGHTS = ("ones", "last", "increasing")


def unroll(rule, function, theta, steps, state=None, start=0, first_order=False):
    """Minimise a batch of functions with an update rule (:eq:`eq-update-rule`).

    Args:
        rule: an ``UpdateRule``, or any object with its ``initial_state`` and call.
        function: from ``(theta, step)`` to the functions' values, ``(functions,)``; ``step``, an
            int32 tensor, tells stochastic ones which mini-batch to use.
        theta: theta_0, ``(functions, coordinates)``.
        steps: T, at least 1.
        state: the rule's state to go on from; its initial one when None.
        start: the number of steps already taken.
        first_order: treat the gradients as constants: the derivative of a result by the rule's
            weights then lacks the path through them (:eq:`eq-unrolled-gradient`).

    Returns:
        ``(values, theta, state)``: f(theta_0) to f(theta_T), ``(steps + 1, functions)``; theta_T;
        the rule's state then.
    """
    steps, theta = check_count("steps", steps), read_theta(theta)
    first_order = check_flag("first_order", first_order)
    check_rule_type(rule)
    function = checked(function, theta)
    if not tf.is_tensor(start):
        start = check_count("start", start, least=0)
    if state is None:
        state = rule.initial_state(sizes_of(theta))
    check_state(state, rule, theta)

    record = tf.TensorArray(theta.dtype, size=steps + 1, element_shape=theta.shape[:1])
    (theta,), (state,), record = descend(
        rule,
        lambda weights, step: function(weights[0], start + step),
        [theta],
        steps,
        states=[state],
        first_order=first_order,
        record=record,
    )
    return record.write(steps, function(theta, start + tf.constant(steps))).stack(), theta, state


def step_weights(weights, steps):
    """The weights w_1 to w_T of the meta-loss (:eq:`eq-unrolled-objective`).

    Args:
        weights: "ones"; "last" for the last step only; "increasing" for t / T; or T numbers of
            at least 0.
        steps: T.

    Returns:
        float64 ``(steps,)``.
    """
    steps = check_count("steps", steps)
    if isinstance(weights, str):
        if weights not in WEIGHTS:
            raise ValueError(
                f"weights must be one of {WEIGHTS} or {steps} numbers, got {weights!r}."
            )
        time = np.arange(1.0, steps + 1)
        return {"ones": time**0, "last": 1.0 * (time == steps), "increasing": time / steps}[weights]
    numbers = as_tensor("weights", weights).numpy().astype(np.float64)
    if numbers.shape != (steps,) or not np.isfinite(numbers).all():
        raise ValueError(f"weights must be {steps} finite numbers, one a step, got {weights!r}.")
    if (numbers < 0).any() or not numbers.any():
        raise ValueError(f"weights must be at least 0 and not all 0, got {weights!r}.")
    return numbers


def check_problems(batch):
    """A batch ``(theta_0, problem)``; or a ValueError."""
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        raise ValueError(f"A batch of functions is (theta_0, problem), got {describe(batch)}.")
    return read_theta(batch[0]), batch[1]


class RuleTrainer(keras.Model):
    """Trains an update rule by gradient descent on :eq:`eq-unrolled-objective`.

    ``fit`` takes batches ``(theta_0, problem)`` of functions, as a family's ``problems``
    makes them; every batch is minimised once from its random theta_0, and theta is then thrown
    away: what is kept is the rule.  The logged loss is J, the mean over the batch of
    sum_t w_t f(theta_t), each segment at the weights that it was run with.  ``compile`` takes an
    optimizer only; the rule is saved by ``rule.save``.

    Args:
        rule: an ``UpdateRule``, trained in place.
        function: from ``(theta, problem, step)`` to values ``(functions,)``: a family's ``values``.
        steps: T, the length of a trajectory.
        truncation: cut trajectories into segments this long; the rule's weights are updated
            after each, and no gradient flows from one into the segment before it.  It must
            divide ``steps``; None for a single segment.
        weights: w_1 to w_T, as ``step_weights`` takes them.
        first_order: drop the path through the gradients, as Andrychowicz et al. (2016) do.
        gradient: "tape" differentiates each segment.  "es" compares rules with other weights on
            each segment (evolution strategies, :eq:`eq-es`), "pes" does so with rules that live on
            over all segments (persistent evolution strategies, :eq:`eq-pes`).  These two estimate
            the gradient of J smoothed over the weights (:eq:`eq-smoothed-objective`), need no
            memory for the run, and no derivatives of it; "pes" has no bias by truncation.
        sigma: for "es" and "pes", the standard deviation of the weights' moves.
        pairs: for these, how many pairs of opposite moves are tried.
        seed: for these, of the moves.

    Raises:
        TypeError: if ``rule`` is no rule, or ``function`` no function.
        ValueError: for what is said above to be otherwise; for "es" and "pes" of a rule without
            weights, or with ``first_order``.

    Example:
        >>> family = mlutils.data.Quadratics(dimension=2)
        >>> trainer = mlutils.RuleTrainer(mlutils.StepSize(0.0), family.values, steps=5)
        >>> loss, (slope,) = trainer.meta_gradients(next(iter(family.problems(8))))
        >>> bool(slope < 0)  # a step size above 0 would be better
        True
    """

    def __init__(
        self,
        rule,
        function,
        steps=100,
        truncation=None,
        weights="ones",
        first_order=False,
        gradient="tape",
        sigma=0.01,
        pairs=4,
        seed=0,
        **kwargs,
    ):
        kwargs.setdefault("dtype", keras.config.floatx())  # as for rules: no mixed policy
        super().__init__(autocast=False, **kwargs)
        check_rule_type(rule)
        check_function(function)
        self.rule, self.function = rule, function
        self.steps = check_count("steps", steps)
        self.truncation = check_count("truncation", steps if truncation is None else truncation)
        if self.steps % self.truncation:
            raise ValueError(
                f"truncation must divide steps, got truncation={truncation}, steps={steps}."
            )
        self.weights_of_steps = step_weights(weights, self.steps)
        segments = self.weights_of_steps.reshape(-1, self.truncation)
        if not segments.any(axis=1).all():
            raise ValueError(
                f"With weights={weights!r} and truncation={self.truncation} a whole segment has "
                "weight 0, and nothing would be learned from it: use a longer truncation, or None."
            )
        self.first_order = check_flag("first_order", first_order)
        self.gradient = check_option("gradient", gradient, GRADIENTS)
        sigma, pairs = check_positive("sigma", sigma), check_count("pairs", pairs)
        seed = check_seed(seed)
        if self.gradient == "tape":
            self.estimator, self.seeds = Tape(self), None
        elif self.first_order or not rule.trainable_variables:
            raise ValueError(
                f"gradient={gradient!r} needs a rule with weights and first_order=False: it "
                f"differentiates nothing. The rule has {len(rule.trainable_variables)} weights, "
                f"first_order is {first_order}."
            )
        else:
            kind = EvolutionStrategy if gradient == "es" else PersistentEvolutionStrategy
            self.estimator = kind(self, sigma, pairs)
            self.seeds = keras.random.SeedGenerator(seed)
        self.tracker = keras.metrics.Mean(name="loss")
        self.graphs, self.built = Graphs(), True

    @property
    def metrics(self):
        return [self.tracker]

    def segment_loss(self, theta, problem, state, start):
        """J's part from the segment of ``truncation`` steps after ``start``; then theta, state."""
        values, theta, state = unroll(
            self.rule,
            lambda theta, step: self.function(theta, problem, step),
            theta,
            self.truncation,
            state,
            start,
            self.first_order,
        )
        weights = tf.constant(self.weights_of_steps, theta.dtype)
        weights = tf.slice(weights, [start], [self.truncation])
        return tf.tensordot(weights, tf.reduce_mean(values[1:], axis=1), 1), theta, state

    def over_segments(self, batch, carried, one_segment, total):
        """Go along a trajectory segment by segment, adding up what ``one_segment`` returns.

        Args:
            batch: ``(theta_0, problem)``.
            carried: what the first segment begins with.
            one_segment: from what is carried, the problem and the number of steps taken to a part
                of the total, and what is carried on.
            total: what it is added to.
        """
        problem = batch[1]

        def body(start, total, carried):
            part, carried = one_segment(carried, problem, start)
            total = tf.nest.map_structure(tf.add, total, part)
            return start + self.truncation, total, carried

        loop = (tf.constant(0), total, carried)
        if tf.distribute.get_strategy().num_replicas_in_sync > 1:
            # TensorFlow adds up nothing over replicas within a while loop.
            for _ in range(0, self.steps, self.truncation):
                loop = body(*loop)
            return loop[1]
        return tf.while_loop(lambda start, *_: start < self.steps, body, loop)[1]

    def beginning(self, batch):
        """theta_0 and the rule's state h_0."""
        theta = tf.convert_to_tensor(batch[0])
        return theta, self.rule.initial_state(sizes_of(theta))

    def next_seed(self):
        """Of the moves along one trajectory; nothing for a tape."""
        return None if self.seeds is None else tf.cast(self.seeds.next(), tf.int64)

    def settings(self):
        """What a graph takes for constant and a user may change."""
        trainable = [id(variable) for variable in self.rule.trainable_variables]
        weights = self.weights_of_steps.tolist()
        plain = self.steps, self.truncation, self.first_order, weights, self.estimator
        return plain, self.function, id(self.rule), trainable

    def fit(self, x=None, *others, **options):
        """Keras's; what is wrong with the data raises a ValueError before training begins.

        Args:
            x: a dataset of batches ``(theta_0, problem)``.
            *others: of Keras.
            **options: of Keras.
        """
        if not isinstance(x, tf.data.Dataset):
            raise TypeError(
                "fit takes a dataset of (theta_0, problem), such as a family's problems(); got "
                f"{describe(x)}."
            )
        check_ends(x, options.get("steps_per_epoch"), "steps_per_epoch")
        without_values(check_problems)(x.element_spec)
        tasks_of_replica(self, x)
        return super().fit(x, *others, **options)

    def evaluate(self, x=None, *others, **options):
        """Keras's, of data as for ``fit``."""
        if isinstance(x, tf.data.Dataset):
            check_ends(x, options.get("steps"), "steps")
        return super().evaluate(x, *others, **options)

    def meta_loss(self, batch):
        """J of a batch (:eq:`eq-unrolled-objective`), a scalar."""
        return self.loss_of(check_problems(batch))

    @as_graph
    def loss_of(self, batch):
        """``meta_loss`` of tensors."""

        def one_segment(carried, problem, start):
            loss, *carried = self.segment_loss(carried[0], problem, carried[1], start)
            return loss, tuple(carried)

        zero = tf.zeros((), batch[0].dtype)
        return self.over_segments(batch, self.beginning(batch), one_segment, zero)

    def meta_gradients(self, batch):
        """J of a batch, and its gradient by the rule's weights (:eq:`eq-unrolled-gradient`).

        For one step of gradient descent that is :eq:`eq-step-size-gradient`.

        With ``truncation`` it is the sum of the segments' gradients, all at the present weights.
        By "es" and "pes" it is an estimate, another one with each call.

        Returns:
            ``(loss, gradients)``: a scalar, and a list aligned with the rule's
            ``trainable_variables``.
        """
        return self.loss_and_gradients(check_problems(batch))

    @as_graph
    def loss_and_gradients(self, batch):
        """``meta_gradients`` of tensors."""
        seed = self.next_seed()

        def one_segment(*arguments):
            loss, gradients, carried = self.estimator.segment(*arguments, seed)
            return (loss, gradients), carried

        zeros = [tf.zeros_like(v) for v in self.rule.trainable_variables]
        total = (tf.zeros((), batch[0].dtype), zeros)
        carried = self.estimator.begin(*self.beginning(batch))
        return self.over_segments(batch, carried, one_segment, total)

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        """Nothing: a rule has its weights from the start, and Keras takes no problem apart."""

    def train_step(self, batch):
        variables = self.rule.trainable_variables
        self.optimizer.build(variables)  # its variables cannot be made inside the loop
        seed = self.next_seed()
        replicas = self.distribute_strategy.num_replicas_in_sync

        def one_segment(*arguments):
            loss, gradients, carried = self.estimator.segment(*arguments, seed)
            gradients = [self.optimizer.scale_loss(g) for g in gradients]  # apply undoes it,
            gradients = [g / replicas for g in gradients]  # and adds up those of all replicas
            self.optimizer.apply(gradients, variables)
            return loss, carried

        zero = tf.zeros((), batch[0].dtype)
        carried = self.estimator.begin(*self.beginning(batch))
        self.tracker.update_state(self.over_segments(batch, carried, one_segment, zero))
        return logs_for_keras({"loss": self.tracker.result()})

    def test_step(self, batch):
        self.tracker.update_state(self.loss_of(batch))
        return logs_for_keras({"loss": self.tracker.result()})
