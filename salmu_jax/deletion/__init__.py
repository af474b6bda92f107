"""Answers deletion requests: what was asked, and what a model knew of it before and after."""
