"""Accuracy beside the papers', by fixed recipes.

python -m benchmarks.accuracy lake ...        Lake's one-shot test: see benchmarks/lake.py
python -m benchmarks.accuracy omniglot ...    few-shot tasks: see benchmarks/omniglot.py
"""

import argparse

from benchmarks import lake, omniglot

TESTS = {"lake": lake, "omniglot": omniglot}


def main():
    parser = argparse.ArgumentParser(description="Accuracy beside the papers'.")
    tests = parser.add_subparsers(dest="test", required=True)
    parsers = {
        name: tests.add_parser(name, help=m.__doc__.splitlines()[0]) for name, m in TESTS.items()
    }
    for name, module in TESTS.items():
        module.add_options(parsers[name])
    arguments = parser.parse_args()
    TESTS[arguments.test].main(parsers[arguments.test], arguments)


if __name__ == "__main__":
    main()
