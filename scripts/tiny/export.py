"""Write what is trained to where diffsweep looks for it, each folder with its model card."""

from __future__ import annotations

import argparse


def options(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    raise SystemExit("to come")
