"""What executes a bundle: one `Predictor` per backend, chosen by `open_predictor`."""
