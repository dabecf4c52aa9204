"""Figures of predictions with 95% intervals, and paired comparisons. Importing its modules loads only NumPy."""
