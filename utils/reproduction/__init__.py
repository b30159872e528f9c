"""Run experiments within a budget, and report published numbers next to ours."""
