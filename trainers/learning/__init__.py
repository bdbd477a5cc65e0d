"""Training by gradient, the same for every method that learns a network."""
