"""Meta-SGD: MAML that learns a step size, and a direction, for each weight."""

import keras

from mlutils.inner_loop import StepSize
from mlutils.maml.maml import MAML


@keras.saving.register_keras_serializable(package="mlutils")
class MetaSGD(MAML):
    """Meta-SGD (Li, Zhou, Chen & Li, 2017): MAML with one learned alpha per weight.

    The inner step multiplies the gradient by a vector that is meta-trained together with theta
    (:eq:`eq-meta-sgd`): a ``StepSize`` of its shape for every trainable weight.  Nothing keeps
    the alphas positive.  The paper takes one inner step.

    Args:
        model: as for ``MAML``; a weight that is frozen now gets no alpha.
        inner_lr: where each alpha begins.
        inner_steps: the number k of inner steps, which share the alphas.
        first_order: drop the second derivatives; the alphas are learned all the same.
        transductive, recompute: as for ``MAML``.

    Example:
        >>> layer = keras.layers.Dense(1, kernel_initializer="zeros")
        >>> model = keras.Sequential([keras.Input((1,)), layer])
        >>> learner = mlutils.MetaSGD(model, inner_lr=0.25)
        >>> learner.compile(loss="mse")
        >>> learner.adapt([[1.0]], [[2.0]])([[3.0]]).numpy().tolist()
        [[4.0]]
        >>> len(learner.trainable_variables)  # kernel, bias, and a step size for each
        4
    """

    networks = ("model",)

    def __init__(
        self, model, inner_lr=0.01, inner_steps=1, first_order=False, transductive=True, **kwargs
    ):
        super().__init__(model, inner_lr, inner_steps, first_order, None, transductive, **kwargs)
        dtype = model.trainable_variables[0].dtype
        self.step_sizes = [
            StepSize(self.inner_lr, tuple(v.shape), dtype=dtype) for v in model.trainable_variables
        ]
        # Not a dict from the one to the other, which Keras would track and could not export.
        self.stepped = tuple(id(v) for v in model.trainable_variables)

    def rules(self):
        """Each weight's own ``StepSize``, whichever others are frozen."""
        variables = self.model.trainable_variables
        step_size_of = dict(zip(self.stepped, self.step_sizes, strict=True))
        if new := [v.path for v in variables if id(v) not in step_size_of]:
            raise ValueError(
                f"The weights {new} were frozen when this learner was made and have no alpha: "
                "make it anew, with them trainable."
            )
        return [step_size_of[id(v)] for v in variables]
