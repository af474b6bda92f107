"""Unlearning: methods as loss terms and gradient transforms, the step that runs any of them, and the loop around it."""
