"""The flags of `sparseboard runs launch` beside those of `python -m sparsify_core`: what a run is asked for with."""

import argparse


def add_launch_flags(parser: argparse.ArgumentParser) -> None:
    """Each under the name of its field in `Launch`, as text; one that is not given is not there."""
    parser.add_argument("--name", default=argparse.SUPPRESS, help="what you will recognise the run by")
    parser.add_argument("--num-processes", default=argparse.SUPPRESS, help="on each node, one per GPU (default 1)")
    parser.add_argument("--num-nodes", default=argparse.SUPPRESS, help="workers that train it together (default 1)")
    parser.add_argument("--min-memory-gb", default=argparse.SUPPRESS, help="what every GPU must have")
    parser.add_argument(
        "--label",
        dest="labels",
        action="append",
        default=argparse.SUPPRESS,
        help="what its workers must have",
    )
