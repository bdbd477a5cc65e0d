"""How good a bundle is: figures, pictures, reports, and the papers' protocols."""
