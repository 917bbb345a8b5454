"""The HTTP API: authentication, validation, rows and presigned URLs. It never runs a model."""
