"""Curation: which identities and portraits are kept, by thresholds measured on other people's portraits."""
