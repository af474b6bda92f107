"""Chooses a method's options honestly: within a validation world that lies inside what a method may read."""
