"""The three stages of a job, and the training loop with its callbacks and loggers."""
