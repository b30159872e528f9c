"""Data sets as iterables of `lossyless.batch.Batch`, made in batches on the training device."""
