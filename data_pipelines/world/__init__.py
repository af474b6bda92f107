"""Makes a world of fictitious people: personas, portraits, captions and splits."""
