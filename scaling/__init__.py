"""The science of scaling laws: laws, fits with intervals, forecasts, and where to put the next FLOP.

Usable alone, without torch or MLflow. Names are loaded when they are first used, so importing this costs nothing.
"""
