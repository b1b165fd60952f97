"""What the first cell of every notebook calls."""

import warnings

import keras
import tensorflow as tf

from mlutils import plot
from mlutils.door.numbers import check_count, check_seed


def setup(seed=0, threads=None):
    """Make a run repeatable and give its figures the book's style.

    Seeds Python, NumPy and TensorFlow, makes TensorFlow's operations
    deterministic (Keras then leaves XLA off) and applies ``mlutils.plot.STYLE``.

    Args:
        seed: integer from 0 to 2**32 - 1.
        threads: threads within one operation; None for as many as there are cores.  With
            networks as small as the sinusoid's, 1 is several times faster: the
            operations are shorter than the time it takes to share them out.

    Raises:
        ValueError: if ``seed`` is not such an integer, or ``threads`` not a positive one.
        RuntimeError: if TensorFlow already runs with another number of threads.
    """
    seed = check_seed(seed)
    if threads is not None:
        set_threads(threads)
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()
    # Keras warns whenever fit is given a tf.data pipeline and not told shuffle=False.
    warnings.filterwarnings("ignore", message="`shuffle=True` was passed")
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
