"""Writes the captions of the full-size data set: from a grammar, or from a file of paraphrases; checks every one."""
