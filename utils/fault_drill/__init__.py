"""Fault drill: damages files, kills and starves jobs, and counts the faults survived or detected.

`python -m utils.fault_drill` (`make fault-drill`) runs all drills.
"""
