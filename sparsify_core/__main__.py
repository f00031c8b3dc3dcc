"""`python -m sparsify_core MODEL DATASET --flags`."""

import sys

from sparsify_core.cli import main

sys.exit(main(sys.argv[1:]))
