"""What a model thinks of a row: log-probabilities, losses, decodings."""
