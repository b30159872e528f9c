"""Data sets as iterables of `lossyless.base.Batch`, which are made on the training device."""
