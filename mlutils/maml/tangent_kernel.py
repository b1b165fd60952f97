"""The tangent kernel: how far one gradient step on one example moves another's prediction."""

import tensorflow as tf

from mlutils.door.networks import check_adaptable
from mlutils.door.tasks import as_inputs, fits, one_input, shape_of
from mlutils.networks import normalises, predict_with
from mlutils.vectorize import map_tasks


def tangent_kernel(model, x, x2=None):
    """Inner products of a model's gradients by its weights (:eq:`eq-tangent-kernel`).

    An inner step on a mean squared error moves predictions, to first order in its step size, by
    sums of the kernel and the residuals (:eq:`eq-one-step-kernel`).
    Held at one time are ``n + m`` gradients, each as long as the model has trainable weights.

    Args:
        model: a built Keras model with one output; its trainable weights count.  Not allowed is
            ``BatchNorm``, where a prediction depends on the examples beside it.
        x: inputs ``(n, ...)``.
        x2: inputs ``(m, ...)``; ``x`` when None.

    Returns:
        A tensor ``(n, m)``.

    Raises:
        ValueError: if the model has several outputs, a ``BatchNorm`` or nothing to train; if the
            inputs do not fit it.
    """
    check_adaptable(model, first_order=True)
    if normalises(model):
        raise ValueError(f"The model {model.name!r} holds a BatchNorm: no example is alone in it.")
    outputs = shape_of(model, "output_shape")
    if outputs is not None and tuple(outputs[1:]) not in ((), (1,)):
        raise ValueError(f"The model gives {outputs[1:]} numbers for an example; allowed is one.")

    def gradient(x):
        weights = [tf.convert_to_tensor(v) for v in model.trainable_variables]
        with tf.GradientTape() as tape:
            tape.watch(weights)
            prediction = predict_with(model, weights, x[tf.newaxis])
        found = tape.gradient(prediction, weights, unconnected_gradients="zero")
        return tf.concat([tf.reshape(g, [-1]) for g in found], 0)

    def gradients(name, x):
        x, one = as_inputs(name, x, model.compute_dtype, model), one_input(model)
        if 0 in x.shape[:1] or (one is not None and not fits(x.shape[1:], one)):
            raise ValueError(f"{name} has shape {x.shape}; allowed is n examples, {(None, *one)}.")
        return map_tasks(gradient, x)

    rows = gradients("x", x)
    return tf.matmul(rows, rows if x2 is None else gradients("x2", x2), transpose_b=True)
