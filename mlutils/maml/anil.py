"""ANIL: MAML whose inner loop moves the last layer alone."""

import keras

from mlutils.maml.maml import MAML


@keras.saving.register_keras_serializable(package="mlutils")
class ANIL(MAML):
    """Almost no inner loop (Raghu, Raghu, Bengio & Vinyals, ICLR 2020).

    The inner loop adapts the head, which is the last layer; the outer loop trains everything
    (:eq:`eq-anil`).  It is MAML with alpha = 0 for the body.

    Args:
        model: as for ``MAML``.
        inner_lr: alpha, for the head.
        inner_steps: the number k of inner steps.
        first_order: drop the second derivatives.
        head: the name of the layer that adapts; the last one with trainable weights when None.
        transductive: as for ``MAML``.

    Raises:
        TypeError, ValueError: as ``MAML``; ValueError if the model has no layer ``head`` with
            trainable weights.
    """

    def __init__(
        self,
        model,
        inner_lr=0.01,
        inner_steps=1,
        first_order=False,
        head=None,
        transductive=True,
        **kwargs,
    ):
        super().__init__(
            model, inner_lr, inner_steps, first_order, transductive=transductive, **kwargs
        )
        layers = model._flatten_layers(include_self=False, recursive=True)
        heads = {x.name: x for x in layers if x.trainable_variables and not x._layers}
        if not heads:
            raise ValueError(
                f"No layer of the model {model.name!r} has trainable weights; one must, the head."
            )
        if head is not None and head not in heads:
            raise ValueError(
                f"The model has no layer {head!r} with trainable weights; allowed are "
                f"{tuple(heads)}."
            )
        self.head = head
        layer = heads[head] if head is not None else list(heads.values())[-1]
        self.head_variables = {id(v) for v in layer.trainable_variables}

    def rates(self, step):
        """Alpha for the head's weights, None for those of the body."""
        return [
            self.inner_lr if id(v) in self.head_variables else None
            for v in self.model.trainable_variables
        ]

    def get_config(self):
        config = super().get_config()
        del config["learn_lr"]
        return {**config, "head": self.head}
