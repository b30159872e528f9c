"""Composes configs from command lines, and checks their settings."""
