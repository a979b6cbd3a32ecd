"""Canaries: drawn and committed to before training, and put into it."""
