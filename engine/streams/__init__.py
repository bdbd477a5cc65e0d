"""Where frames come from and results go: Redis Streams, an in-memory double, and an embedded server."""
