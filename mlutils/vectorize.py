"""All tasks at once: ``tf.vectorized_map``, with convolutions that keep up.

``tf.vectorized_map`` turns a function of one task into operations on all tasks.
Where each task has filters of its own, as after an inner step of MAML, TensorFlow 2.21 knows no
such form for a convolution and runs a ``while_loop`` over the tasks, which is slow.
Here such an operation becomes one operation per task instead, side by side, so that the
cores can share them out; above ``UNROLLED`` tasks a loop over groups of tasks, so that the graph
does not grow.
A product of every task's matrices with one on the right that all share becomes one flat product:
where oneDNN is on, TensorFlow 2.21 gets the broadcast product wrong and damages memory if a
task's matrices have a leading axis of length one (tensorflow/tensorflow issue 117700, mended for
later versions by its pull request 120199).
Nothing else changes, and the results are the same.

TensorFlow offers no public way to say this: ``map_tasks`` replaces converters of
``tensorflow.python.ops.parallel_for`` while it runs.  A TensorFlow that no longer has them is used
as it is, with a warning.
"""

import contextlib
import warnings

import tensorflow as tf

from mlutils.episodes import describe

UNROLLED = 32
GROUP = 16

_reported = set()


def map_tasks(function, tasks):
    """Apply ``function`` of one task to all tasks at once.

    Args:
        function: from the tensors of one task to tensors.
        tasks: a tensor or a structure of tensors, each with a leading axis of tasks.

    Returns:
        What ``function`` returns, with a leading axis of tasks.
    """
    try:
        flat = [tf.convert_to_tensor(t) for t in tf.nest.flatten(tasks)]
    except (TypeError, ValueError):
        flat = []
    sizes = [t.shape[:1] for t in flat]
    agree = sizes and all(s.rank != 0 and s.is_compatible_with(sizes[0]) for s in sizes)
    if not callable(function) or not agree:
        raise TypeError(
            "map_tasks takes a function, and tensors that all begin with an axis of tasks; got "
            f"{describe(function)} and {describe(tasks)}."
        )

    def mapped(*flat):
        with converters():
            return tf.vectorized_map(function, tf.nest.pack_sequence_as(tasks, flat), warn=False)

    if tf.executing_eagerly():  # else TensorFlow makes a graph anyway, and warns when it is often
        return tf.function(mapped).get_concrete_function(*flat)(*flat)
    return mapped(*flat)


@contextlib.contextmanager
def converters():
    """Let ``tf.vectorized_map`` use the converters of this module."""
    if pfor is None:
        yield
        return
    own = {"Conv2DBackpropFilter": filter_gradient, "BatchMatMulV2": matrix_product}
    registry, fallback = pfor._pfor_converter_registry, pfor._fallback_converter
    theirs = {name: registry[name] for name in own}
    registry.update(own)
    pfor._fallback_converter = one_by_one
    under_xla, control._is_under_xla_context = control._is_under_xla_context, lambda: False
    try:
        yield
    finally:
        control._is_under_xla_context = under_xla
        registry.update(theirs)
        pfor._fallback_converter = fallback


def reshape_tasks(x, tasks, axes=1):
    """``x`` with its leading ``axes`` reshaped to ``tasks``."""
    return tf.reshape(x, tf.concat([tasks, tf.shape(x)[axes:]], 0))


def one_by_one(pfor_input, root_cause="", warn=False):
    """Convert an operation without a vectorised form into one operation per task."""
    kind = pfor_input.op_type
    tasks = tf.get_static_value(pfor_input.pfor.loop_len_vector)
    stacked = [t for t, is_stacked, _ in pfor_input.inputs if is_stacked]
    if tasks is None or not stacked:
        return builtin_fallback(pfor_input, root_cause, warn)
    if "Conv" not in kind and kind not in _reported:
        _reported.add(kind)
        warnings.warn(
            f"The operation {kind} ({pfor_input.op.name}) has no form for many tasks at once and "
            "runs once per task: right, but slower.",
            stacklevel=2,
        )

    def apply(part):
        """The operation on one task, from that task's part of the stacked inputs."""
        part = iter(part)
        inputs = [next(part) if is_stacked else t for t, is_stacked, _ in pfor_input.inputs]
        dtypes = [output.dtype for output in pfor_input.outputs]
        return pfor._create_op(kind, inputs, dtypes, attrs=pfor_input.op.node_def.attr).outputs

    def unroll(tensors, tasks):
        results = [
            apply(parts) for parts in zip(*(tf.unstack(t, tasks) for t in tensors), strict=True)
        ]
        return [tf.stack(outputs) for outputs in zip(*results, strict=True)]

    tasks = int(tasks[0])
    if tasks <= UNROLLED:
        outputs = unroll(stacked, tasks)
    else:
        whole = tasks // GROUP * GROUP
        outputs = tf.map_fn(
            lambda group: tuple(unroll(group, GROUP)),
            tuple(reshape_tasks(t[:whole], (-1, GROUP)) for t in stacked),
            fn_output_signature=tuple(output.dtype for output in pfor_input.outputs),
        )
        outputs = [reshape_tasks(o, (whole,), axes=2) for o in outputs]
        if whole < tasks:
            last = unroll([t[whole:] for t in stacked], tasks - whole)
            outputs = [tf.concat(pair, 0) for pair in zip(outputs, last, strict=True)]
    return [pfor.wrap(output, True) for output in outputs]


def filter_gradient(pfor_input):
    """Convert the gradient of a convolution by its filters."""
    if pfor_input.input(0).is_stacked:
        return one_by_one(pfor_input)
    return builtin_filter_gradient(pfor_input)  # shared inputs: TensorFlow's own is fast


def matrix_product(pfor_input):
    """Convert a product of matrices, flat if the second is one that all tasks share."""
    (x, x_stacked, _), (y, y_stacked, _) = pfor_input.inputs
    ranks = x.shape.rank, y.shape.rank
    shared = x_stacked and not y_stacked and None not in ranks and ranks[1] < ranks[0]
    alone = shared and all(size == 1 for size in y.shape[:-2])
    if not alone or pfor_input.get_attr("adj_x"):
        return builtin_matrix_product(pfor_input)
    y = tf.reshape(y, tf.shape(y)[-2:])
    flat = tf.reshape(x, (-1, tf.shape(x)[-1]))
    product = tf.matmul(flat, y, adjoint_b=pfor_input.get_attr("adj_y"))
    shape = tf.concat([tf.shape(x)[:-1], tf.shape(product)[-1:]], axis=0)
    return pfor.wrap(tf.reshape(product, shape), True)


try:
    from tensorflow.python.ops.parallel_for import control_flow_ops as control
    from tensorflow.python.ops.parallel_for import pfor

    builtin_fallback = pfor._fallback_converter
    builtin_filter_gradient = pfor._pfor_converter_registry["Conv2DBackpropFilter"]
    builtin_matrix_product = pfor._pfor_converter_registry["BatchMatMulV2"]
    pfor._create_op, pfor.wrap, control._is_under_xla_context  # noqa: B018  used above
except (ImportError, AttributeError, KeyError) as error:
    pfor = None
    warnings.warn(
        f"This TensorFlow, {tf.__version__}, lacks what mlutils speeds up convolutions of many "
        f"tasks with ({error}): MAML on convolutional networks will be several times slower, and "
        "products of matrices may be wrong where oneDNN is on (TensorFlow's issue 117700).",
        stacklevel=2,
    )
