"""Tables, queries and the run state machine. Knows nothing of HTTP; the worker is its guest."""
