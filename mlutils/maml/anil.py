"""ANIL: MAML whose inner loop moves the last layer alone."""

import keras

from mlutils.maml.maml import MAML


@keras.saving.register_keras_serializable(package="mlutils")
class ANIL(MAML):
    """Almost no inner loop (Raghu, Raghu, Bengio & Vinyals, ICLR 2020).

    The inner loop adapts the head, which is the last layer; the outer loop trains everything
    (:eq:`eq-anil`).  It is MAML whose update rule moves the head's weights alone.

    Args:
        model: as for ``MAML``.
        inner_lr, inner_steps, first_order, rule, transductive, recompute: as for ``MAML``, for the
            head.
        head: the name of the layer that adapts; when None the one that owns the last of
            ``model.trainable_variables``.

    Example:
        >>> model = mlutils.mlp(1, (8,), 1)
        >>> learner = mlutils.ANIL(model, inner_lr=0.1)
        >>> learner.compile(loss="mse")
        >>> start = learner.initialisation()
        >>> end = learner.adapted_weights(start, tf.constant([[1.0]]), tf.constant([[2.0]]))
        >>> [bool(np.any(a != b)) for a, b in zip(start, end)]  # the head alone moves
        [False, False, True, True]
    """

    def __init__(self, model, inner_lr=0.01, inner_steps=1, first_order=False, head=None, **kwargs):
        super().__init__(model, inner_lr, inner_steps, first_order, **kwargs)
        layers = list(model._flatten_layers(include_self=False, recursive=True))
        heads = {x.name: x for x in layers if x.trainable_variables and not owners(x)}
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
        last = model.trainable_variables[-1]
        owner = [x for x in heads.values() if any(v is last for v in x.trainable_variables)]
        layer = heads[head] if head is not None else owner[-1]
        self.head_variables = {id(v) for v in layer.trainable_variables}

    def rules(self):
        """MAML's rule for the head's weights, None for those of the body."""
        variables = self.model.trainable_variables
        if not any(id(v) in self.head_variables for v in variables):
            raise ValueError("The head is frozen (trainable = False): nothing can adapt.")
        return [
            rule if id(v) in self.head_variables else None
            for rule, v in zip(super().rules(), variables, strict=True)
        ]

    def get_config(self):
        return {**super().get_config(), "head": self.head}


def owners(layer):
    """The layers inside a layer that have trainable weights."""
    inside = layer._flatten_layers(include_self=False, recursive=True)
    return [x for x in inside if x.trainable_variables]
