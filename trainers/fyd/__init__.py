"""FYD, Focus Your Distribution (Zheng et al. 2021): aligned dense features, a Gaussian per position, Mahalanobis map.

`train.py` is the method from pictures to bundle; `model.py` its network; `alignment.py` (ICA, FCA) and
`noncontrastive.py` the learnt parts, `learn.py` their optimisation; `settings.py` everything that can be set.
"""

from trainers.fyd.settings import Settings
from trainers.fyd.train import Fyd

__all__ = ["Fyd", "Settings"]
