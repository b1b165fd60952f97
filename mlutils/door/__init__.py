"""The door: what users hand in is checked here, once, and nowhere else.

``tasks`` for arrays, labels and datasets, ``networks``, ``losses``, and ``numbers`` for counts,
rates, options and flags.
"""
