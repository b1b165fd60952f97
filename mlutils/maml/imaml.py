"""iMAML: the meta-gradient from the end of the inner loop alone, not from its path."""

import keras
import tensorflow as tf

from mlutils.compiled import as_graph
from mlutils.door.numbers import check_count, check_positive
from mlutils.inner_loop import check_fixed, map_weights
from mlutils.maml.maml import MAML
from mlutils.vectorize import map_tasks


@keras.saving.register_keras_serializable(package="mlutils")
class iMAML(MAML):
    """Implicit MAML (Rajeswaran, Finn, Kakade & Levine, NeurIPS 2019).

    The inner loop minimises the support loss *plus* ``strength / 2`` times the squared distance
    from theta (:eq:`eq-imaml-inner`).  At the minimum the meta-gradient is
    ``(I + H / strength)^-1`` times the query gradient (:eq:`eq-imaml-gradient`), with H the
    Hessian of the support loss there, whatever way led there; conjugate gradients solve for it
    with one Hessian-vector product each.  Memory does not grow with ``inner_steps``.

    The gradient is exact at a true minimum; ``inner_steps`` too few, or ``cg_steps`` too few,
    make it approximate.

    Args:
        model: as for ``MAML``.
        inner_lr: the step size of the inner loop.
        inner_steps: the number k of inner steps.
        strength: lambda, positive: how strongly the solution is held near theta.
        cg_steps: steps of conjugate gradients, at least 1.
        transductive, rule: as for ``MAML``; a rule without weights of its own.

    Example:
        >>> layer = keras.layers.Dense(1, kernel_initializer="zeros")
        >>> model = keras.Sequential([keras.Input((1,)), layer])
        >>> learner = mlutils.iMAML(model, inner_lr=0.25, inner_steps=20, strength=2.0)
        >>> learner.compile(loss="mse")
        >>> predict = learner.adapt([[1.0]], [[2.0]])
        >>> print(predict([[1.0]]).numpy().round(2))  # the pull keeps it below 2
        [[1.33]]
    """

    def __init__(
        self,
        model,
        inner_lr=0.01,
        inner_steps=10,
        strength=2.0,
        cg_steps=5,
        transductive=True,
        rule=None,
        **kwargs,
    ):
        super().__init__(model, inner_lr, inner_steps, False, rule, transductive, False, **kwargs)
        check_fixed(self.rule, "iMAML")
        self.strength = check_positive("strength", strength)
        self.cg_steps = check_count("cg_steps", cg_steps)

    def descend(self, loss, theta, steps=None, tasks=None):
        """As ``MAML``, down the loss with the pull toward theta."""

        def held(weights, step, *task):
            pairs = zip(weights, theta, strict=True)
            pull = tf.add_n([tf.reduce_sum(tf.square(w - t)) for w, t in pairs])
            return loss(weights, step, *task) + self.strength / 2 * pull

        return super().descend(held, theta, steps, tasks)

    @as_graph
    def solve(self, support_x, support_y, query_x, steps=None):
        """As ``MAML``, with the implicit gradient by theta."""

        @tf.custom_gradient
        def solutions(*theta):
            phi = self.descend(self.support_loss, list(theta), steps, (support_x, support_y))

            def gradient(*vectors, variables=None):
                products = map_tasks(
                    lambda task: self.solve_linear(*task), (phi, support_x, support_y, vectors)
                )
                total = [tf.reduce_sum(product, 0) for product in products]
                return total if variables is None else (total, [None] * len(variables))

            return phi, gradient

        theta = self.initialisation()
        return map_weights(self.predict_queries, solutions(*theta), theta, (support_x, query_x))

    def solve_linear(self, weights, support_x, support_y, vectors):
        """``(I + H / strength)^-1`` times ``vectors``, for one task (:eq:`eq-imaml-gradient`).

        Args:
            weights: the task's solution, a list of tensors like the model's trainable variables.
            support_x, support_y: ``(S, ...)``.
            vectors: a list of tensors like ``weights``.

        Returns:
            A list of tensors like ``weights``.
        """

        def product(direction):
            with tf.GradientTape() as outer:
                outer.watch(weights)
                with tf.GradientTape() as inner:
                    inner.watch(weights)
                    loss = self.support_loss(weights, 0, support_x, support_y)
                gradients = inner.gradient(loss, weights, unconnected_gradients="zero")
                gradients = [tf.convert_to_tensor(g) for g in gradients]
            curved = outer.gradient(gradients, weights, direction, unconnected_gradients="zero")
            return [
                d + tf.convert_to_tensor(c) / self.strength
                for d, c in zip(direction, curved, strict=True)
            ]

        return conjugate_gradients(product, vectors, self.cg_steps)

    def get_config(self):
        config = {**super().get_config(), "strength": self.strength, "cg_steps": self.cg_steps}
        del config["first_order"], config["recompute"]
        return config


def conjugate_gradients(product, vectors, steps):
    """Solve ``A x = vectors`` from x = 0 by conjugate gradients (Hestenes & Stiefel, 1952).

    Args:
        product: from a list of tensors to A times it; A is symmetric and positive definite.
            Where it is not, no step is taken along a direction of negative curvature, the next
            ones lean to the residual, and the result solves nothing exactly.
        vectors: list of tensors.
        steps: how many; a solution found earlier stays as it is.

    Returns:
        List of tensors like ``vectors``.
    """

    def dot(a, b):
        return tf.add_n([tf.reduce_sum(x * y) for x, y in zip(a, b, strict=True)])

    def add(a, factor, b):
        return [x + factor * y for x, y in zip(a, b, strict=True)]

    vectors = [tf.convert_to_tensor(v) for v in vectors]
    solution = [tf.zeros_like(v) for v in vectors]
    residual = direction = vectors
    for _ in range(steps):
        along = product(direction)
        size = dot(residual, residual)
        curvature = tf.maximum(dot(direction, along), 0)  # if negative: no step this way
        stride = tf.math.divide_no_nan(size, curvature)
        solution = add(solution, stride, direction)
        residual = add(residual, -stride, along)
        turn = tf.math.divide_no_nan(dot(residual, residual), size)
        direction = add(residual, turn, direction)
    return solution
