"""From a torch network to the executables of a bundle."""
