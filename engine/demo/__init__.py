"""`engine demo`: the main job on real pictures with nothing to set up."""
