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
        transductive: as for ``MAML``.
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
        pairs = zip(model.trainable_variables, self.step_sizes, strict=True)
        self.step_size_of = {id(variable): step_size for variable, step_size in pairs}

    def rules(self):
        """Each weight's own ``StepSize``, whichever others are frozen."""
        variables = self.model.trainable_variables
        if new := [v.path for v in variables if id(v) not in self.step_size_of]:
            raise ValueError(
                f"The weights {new} were frozen when this learner was made and have no alpha: "
                "make it anew, with them trainable."
            )
        return [self.step_size_of[id(v)] for v in variables]
