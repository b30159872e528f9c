"""Fault drill: damages, kills and starves the project, and counts what it survives or detects.

`python -m utils.fault_drill` (`make fault-drill`) runs all drills, one module each.
"""
