"""What is wrong with what a user gives to the hub."""


class SourceError(ValueError):
    """Images, labels or files cannot be used as they are; the message names which."""
