"""The page on which people teach a classifier by examples: its projects, what it learns, and what it shows."""
