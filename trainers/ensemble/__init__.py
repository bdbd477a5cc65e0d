"""Several bundles trained or fused into one."""
