"""Whether a line still looks like what its model was trained on.

For each camera the last frames are compared with the training's good pictures, signal by signal: raw score, brightness,
sharpness and position. `distance.py` is the test and its chance of being wrong, `reference.py` what training left,
`camera.py` one camera's window, `monitor.py` a line's cameras, `false_alarms.py` what a shift of the scores costs.
"""

from engine.drift.gauges import Gauges
from engine.drift.monitor import Monitor
from engine.drift.reference import Reference

__all__ = ["Gauges", "Monitor", "Reference"]
