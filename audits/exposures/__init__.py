"""How far a secret is from chance: ranks that are counted, and ranks that are sampled."""
