"""The inner loop: weights go down a loss by an update rule, in MAML as in a learned optimizer."""

import keras
import tensorflow as tf

from mlutils.door.functions import check_function, check_rule_type
from mlutils.door.numbers import check_count, check_finite, check_flag
from mlutils.door.tasks import as_tensor, sizes_of
from mlutils.vectorize import map_tasks

UNROLLED = 5  # more steps become a loop of the graph: as quick to trace, however many they are


def descend(
    rule,
    loss,
    theta,
    steps,
    tasks=None,
    *,
    states=None,
    first_order=False,
    record=(),
    recompute=False,
):
    """Take steps ``theta_t = theta_{t-1} + g_t`` down a loss (:eq:`eq-update-rule`).

    Nothing is assigned: the new weights are a function of the old ones and of the rule, and an
    outer tape can differentiate them.

    Args:
        rule: an ``UpdateRule``, or whatever has its ``initial_state`` and call; or a list with one
            for each weight, None where it is to stay as it is.
        loss: from ``(weights, step, *task)`` to a number, or to some whose sum counts; ``step``
            from 0.
        theta: a list of tensors, the weights to begin with.
        steps: how many, 0 or more.
        tasks: a tuple of tensors with a leading axis of tasks, each of which goes its own way from
            theta; or None, for a loss without a task.
        states: the rule's state for each weight to go on from; its initial ones when None.
        first_order: treat the gradients as constants.
        record: a ``tf.TensorArray`` that gets the loss before each step, if wanted.
        recompute: in a graph, keep nothing of each step after the first but the weights and states
            that it began with, and take it once more when the gradient is asked for, so that the
            memory for it hardly grows with the steps; without ``record``.  Tensors that ``loss``
            holds, other than its arguments, then get no gradient, and what it draws at random is
            drawn anew.

    Returns:
        ``(weights, states, record)`` after the last step.  Weights that moved have a leading axis
        of tasks, if there are tasks.
    """
    steps, recompute = check_count("steps", steps, least=0), check_flag("recompute", recompute)
    first_order = check_flag("first_order", first_order)
    rules = rule if isinstance(rule, list) else [rule] * len(theta)
    if len(rules) != len(theta):
        raise ValueError(f"rule holds {len(rules)} rules, and there are {len(theta)} weights.")
    for rule in rules:
        if rule is not None:
            check_rule_type(rule)
    check_function(loss, "loss")
    moving = [i for i, rule in enumerate(rules) if rule is not None]

    if recompute and isinstance(record, tf.TensorArray):
        raise ValueError("recompute=True keeps no record of the losses.")

    def move(index, weights, states, tasks):
        """The loss before a step, and the weights and the states after it."""

        def slopes(weights, *task):
            """The loss and its gradients by the weights that move."""
            with tf.GradientTape() as tape:
                tape.watch([weights[i] for i in moving])
                value = as_tensor("what the loss returns", loss(weights, index, *task))
            sources = [weights[i] for i in moving]
            gradients = tape.gradient(value, sources, unconnected_gradients="zero")
            return value, [tf.convert_to_tensor(g) for g in gradients]  # an Embedding's is sparse

        value, gradients = map_weights(slopes, weights, theta, tasks or None)
        if first_order:
            gradients = [tf.stop_gradient(g) for g in gradients]
        if states is None:
            states = [
                rules[i].initial_state(sizes_of(g)) for i, g in zip(moving, gradients, strict=True)
            ]
        weights, states = list(weights), list(states)
        for n, (i, gradient) in enumerate(zip(moving, gradients, strict=True)):
            update, states[n] = rules[i](gradient, states[n])
            weights[i] = weights[i] + update
        return value, weights, states

    def step(index, weights, states, record):
        value, weights, states = move(index, weights, states, tasks)
        if isinstance(record, tf.TensorArray):
            record = record.write(index, value)
        return index + 1, weights, states, record

    loop = (tf.constant(0), list(theta), states, record)
    # The first step is no part of a graph's loop: it gives weights their axis of tasks, and states.
    first = int(states is None or tasks is not None)
    in_a_loop = steps > (first if recompute else UNROLLED)
    for _ in range(first if in_a_loop else steps):
        loop = step(*loop)
    if in_a_loop and recompute:
        return *loop_again(move, *loop[:3], steps, tasks), record
    if in_a_loop:
        loop = tf.while_loop(lambda i, *_: i < steps, step, loop, maximum_iterations=steps)
    return loop[1:]


def loop_again(move, first, weights, states, steps, tasks):
    """The inner loop from the step ``first`` on; its gradient takes each step once more.

    Nothing is kept of a step but what it began with.  The way back goes from the last step to the
    first.
    """
    structure = (list(weights), list(states)), tasks or ()

    @tf.custom_gradient
    def run(*flat):
        begin, tasks = tf.nest.pack_sequence_as(structure, flat)

        def after(index, now, tasks):
            """What a step that begins with some weights and states ends with."""
            return move(index, *now, tasks)[1:]

        def forward(index, now, kept):
            kept = [k.write(index, x) for k, x in zip(kept, tf.nest.flatten(now), strict=True)]
            return index + 1, after(index, now, tasks), kept

        kept = [
            tf.TensorArray(x.dtype, steps, clear_after_read=False) for x in tf.nest.flatten(begin)
        ]
        loop = tf.while_loop(lambda i, *_: i < steps, forward, (first, begin, kept))
        _, end, kept = loop

        def gradient(*upstream, variables=None):
            variables, given = variables or [], flat[len(kept) :]
            real = [i for i, x in enumerate(flat[: len(kept)]) if x.dtype.is_floating]
            slopes = [tf.zeros_like(flat[i]) if upstream[i] is None else upstream[i] for i in real]
            slopes = [tf.convert_to_tensor(slope) for slope in slopes]  # a gather's is sparse

            def backward(index, slopes, sums):
                now, tasks = [k.read(index) for k in kept], [tf.identity(x) for x in given]
                moving, floats = [now[i] for i in real], [x for x in tasks if x.dtype.is_floating]
                with tf.GradientTape() as tape:
                    tape.watch((moving, floats))
                    ends = after(index, *tf.nest.pack_sequence_as(structure, [*now, *tasks]))
                    ends = tf.nest.flatten(ends)
                found = tape.gradient(
                    [ends[i] for i in real],
                    (moving, [*floats, *variables]),
                    slopes,
                    unconnected_gradients="zero",
                )
                return index - 1, found[0], [a + b for a, b in zip(sums, found[1], strict=True)]

            sums = [tf.zeros_like(x) for x in (*given, *variables) if x.dtype.is_floating]
            loop = (steps - 1, slopes, sums)
            loop = tf.while_loop(lambda i, *_: i >= first, backward, loop, parallel_iterations=1)
            _, slopes, sums = loop
            slopes, sums = iter(slopes), iter(sums)
            found = [next(slopes) if i in real else None for i in range(len(kept))]
            found += [next(sums) if x.dtype.is_floating else None for x in given]
            return (found, list(sums)) if variables else found

        return end, gradient

    return run(*tf.nest.flatten(structure))


def map_weights(function, weights, theta, tasks):
    """``function(weights, *task)`` for each task, which has weights of its own but where it shares.

    Args:
        function: from a list of weights and the tensors of a task to tensors.
        weights: like ``theta``, with a leading axis of tasks where each has its own.
        theta: a list of tensors.
        tasks: a tuple of tensors with a leading axis of tasks; or None, and there is one function.
    """
    if tasks is None:
        return function(weights)
    own = [
        i
        for i, (w, t) in enumerate(zip(weights, theta, strict=True))
        if w.shape.rank > t.shape.rank
    ]

    def one_task(task):
        mine = list(weights)
        for i, weight in zip(own, task[0], strict=True):
            mine[i] = weight
        return function(mine, *task[1])

    return map_tasks(one_task, ([weights[i] for i in own], tasks))


class UpdateRule(keras.Model):
    """What a learned optimizer learns: theta_t = theta_{t-1} + g_t (:eq:`eq-update-rule`).

    A subclass defines ``initial_state`` and ``call``, both pure: the state goes in and comes
    out, nothing is assigned.  The rule's weights, ``trainable_variables``, are the
    meta-parameters phi; make them in ``__init__``.  ``save(path)`` and
    ``keras.saving.load_model(path)`` keep a rule whose class is registered with Keras and has a
    ``get_config``.

    Example:
        >>> class SignDescent(mlutils.UpdateRule):
        ...     def initial_state(self, shape):
        ...         return ()
        ...     def call(self, gradient, state):
        ...         return -0.1 * tf.sign(gradient), state
        ...
        >>> update, state = SignDescent()(tf.constant([3.0, -0.5]), ())
        >>> print(update.numpy().round(2))
        [-0.1  0.1]
    """

    def __init__(self, **kwargs):
        # Gradients span more than float16 can: a mixed policy is not for rules.
        kwargs.setdefault("dtype", keras.config.floatx())
        super().__init__(autocast=False, **kwargs)

    def initial_state(self, shape):
        """The state h_0 before any gradient was seen.

        Args:
            shape: of the gradients to come.

        Returns:
            A tuple of tensors, maybe empty.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define initial_state.")

    def call(self, gradient, state):
        """One step of the rule.

        Args:
            gradient: of any shape.
            state: as ``initial_state`` and earlier calls gave it.

        Returns:
            ``(update, state)``: what to *add* to the parameters, of the gradient's shape, and
            the new state.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define call.")


class GradientDescent:
    """The rule ``-alpha * gradient`` with a number for alpha, which nothing learns."""

    def __init__(self, alpha):
        self.alpha = alpha

    def initial_state(self, shape):
        return ()

    def __call__(self, gradient, state=()):
        return -self.alpha * gradient, state


def check_rule(rule, model):
    """Raise if a rule is none, or not for a model's weights."""
    if rule is None:
        return
    if not isinstance(rule, UpdateRule):
        raise TypeError(f"rule must be an mlutils.UpdateRule or None, got {type(rule).__name__}.")
    shape = rule.shape if isinstance(rule, StepSize) else ()
    for weight in model.trainable_variables if shape else ():
        if weight.shape[-len(shape) :] != shape:
            raise ValueError(
                f"The rule has step sizes of shape {shape}, one of each coordinate, and the model "
                f"a weight of shape {weight.shape}: take coordinates=None, or MetaSGD."
            )
    if rule.compute_dtype != model.trainable_variables[0].dtype:
        raise ValueError(
            f"The rule computes in {rule.compute_dtype} and the model's weights are "
            f"{model.trainable_variables[0].dtype}: make the rule with dtype=... of the weights."
        )


def check_fixed(rule, name):
    """Raise if a rule has weights, which the learner ``name`` would not train."""
    if rule is not None and rule.trainable_variables:
        raise ValueError(
            f"{name} does not differentiate through its inner loop and cannot train a rule: take "
            "one without weights, such as MomentumRule or AdamRule, or MAML."
        )


@keras.saving.register_keras_serializable(package="mlutils")
class StepSize(UpdateRule):
    """Gradient descent whose step size is learned: ``-alpha * gradient`` (:eq:`eq-step-size`).

    Args:
        initial: alpha before meta-training, a finite number.
        coordinates: None for one step size; a number n for one of each of the n coordinates
            (the last axis of the gradients), or a shape, that of the gradients' last axes.
        steps: None for the same alpha at every step; a number n for one of each of the first n
            steps (Antoniou et al., 2019), of which later ones take the last.

    Example:
        >>> rule = mlutils.StepSize(0.5)
        >>> update, state = rule(tf.constant([2.0, -4.0]), rule.initial_state((2,)))
        >>> print(update.numpy())
        [-1.  2.]
    """

    def __init__(self, initial=0.01, coordinates=None, steps=None, **kwargs):
        super().__init__(**kwargs)
        self.initial = check_finite("initial", initial)
        shape = () if coordinates is None else coordinates
        shape = shape if isinstance(shape, (tuple, list)) else (shape,)
        self.shape = tuple(check_count("coordinates", size) for size in shape)
        self.coordinates = coordinates
        self.steps = None if steps is None else check_count("steps", steps)
        self.alpha = self.add_weight(
            shape=self.shape if steps is None else (steps, *self.shape),
            initializer=lambda shape, dtype: tf.fill(shape, tf.constant(self.initial, dtype)),
            name="alpha",
        )
        self.built = True

    def initial_state(self, shape):
        """Which step comes next, where each has an alpha of its own."""
        return () if self.steps is None else (tf.constant(0),)

    def call(self, gradient, state=()):
        last = gradient.shape[len(gradient.shape) - len(self.shape) :]
        if not last.is_compatible_with(self.shape):
            raise ValueError(
                f"The rule has {self.coordinates} step sizes, one of each coordinate; the "
                f"gradient has shape {tuple(gradient.shape)}, whose last axis must be that long."
            )
        if self.steps is None:
            return -self.alpha * gradient, state
        alpha = tf.gather(tf.convert_to_tensor(self.alpha), tf.minimum(state[0], self.steps - 1))
        return -alpha * gradient, (state[0] + 1,)

    def get_config(self):
        return {
            **super().get_config(),
            "initial": self.initial,
            "coordinates": self.coordinates,
            "steps": self.steps,
        }
