"""Thresholds and scales from good pictures only."""
