"""The referee of the find-the-bug exercises, in which the reader writes a test."""


def judge(test, right, wrong):
    """Run a reader's test on right code and on wrong versions of it, and print the verdict.

    Args:
        test: a function of one argument, the code under test, that raises when it finds it wrong:
            ``AssertionError``, or any other exception, whose name is then printed too.
        right: the right version.
        wrong: a dict from a description to a wrong version.

    Returns:
        True if the test passes on the right version and fails on every wrong one.

    Raises:
        ValueError: if there is no wrong version: every test would be good enough.
        TypeError: if ``test`` is no function, or ``wrong`` no dict.
    """
    if not callable(test) or not isinstance(wrong, dict):
        raise TypeError(
            "judge needs a test, which is a function, and a dict of wrong versions; got "
            f"{type(test).__name__} and {type(wrong).__name__}."
        )
    if not wrong:
        raise ValueError("judge needs at least one wrong version, got none.")

    def fault(code):
        """None if the test passes, else what to print behind the verdict."""
        try:
            test(code)
        except AssertionError:
            return ""
        except Exception as error:  # however a wrong version breaks, it is caught
            return f" ({type(error).__name__}: {error})"
        return None

    rejected = fault(right)
    accepted = rejected is None
    print("accepts the right version" if accepted else f"REJECTS the right version{rejected}")
    faults = {description: fault(code) for description, code in wrong.items()}
    for description, found in faults.items():
        print(f"MISSES  {description}" if found is None else f"catches {description}{found}")
    return accepted and None not in faults.values()
