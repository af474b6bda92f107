"""The leaderboard of a set of result files: as JSON, as a table in the terminal, as figures, and as one page."""
