"""What is traced and compiled, and when: graphs of methods, and many outer steps as one program."""

import functools

import tensorflow as tf


def as_graph(method):
    """Let a learner's method run as a graph, traced once for each signature of its arguments.

    It is traced again when the learner's ``settings()`` have changed, and not at all within a
    graph or where functions run eagerly.
    """

    @functools.wraps(method)
    def run(self, *args, **options):
        if not tf.executing_eagerly() or tf.config.functions_run_eagerly() or self.run_eagerly:
            return method(self, *args, **options)
        options = {k: v.numpy().item() if is_number(v) else v for k, v in options.items()}
        return self.graphs.of(self, method)(*args, **options)

    return run


def is_number(value):
    """Whether an option is a number that Keras has made a tensor of."""
    return isinstance(value, tf.Tensor) and value.shape.rank == 0


class Graphs:
    """The graphs of one learner's methods, made anew when its settings have changed."""

    def __init__(self):
        self.settings, self.functions, self.specs = None, {}, None

    def of(self, learner, method):
        settings = learner.settings()
        if settings != self.settings:
            self.settings, self.functions = settings, {}
        if method not in self.functions:
            self.functions[method] = tf.function(
                functools.partial(method, learner), autograph=False, reduce_retracing=True
            )
        return self.functions[method]


def compiled_steps(step, steps, prepare=lambda element: element):
    """A Keras ``train_function`` that runs ``steps`` steps in one loop inside XLA.

    Keras compiles one step, and starts it ``steps`` times.  For networks as small as the
    sinusoid's, starting takes longer than computing.  Here the elements of ``steps`` steps are
    fetched first, and one compiled loop runs through them.

    Args:
        step: from an element of the dataset to a dict of logs; compilable by XLA.
        steps: how many.
        prepare: of an element, before XLA sees it.

    Returns:
        From a dataset's iterator to the logs after the last step.  If the dataset ends earlier,
        the steps before its end are taken.

    Raises:
        StopIteration: if the dataset has already ended.
        ValueError: if the elements of one call differ in shape.
    """

    step = tf.function(step)  # traced once, though it is named twice below

    @tf.function(jit_compile=True)
    def run(elements, count):
        def element(index):
            return tf.nest.map_structure(lambda x: x[index], elements)

        logs = step.get_concrete_function(element(0)).structured_outputs
        logs = tf.nest.map_structure(lambda log: tf.zeros(log.shape, log.dtype), logs)
        return tf.while_loop(
            lambda index, _: index < count,
            lambda index, _: (index + 1, step(element(index))),
            (0, logs),
        )[1]

    @tf.function
    def train_function(iterator):
        first = prepare(iterator.get_next())
        arrays = [tf.TensorArray(x.dtype, steps).write(0, x) for x in tf.nest.flatten(first)]

        def fetch(count, _, arrays):
            following = iterator.get_next_as_optional()
            there = following.has_value()
            element = tf.cond(there, lambda: prepare(following.get_value()), lambda: first)
            element = tf.nest.flatten(element)
            arrays = [a.write(count, x) for a, x in zip(arrays, element, strict=True)]
            return count + tf.cast(there, tf.int32), there, arrays

        count, _, arrays = tf.while_loop(
            lambda count, more, _: more & (count < steps), fetch, (1, True, arrays)
        )
        elements = tf.nest.pack_sequence_as(first, [a.stack() for a in arrays])
        return run(elements, count)

    def until_the_end(iterator):
        try:
            return train_function(iterator)
        except tf.errors.OutOfRangeError:
            raise StopIteration from None
        except tf.errors.InvalidArgumentError as error:
            if "Incompatible shapes during merge" not in str(error):
                raise
            raise ValueError(
                "With jit_compile=True and steps_per_execution > 1 all meta-batches need one "
                "shape, and these differ: drop the smaller last one (drop_remainder=True)."
            ) from None

    return until_the_end
