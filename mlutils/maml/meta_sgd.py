"""Meta-SGD: MAML that learns a step size, and a direction, for each weight."""

import keras

from mlutils.maml.maml import MAML


@keras.saving.register_keras_serializable(package="mlutils")
class MetaSGD(MAML):
    """Meta-SGD (Li, Zhou, Chen & Li, 2017): MAML with one learned alpha per weight.

    The inner step multiplies the gradient by a vector that is meta-trained together with theta
    (:eq:`eq-meta-sgd`).  The paper takes one inner step.

    Args:
        model: as for ``MAML``.
        inner_lr: where each alpha begins.
        inner_steps: the number k of inner steps, which share the alphas.
        first_order: drop the second derivatives; the alphas are learned all the same.
        transductive: as for ``MAML``.

    Raises:
        TypeError, ValueError: as ``MAML``.
    """

    def __init__(
        self, model, inner_lr=0.01, inner_steps=1, first_order=False, transductive=True, **kwargs
    ):
        super().__init__(
            model, inner_lr, inner_steps, first_order, "parameter", transductive, **kwargs
        )

    def get_config(self):
        config = super().get_config()
        del config["learn_lr"]
        return config
