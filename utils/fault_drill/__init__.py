"""Fault drill: damages files and kills runs, and counts what it survives or detects.

`python -m utils.fault_drill` (`make fault-drill`) runs all drills, one module each.
"""
