import keras
import pytest


@pytest.fixture
def float64():
    """Run a test in double precision, for finite differences."""
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(0)
