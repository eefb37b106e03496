"""A Glue job's script: runs raretrail with the one argument that is for it, since Glue adds its own.

The job's argument `--raretrail` holds a command line, as in `run --trail s3a://… --warehouse s3a://…`.
"""

import argparse
import shlex
import sys


def command_line(arguments: list[str]) -> list[str]:
    """What raretrail is to be called with, out of all that Glue hands to a script."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--raretrail", required=True)
    return shlex.split(parser.parse_known_args(arguments)[0].raretrail)


if __name__ == "__main__":
    from raretrail.cli import main

    code = main(command_line(sys.argv[1:]))
    if code:
        raise SystemExit(code)
