import subprocess
import sys

import numpy as np
import pytest
from tensorflow.python.framework import config

import mlutils


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def test_import_is_quiet_and_keeps_stderr_working():
    result = run(
        "import mlutils, sys, tensorflow as tf; tf.zeros(1) + 1; print('last', file=sys.stderr)"
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "last\n")


def test_a_failing_import_shows_what_was_written():
    result = run(
        "import os, sys, types\n"
        "class Broken:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name == 'tensorflow':\n"
        "            os.write(2, b'the reason\\n')\n"
        "            raise ImportError('no TensorFlow')\n"
        "sys.meta_path.insert(0, Broken())\n"
        "import mlutils"
    )
    assert result.returncode != 0
    assert "the reason" in result.stderr and "no TensorFlow" in result.stderr


def test_setup_makes_runs_repeat():
    def weights():
        mlutils.setup(seed=1)
        return mlutils.mlp().get_weights()

    for first, second in zip(weights(), weights(), strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("seed", [-1, 2**32, 1.0, True, None])
def test_wrong_seed_raises(seed):
    with pytest.raises(ValueError, match="seed must be"):
        mlutils.setup(seed=seed)


def test_determinism_is_set_and_taken_back():
    before = config.is_op_determinism_enabled()
    try:
        for wanted in (True, False, False, True):
            mlutils.setup(deterministic=wanted)
            assert config.is_op_determinism_enabled() == wanted
        mlutils.setup(deterministic=False)
        mlutils.setup()
        assert config.is_op_determinism_enabled()
    finally:
        (config.enable_op_determinism if before else config.disable_op_determinism)()


@pytest.mark.parametrize("wrong", [None, 1, "no"])
def test_wrong_determinism_raises(wrong):
    with pytest.raises(ValueError, match="deterministic must be True or False"):
        mlutils.setup(deterministic=wrong)


def test_threads_are_set_before_tensorflow_runs_and_not_after():
    result = run(
        "import mlutils, tensorflow as tf\n"
        "mlutils.setup(threads=1)\n"
        "tf.zeros(1) + 1\n"
        "mlutils.setup(threads=1)\n"
        "mlutils.setup()\n"  # leaves them as they are
        "from threadpoolctl import threadpool_info\n"
        "blas = {pool['num_threads'] for pool in threadpool_info()}\n"
        "print(tf.config.threading.get_intra_op_parallelism_threads(), blas)\n"
        "mlutils.setup(threads=2)"
    )
    assert result.stdout == "1 {1}\n"
    assert "restart the kernel and call mlutils.setup first" in result.stderr


@pytest.mark.parametrize("threads", [0, 1.0, True])
def test_wrong_threads_raise(threads):
    with pytest.raises(ValueError, match="threads must be an integer of at least 1"):
        mlutils.setup(threads=threads)


def test_public_names_exist_and_are_documented():
    for name in mlutils.__all__:
        assert getattr(mlutils, name).__doc__
