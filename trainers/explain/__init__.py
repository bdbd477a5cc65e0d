"""Why a picture was scored as it was: integrated gradients, Grad-CAM and occlusion of any bundle's verdict."""

from trainers.explain.explanation import Explanation, Options, explain
from trainers.explain.page import Subject, write_explanations
from trainers.explain.shares import shares

__all__ = ["Explanation", "Options", "Subject", "explain", "shares", "write_explanations"]
