"""Portraits of fictitious people: sources of them (drawn, or a folder), and the step that writes them as tars."""
