"""Command lines to resolved configs, and the checks of their settings."""
