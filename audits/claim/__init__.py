"""Whether guesses contradict a plan, what could have been found, and what noised sums say."""
