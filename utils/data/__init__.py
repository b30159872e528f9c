"""Data sets as iterables of `lossyless.base.Batch`, made in batches on the training device."""
