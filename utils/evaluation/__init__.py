"""Linear evaluation, image quality, and the cost of communication (bits, quality, times)."""
