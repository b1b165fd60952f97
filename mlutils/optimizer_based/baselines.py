"""What a learned optimizer is compared with: Keras's own, at their best step sizes."""

import keras
import numpy as np
import tensorflow as tf

from mlutils.door.functions import check_optimizer, checked, read_theta
from mlutils.door.numbers import check_count, check_rate


def run_optimizer(optimizer, function, theta, steps, rates=None):
    """Minimise a batch of functions with a Keras optimizer, once for every step size.

    Args:
        optimizer: a ``keras.optimizers.Optimizer`` that was not used before.  All functions share
            it, so it must treat each coordinate by itself, as SGD, RMSprop and Adam do; Adafactor,
            Lamb, Muon and clipping by a norm do not.
        function: from ``(theta, step)`` to values ``(functions,)``, as for ``unroll``.
        theta: theta_0, ``(functions, coordinates)``.
        steps: T, at least 1.
        rates: the step sizes to try; the optimizer's own one when None.  Of an optimizer with a
            schedule, what the schedule is multiplied by.

    Returns:
        float64 ``(rates, steps + 1, functions)``: f(theta_0) to f(theta_T), infinite from where a
        run stopped being finite.
    """
    steps, theta = check_count("steps", steps), read_theta(theta)
    check_optimizer(optimizer)
    function = checked(function, theta)
    function(theta, tf.constant(0))  # a wrong function is better told of outside a graph
    rates = [None] if rates is None else check_rates(rates)
    variable, factor = tf.Variable(theta), tf.Variable(1.0)
    optimizer.build([variable])
    initial = [v.numpy() for v in optimizer.variables]
    schedule = isinstance(optimizer._learning_rate, keras.optimizers.schedules.LearningRateSchedule)

    def update(gradients, variables, rate):
        for gradient, v in zip(gradients, variables, strict=True):
            optimizer.update_step(gradient, v, rate * tf.cast(factor, v.dtype))

    # Keras's own goes through tf.distribute, which keeps each graph that it was traced in.
    optimizer._backend_update_step = update

    def run():
        record = tf.TensorArray(variable.dtype, size=steps + 1)
        for step in tf.range(steps):
            with tf.GradientTape() as tape:
                value = function(tf.convert_to_tensor(variable), step)
                loss = optimizer.scale_loss(value)
            optimizer.apply([tape.gradient(loss, variable)], [variable])
            record = record.write(step, value)
        return record.write(
            steps, function(tf.convert_to_tensor(variable), tf.constant(steps))
        ).stack()

    run = tf.function(run).get_concrete_function()
    runs = []
    for rate in rates:
        variable.assign(theta)
        for v, value in zip(optimizer.variables, initial, strict=True):
            v.assign(value)
        if rate is not None and schedule:
            factor.assign(rate)
        elif rate is not None:
            optimizer.learning_rate = rate
        runs.append(run().numpy().astype(np.float64))
    runs = np.stack(runs)
    finite = np.logical_and.accumulate(np.isfinite(runs), axis=1)
    return np.where(finite, runs, np.inf)


def check_rates(rates):
    """Step sizes as a list of floats, at least one, each at least 0."""
    if not hasattr(rates, "__iter__") or isinstance(rates, (str, bytes, dict)):
        raise ValueError(f"rates must be a list of step sizes or None, got {rates!r}.")
    rates = [check_rate("rates", rate) for rate in rates]
    if not rates:
        raise ValueError("rates must hold at least one step size, got none.")
    return rates
