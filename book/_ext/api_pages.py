"""What the pages of the package show of its classes and docstrings.

Signatures as ``__init__`` has them: autodoc looks at ``__new__`` first, and Keras's layers and
models have one that takes ``(*args, **kwargs)``, which would hide every default.

Equations in one pair of parentheses: a docstring has "(:eq:`label`)", and what the book makes of
the label is "(25)".
"""

import inspect
import re

HIDDEN = "(*args, **kwargs)"
IN_PARENTHESES = re.compile(r"\(((?::eq:`[\w-]+`(?:, )?)+)\)")


def signature_of(cls):
    """The arguments of the class with their defaults, without type hints."""
    signature = inspect.signature(cls)
    parameters = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    return str(signature.replace(parameters=parameters, return_annotation=signature.empty))


def show_signature(app, what, name, obj, options, signature, return_annotation):
    if what == "class" and signature == HIDDEN:
        return signature_of(obj), None


def drop_parentheses(app, what, name, obj, options, lines):
    lines[:] = IN_PARENTHESES.sub(r"\1", "\n".join(lines)).split("\n")


def setup(app):
    app.connect("autodoc-process-signature", show_signature)
    app.connect("autodoc-process-docstring", drop_parentheses)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
