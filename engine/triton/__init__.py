"""Triton: model repositories made from bundles, and the server that serves them."""
