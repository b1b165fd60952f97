"""iMAML: the meta-gradient from the end of the inner loop alone, not from its path."""

import keras
import tensorflow as tf

from mlutils.checks import check_count, check_positive
from mlutils.maml.maml import MAML
from mlutils.vectorize import map_tasks


@keras.saving.register_keras_serializable(package="mlutils")
class iMAML(MAML):
    """Implicit MAML (Rajeswaran, Finn, Kakade & Levine, NeurIPS 2019).

    The inner loop minimises the support loss *plus* ``strength / 2`` times the squared distance
    from theta (:eq:`eq-imaml-inner`).  At the minimum phi the meta-gradient is
    ``(I + H / strength)^-1`` times the query gradient (:eq:`eq-imaml-gradient`), with H the
    Hessian of the support loss at phi, whatever way led there; conjugate gradients solve for it
    with one Hessian-vector product each.  Memory does not grow with ``inner_steps``.

    The gradient is exact at a true minimum; ``inner_steps`` too few, or ``cg_steps`` too few,
    make it approximate.

    Args:
        model: as for ``MAML``.
        inner_lr: the step size of the inner loop.
        inner_steps: the number k of inner steps.
        strength: lambda, positive: how strongly the solution is held near theta.
        cg_steps: steps of conjugate gradients, at least 1.
        transductive: as for ``MAML``.

    Raises:
        TypeError, ValueError: as ``MAML``; ValueError if ``strength`` or ``cg_steps`` is out of
            range.
    """

    def __init__(
        self,
        model,
        inner_lr=0.01,
        inner_steps=10,
        strength=2.0,
        cg_steps=5,
        transductive=True,
        **kwargs,
    ):
        super().__init__(model, inner_lr, inner_steps, transductive=transductive, **kwargs)
        self.strength = check_positive("strength", strength)
        self.cg_steps = check_count("cg_steps", cg_steps)

    def adapted_weights(self, weights, support_x, support_y, steps=None):
        """The weights near ``weights`` that solve the task, by ``steps`` steps from there."""
        steps = self.inner_steps if steps is None else check_count("steps", steps, least=0)

        def proximal_step(step, solution):
            pull = [self.strength * (s - w) for s, w in zip(solution, weights, strict=True)]
            moved = self.inner_step(solution, support_x, support_y)
            return step + 1, [m - self.inner_lr * p for m, p in zip(moved, pull, strict=True)]

        return tf.while_loop(lambda step, _: step < steps, proximal_step, (0, weights))[1]

    def call(self, inputs, training=None, steps=None):
        """Adapt and predict as every learner, with the implicit gradient by theta."""
        support_x, support_y, query_x = self.three_tensors(inputs)

        @tf.custom_gradient
        def solutions(*theta):
            def solve(task):
                return self.adapted_weights(list(theta), *task, steps=steps)

            phi = map_tasks(solve, (support_x, support_y))

            def gradient(*vectors, variables=None):
                products = map_tasks(
                    lambda task: self.solve_linear(*task), (phi, support_x, support_y, vectors)
                )
                total = [tf.reduce_sum(product, 0) for product in products]
                return total if variables is None else (total, [None] * len(variables))

            return phi, gradient

        phi = solutions(*self.initialisation())
        return map_tasks(lambda task: self.predict_queries(*task), (phi, support_x, query_x))

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
                    loss = self.task_loss(support_y, self.predict_with(weights, support_x))
                gradients = inner.gradient(loss, weights, unconnected_gradients="zero")
                gradients = [tf.convert_to_tensor(g) for g in gradients]
            curved = outer.gradient(gradients, weights, direction, unconnected_gradients="zero")
            return [
                d + tf.convert_to_tensor(c) / self.strength
                for d, c in zip(direction, curved, strict=True)
            ]

        return conjugate_gradients(product, vectors, self.cg_steps)

    def get_config(self):
        config = super().get_config()
        del config["first_order"], config["learn_lr"]
        return {**config, "strength": self.strength, "cg_steps": self.cg_steps}


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
