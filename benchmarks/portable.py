"""Save learners so that an older Keras, such as Colab's, can load them."""

import io
import json
import os
import zipfile

# Options of layers and initializers that came later, with the values that mean what was before.
LATER = {
    "input_axes": None,
    "output_axes": None,
    "quantization_config": None,
    "renorm": False,
    "renorm_clipping": None,
    "renorm_momentum": 0.99,
}


def save(learner, path):
    """Save a Keras model without its optimizer, and without new options that change nothing.

    Args:
        learner: a Keras model; it is not changed.
        path: a ``Path``, ``....keras``.
    """
    copy = type(learner).from_config(learner.get_config())
    copy.set_weights(learner.get_weights())
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"new-{path.name}")
    copy.save(new)
    strip(new)
    os.replace(new, path)


def strip(path):
    """Take the new options out of a saved model's configuration."""
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    files["config.json"] = json.dumps(without(json.loads(files["config.json"]))).encode()
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, value in files.items():
            archive.writestr(name, value)
    path.write_bytes(content.getvalue())


def without(value):
    """A nest of dicts and lists without the entries in ``LATER``."""
    if isinstance(value, dict):
        return {k: without(v) for k, v in value.items() if k not in LATER or v != LATER[k]}
    return [without(v) for v in value] if isinstance(value, list) else value
