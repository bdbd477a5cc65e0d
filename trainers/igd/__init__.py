"""IGD, Interpolated Gaussian Descriptor (Chen et al. 2022): two autoencoders with a Gaussian in between.

`train.py` is the method from pictures to bundle. One model: `encoder.py` (f), `decoder.py` (g and the critic d),
`model.py` the two together, `latent.py` the E-step, `losses.py` the M-step's terms, `msssim.py` the similarity in them,
`learn.py` the optimisation, `pretrain.py` and `views.py` the encoder before it. Two models: `patches.py` and
`pictures.py` what the local one sees, `detector.py` how they are fused. `settings.py` is everything that can be set,
`variants.py` the paper's tables.
"""

from trainers.igd.settings import Objective, Settings
from trainers.igd.train import Igd

__all__ = ["Igd", "Objective", "Settings"]
