"""Scores with 95% intervals, and paired comparisons."""
