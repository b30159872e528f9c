"""The three stages of a job, and training with its callbacks and loggers."""
