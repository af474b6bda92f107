"""Shows a set of result files as a leaderboard: as JSON, as a table in the terminal, as figures, and as one page."""
