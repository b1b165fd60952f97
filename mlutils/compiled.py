"""Many outer steps as one program: what makes meta-training of small networks fast."""

import tensorflow as tf


def compiled_steps(train_step, steps):
    """A Keras ``train_function`` that runs ``steps`` steps in one loop inside XLA.

    Keras compiles one step, and starts it ``steps`` times.  For networks as small as the
    sinusoid's, starting takes longer than computing.  Here the elements of ``steps`` steps are
    fetched first, and one compiled loop runs through them.

    Args:
        train_step: from an element of the dataset to a dict of logs; compilable by XLA.
        steps: how many.

    Returns:
        From a dataset's iterator to the logs after the last step.  If the dataset ends earlier,
        the steps before its end are taken.

    Raises:
        StopIteration: if the dataset has already ended.
        ValueError: if the elements of one call differ in shape.
    """

    train_step = tf.function(train_step)  # traced once, though it is named twice below

    @tf.function(jit_compile=True)
    def run(elements, count):
        def element(step):
            return tf.nest.map_structure(lambda x: x[step], elements)

        logs = train_step.get_concrete_function(element(0)).structured_outputs
        logs = tf.nest.map_structure(lambda log: tf.zeros(log.shape, log.dtype), logs)
        return tf.while_loop(
            lambda step, _: step < count,
            lambda step, _: (step + 1, train_step(element(step))),
            (0, logs),
        )[1]

    @tf.function
    def train_function(iterator):
        first = iterator.get_next()
        elements, count = [first], 1
        for _ in range(steps - 1):
            following = iterator.get_next_as_optional()
            there = following.has_value()
            elements.append(tf.cond(there, following.get_value, lambda: first))
            count += tf.cast(there, tf.int32)
        return run(tf.nest.map_structure(lambda *parts: tf.stack(parts), *elements), count)

    def until_the_end(iterator):
        try:
            return train_function(iterator)
        except tf.errors.OutOfRangeError:
            raise StopIteration from None
        except tf.errors.InvalidArgumentError as error:
            if "Shapes of all inputs must match" not in str(error):
                raise
            raise ValueError(
                "With jit_compile=True and steps_per_execution > 1 all meta-batches need one "
                "shape, and these differ: drop the smaller last one (drop_remainder=True)."
            ) from None

    return until_the_end
