"""What the first cell of every notebook calls."""

import warnings

import keras
import tensorflow as tf
from tensorflow.python.framework import config
from threadpoolctl import threadpool_limits

from mlutils import plot
from mlutils.door.numbers import check_count, check_flag, check_seed


def setup(seed=0, threads=None, deterministic=True):
    """Make a run repeatable and give its figures the book's style.

    Seeds Python, NumPy and TensorFlow, makes TensorFlow's operations
    deterministic (Keras then leaves XLA off) and applies ``mlutils.plot.STYLE``.

    Args:
        seed: integer from 0 to 2**32 - 1.
        threads: threads within one operation, of TensorFlow and of NumPy; None leaves them as
            they are, at first as many as there are cores.  With networks as small as the
            sinusoid's, 1 is several times faster: the operations are shorter than the time it
            takes to share them out.
        deterministic: False takes an earlier ``setup`` back: it allows operations whose last
            digits differ from run to run, and ``compile(jit_compile=True)``.  On two cores of a
            processor that made less than a factor of two.

    Raises:
        ValueError: if ``seed`` is not such an integer, ``threads`` not a positive one, or
            ``deterministic`` no bool.
        RuntimeError: if TensorFlow already runs with another number of threads.
    """
    seed, deterministic = check_seed(seed), check_flag("deterministic", deterministic)
    if threads is not None:
        set_threads(threads)
    keras.utils.set_random_seed(seed)
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    else:
        config.disable_op_determinism()  # TensorFlow has no public way back
    # Keras warns whenever fit is given a tf.data pipeline and not told shuffle=False; and its
    # export looks for an alias that NumPy has no more.
    warnings.filterwarnings("ignore", message="`shuffle=True` was passed")
    warnings.filterwarnings("ignore", message="In the future `np.object`")
    tf.get_logger().setLevel("WARNING")  # else every export says where it wrote
    plot.use_style()


def set_threads(threads):
    threads = check_count("threads", threads)
    if tf.config.threading.get_intra_op_parallelism_threads() != threads:
        try:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
        except RuntimeError:
            raise RuntimeError(
                f"TensorFlow already runs, and threads={threads} can only be set before: "
                "restart the kernel and call mlutils.setup first."
            ) from None
    threadpool_limits(threads)
