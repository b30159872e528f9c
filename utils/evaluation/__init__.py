"""Linear evaluation, quality of decoded data, and the cost of communication (bits, times)."""
