"""The dashboard and the REST API. Never imports torch, transformers or datasets, and never imports `worker`."""
