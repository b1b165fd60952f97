"""Import TensorFlow without its start-up lines.

While it is imported, TensorFlow writes lines that hold times and process ids to
file descriptor 2, whatever ``TF_CPP_MIN_LOG_LEVEL`` says.
In a notebook they would land in the outputs and differ on every run.
So the descriptor is redirected during the import; if the import fails, what was
written is shown after all.
Later on, TensorFlow's C++ code logs as "errors" what is none, on some processors only; what does
go wrong raises an exception.  So the level is set to the highest, unless it is set already.
"""

import os
import sys
import tempfile


def import_quietly():
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if os.environ.setdefault("KERAS_BACKEND", "tensorflow") != "tensorflow":
        raise ImportError(
            f"KERAS_BACKEND is {os.environ['KERAS_BACKEND']!r}; mlutils is written with "
            "TensorFlow's gradient tapes: unset it, or set it to 'tensorflow'."
        )
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as lines:
        os.dup2(lines.fileno(), 2)
        try:
            import tensorflow

            # Looking for devices writes a line too, on a machine without a GPU.
            tensorflow.config.list_physical_devices()
        except BaseException:
            os.dup2(saved, 2)
            lines.seek(0)
            sys.stderr.write(lines.read().decode(errors="replace"))
            raise
        finally:
            os.dup2(saved, 2)
            os.close(saved)


import_quietly()
