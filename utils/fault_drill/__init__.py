"""Fault drill: damages, kills and starves the project; counts the faults it survives or detects.

`python -m utils.fault_drill` (`make fault-drill`) runs all drills, one module each.
"""
