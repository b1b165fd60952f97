"""A plugin for pytest: the files that took longest, and all of them together."""

from collections import Counter

SHOWN = 25


def pytest_terminal_summary(terminalreporter):
    seconds = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            seconds[getattr(report, "nodeid", "").partition("::")[0]] += getattr(
                report, "duration", 0
            )
    terminalreporter.section(f"slowest {SHOWN} files, of {sum(seconds.values()) / 60:.1f} minutes")
    for name, value in seconds.most_common(SHOWN):
        terminalreporter.write_line(f"{value:7.1f} s  {name}")
