"""The referee of the find-the-bug exercises, in which the reader writes a test."""


def judge(test, right, wrong):
    """Run a reader's test on right code and on wrong versions of it, and print the verdict.

    Args:
        test: a function of one argument, the code under test, that raises
            ``AssertionError`` when it finds it wrong.
        right: the right version.
        wrong: a dict from a description to a wrong version.

    Returns:
        True if the test passes on the right version and fails on every wrong one.

    Raises:
        ValueError: if there is no wrong version: every test would be good enough.
        Exception: any exception of the test that is not an ``AssertionError``.
    """
    if not callable(test) or not isinstance(wrong, dict):
        raise TypeError(
            "judge needs a test, which is a function, and a dict of wrong versions; got "
            f"{type(test).__name__} and {type(wrong).__name__}."
        )
    if not wrong:
        raise ValueError("judge needs at least one wrong version, got none.")

    def passes(code):
        try:
            test(code)
        except AssertionError:
            return False
        return True

    accepted = passes(right)
    print("accepts" if accepted else "REJECTS", "the right version")
    caught = [not passes(code) for code in wrong.values()]
    for description, found in zip(wrong, caught, strict=True):
        print("catches" if found else "MISSES ", description)
    return accepted and all(caught)
