"""The door: what users hand in is checked here, once, and nowhere else.

``tasks`` for arrays, labels and datasets, ``networks``, ``losses``, ``functions`` to minimise and
the rules that do it, and ``numbers`` for counts, rates, options and flags.
"""
