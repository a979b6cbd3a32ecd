"""Attacks on private text: extraction, membership, games about identifiers."""
