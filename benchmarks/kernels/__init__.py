"""One module for each module of sparsify_core.kernels, of the same name: `cases(inputs)` says what is timed, against
what. `python -m benchmarks.kernels` runs them."""
