"""Use cases. Each takes a session, never commits, and knows nothing of HTTP."""
