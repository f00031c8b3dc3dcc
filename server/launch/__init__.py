"""`sparseboard up`: broker, server and worker as one supervised tree. Starts the worker by name, never imports it."""
