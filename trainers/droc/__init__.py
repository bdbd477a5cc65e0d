"""DROC, Deep One-class Classification in two stages (Sohn et al. 2021): a self-supervised representation, a classifier.

`train.py` is the method from pictures to bundle. Stage one: `network.py` (f), `head.py` (g), `views.py` what pictures
may look like, `pretext.py` the losses, `learn.py` the optimisation, `uniformity.py` its measure. Stage two:
`pictures.py` the features, `fit.py` scikit-learn's classifiers, `classifiers.py` the same as torch computes them.
`detector.py` is both as served, `saved.py` a bundle's detector as torch modules, `settings.py` everything that can be
set, `variants.py` the paper's figures.
"""

from trainers.droc.settings import Settings
from trainers.droc.train import Droc

__all__ = ["Droc", "Settings"]
