"""Making a world of fictitious people: who they are, how they look, what is said of them, and how it is split."""
