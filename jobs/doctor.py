"""`raretrail doctor` for spark-submit and Databricks tasks; the same options."""

from raretrail.cli import step_main

if __name__ == "__main__":
    code = step_main("doctor")
    # A clean end is no exit at all: some schedulers take any SystemExit for a failure.
    if code:
        raise SystemExit(code)
