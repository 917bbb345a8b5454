"""Where files and results live: a bucket of an S3-compatible store, or a local directory."""
