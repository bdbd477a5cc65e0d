"""Why a picture was scored as it was: integrated gradients, Grad-CAM and occlusion of any bundle's verdict."""

from trainers.explain.explanation import Explanation, Options, explain
from trainers.explain.page import write_explanations

__all__ = ["Explanation", "Options", "explain", "write_explanations"]
