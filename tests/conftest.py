import gc

import mlutils  # noqa: F401  first: it silences the import of TensorFlow

import keras  # isort: skip
import pytest
import tensorflow as tf
from tensorflow.python.framework import config

# Two devices of one processor, for the tests with two replicas; it must be said before any runs.
processor = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * 2)


@pytest.fixture(scope="session")
def strategy():
    """Two replicas on the two devices.

    One for all tests of a process: each new one would count its collective operations from 100
    again, and TensorFlow takes operation 100 of one for that of the other.
    """
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


@pytest.fixture
def float64():
    """Run a test in double precision, for finite differences."""
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")


@pytest.fixture(scope="module", autouse=True)
def frozen():
    """What the tests before left in memory for good is not looked through again and again.

    TensorFlow keeps millions of objects: without this, a fifth of the tests' time goes into
    Python's search for garbage.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(0)


@pytest.fixture
def xla():
    """Allow XLA, which operations made deterministic (by ``mlutils.setup``) may refuse."""
    deterministic = config.is_op_determinism_enabled()
    config.disable_op_determinism()
    yield
    if deterministic:
        config.enable_op_determinism()
