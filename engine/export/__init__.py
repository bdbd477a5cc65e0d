"""What `engine export` writes: one file per target, named in `registry`."""
