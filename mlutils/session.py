"""What the first cell of every notebook calls."""

import warnings

import keras
import tensorflow as tf

from mlutils import plot


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
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise ValueError(f"seed must be an integer from 0 to 2**32 - 1, got {seed!r}.")
    if threads is not None:
        set_threads(threads)
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()
    # Keras warns whenever fit is given a tf.data pipeline and not told shuffle=False.
    warnings.filterwarnings("ignore", message="`shuffle=True` was passed")
    plot.use_style()


def set_threads(threads):
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise ValueError(f"threads must be a positive integer or None, got {threads!r}.")
    if tf.config.threading.get_intra_op_parallelism_threads() != threads:
        try:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
        except RuntimeError:
            raise RuntimeError(
                f"TensorFlow already runs, and threads={threads} can only be set before: "
                "restart the kernel and call mlutils.setup first."
            ) from None
