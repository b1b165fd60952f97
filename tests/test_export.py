"""What is exported gives the same numbers in a process that has no ``mlutils``."""

import subprocess
import sys

import keras
import numpy as np
import pytest

import mlutils
from tests.contract.learners import LEARNERS, compiled, element

BLOCKED = """
import os, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

class Blocked:
    def find_spec(self, name, *rest):
        if name.split(".")[0] == "mlutils":
            raise ImportError("mlutils is blocked")

sys.meta_path.insert(0, Blocked())
import numpy as np
"""
RUNNERS = """
def tf_saved_model(path, inputs):
    import tensorflow as tf
    model = tf.saved_model.load(path)
    return model.serve(inputs if len(inputs) > 1 else inputs[0])

def litert(path, inputs):
    import tensorflow as tf
    runner = tf.lite.Interpreter(path + ".tflite").get_signature_runner()
    return runner(**dict(zip(runner.get_input_details(), inputs)))["output_0"]

def onnx(path, inputs):
    import onnxruntime
    assert "tensorflow" not in sys.modules and "keras" not in sys.modules
    providers = ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(path + ".onnx", providers=providers)
    names = [x.name for x in session.get_inputs()]
    return session.run(None, dict(zip(names, inputs)))[0]

def keras(path, inputs):
    from keras.saving import load_model
    return load_model(path + ".keras")(inputs[0])

for case in sys.argv[1:]:
    format, name = case.split(":")
    with np.load(name + ".npz") as file:
        inputs = tuple(file[f"arr_{i}"] for i in range(len(file.files)))
    np.save(f"{format}-{name}.npy", np.asarray(globals()[format](name, inputs)))
"""
ENDINGS = {"tf_saved_model": "", "litert": ".tflite", "onnx": ".onnx", "keras": ".keras"}
LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
ADAPTED = ("MAML", "ProtoMAML", "conv4", "norm")
LEARNED = ("prototypical", "relation", "neural process", "learner of MAML")
CASES = [
    *(f"{format}:adapted {name}" for format in ENDINGS for name in ADAPTED),
    *(f"{format}:{name}" for format in ("tf_saved_model", "onnx") for name in LEARNED),
]
# Its inner loop has operations that tf2onnx lacks; what is not a plain model needs mlutils.
CANNOT = {"onnx:learner of MAML", "keras:adapted conv4", "keras:adapted norm"}


def without_mlutils(folder, cases):
    """Run the exported files of these cases in a new process that cannot import ``mlutils``."""
    command = [sys.executable, "-I", "-c", BLOCKED + RUNNERS, *cases]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def pictures(learner):
    """A learner of 28 x 28 pixels, and a task of three classes."""
    random = np.random.default_rng(0)
    learner.compile(loss=LOGITS)
    x, query_x = (random.random((n, 28, 28, 1)).astype("float32") for n in (6, 3))
    return learner, x, np.arange(6) % 3, query_x


def adapted(name):
    """A learner, and a task's support_x, support_y, query_x."""
    if name == "conv4":
        return pictures(mlutils.PrototypicalNetwork(mlutils.conv4(filters=8), scale=0.1))
    if name == "norm":
        network = mlutils.conv4(filters=4, outputs=3, downsample="stride", norm=True)
        return pictures(mlutils.MAML(network, 0.1, 2, transductive=False))
    (x, y, query_x), _ = element(LEARNERS[name].kind)
    return compiled(LEARNERS[name]), x[0], y[0], query_x[0]


def models():
    """Name, model, its inputs, and what it must give: other sizes than any it was made with."""
    for name in ADAPTED:
        learner, x, y, query_x = adapted(name)
        expected = learner.adapt(x, y)(query_x)[:2]
        yield f"adapted {name}", learner.adapted_model(x, y), [query_x[:2]], expected
    for name in LEARNED:
        row = LEARNERS[name.removeprefix("learner of ")]
        learner, inputs = compiled(row), element(row.kind, 2, support=9, queries=4, seed=1)[0]
        yield name, learner, inputs, learner(inputs)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Everything exported, and run in two other processes; and what must come out."""
    folder, expected = tmp_path_factory.mktemp("exported"), {}
    for name, model, inputs, right in models():
        np.savez(folder / f"{name}.npz", *inputs)
        expected[name] = right.numpy()
        for format, ending in ENDINGS.items():
            case, path = f"{format}:{name}", str(folder / (name + ending))
            if case not in CASES or (case in CANNOT and format != "keras"):
                continue
            if format == "keras":
                model.save(path)
            else:
                model.export(path, format=format, verbose=False)
    cases = [case for case in CASES if case not in CANNOT]
    for some in (True, False):  # onnxruntime runs where there is no TensorFlow either
        mine = [case for case in cases if case.startswith("onnx") == some]
        done = without_mlutils(folder, mine)
        assert done.returncode == 0, done.stderr[-2000:]
    return folder, expected


@pytest.mark.parametrize("case", [case for case in CASES if case not in CANNOT])
def test_it_gives_the_same_numbers_without_mlutils(exported, case):
    """Negative control: the queries' predictions differ, and so would a wrong one."""
    folder, expected = exported
    name = case.split(":")[1]
    found = np.load(folder / f"{case.replace(':', '-')}.npy")
    np.testing.assert_allclose(found, expected[name], rtol=1e-4, atol=1e-5)
    assert np.ptp(expected[name], axis=-2).max() > 1e-4


def test_a_model_that_is_no_plain_one_does_not_load_without_mlutils(exported):
    """And so ``mlutils`` is blocked there."""
    done = without_mlutils(exported[0], ["keras:adapted conv4"])
    assert done.returncode and "AdaptedModel" in done.stderr


@pytest.mark.parametrize("name", ["MAML", "Reptile", "iMAML", "ProtoMAML"])
def test_an_inner_loop_is_not_for_onnx(name, tmp_path):
    """tf2onnx 1.17 logs that operations are missing, and writes a file that does not run."""
    with pytest.raises(NotImplementedError, match="adapted_model"):
        compiled(LEARNERS[name]).export(tmp_path / "file.onnx", format="onnx", verbose=False)
    assert not list(tmp_path.iterdir())


def test_shapes_that_nobody_knows():
    """A loss of one's own may take labels or numbers; a learner of no network, anything."""
    learner = mlutils.MAML(mlutils.mlp(2, (3,), 3))
    learner.compile(loss=lambda y, p: (y - p) ** 2)
    with pytest.raises(ValueError, match="Its networks do not tell"):
        learner.export("nowhere", verbose=False)
    row = LEARNERS["Hausdorff"]
    (x, y, _), _ = element(row.kind)
    with pytest.raises(ValueError, match="Its network does not know: pass"):
        compiled(row).adapted_model(x[0], y[0]).export("nowhere", verbose=False)
    with pytest.raises(ValueError, match="adapts by the loss it is compiled with"):
        mlutils.MAML(mlutils.mlp(2, (3,), 3)).export("nowhere", verbose=False)
