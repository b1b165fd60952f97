"""Import TensorFlow without its start-up lines, and without an optimizer that breaks loops.

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
import warnings


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


def without_memory_optimizer():
    """Switch off TensorFlow's memory optimizer of graphs, for all of this process.

    Among other things it adds up piece by piece what needs much memory; on a processor that is what
    it estimates at 200 MB or more.  Within a loop, such a sum is begun once more than it is ended,
    and the second run of the graph ends with an AlreadyExistsError (tensorflow/tensorflow issues
    23780 and 37740): six inner steps of MAML on a convolutional network were enough.  TensorFlow's
    public options have no name for this optimizer.
    """
    try:
        from tensorflow.core.protobuf.rewriter_config_pb2 import RewriterConfig
        from tensorflow.python.eager import context

        theirs = context.Context.config.fget

        def config(self):
            found = theirs(self)
            found.graph_options.rewrite_options.memory_optimization = RewriterConfig.NO_MEM_OPT
            return found

        context.Context.config = property(config)
        context.context().function_call_options = None  # made anew, if it is there already
    except (ImportError, AttributeError) as error:
        warnings.warn(
            f"This TensorFlow lacks what mlutils switches off ({error}): more than five inner "
            "steps on a large network may end with an AlreadyExistsError.",
            stacklevel=2,
        )


import_quietly()
without_memory_optimizer()
