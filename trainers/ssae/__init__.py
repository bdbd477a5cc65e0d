"""SSAE, Self-Supervised Training with Autoencoders (Bauer): a dilated autoencoder that repairs what is odd; error map.

`train.py` is the method from pictures to bundle; `model.py` its network (Table 1); `objective.py` equations 1 and 2;
`corrupt.py` the corrupted copies (Figure 4), `views.py` crops and turns; `learn.py` the optimisation, `separation.py`
its early stopping; `settings.py` everything that can be set.
"""

from trainers.ssae.settings import Settings
from trainers.ssae.train import Ssae

__all__ = ["Settings", "Ssae"]
