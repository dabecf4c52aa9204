"""Classifiers in forms that other programs run, and files that show that their answers stay the same."""
