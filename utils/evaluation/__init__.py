"""Linear evaluation, image quality, and communication: bits, quality and times."""
