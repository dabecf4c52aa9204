"""The page on which people teach a classifier by examples: its projects, what it learns, and what it shows."""

UPLOADS = ".toolkit-app-uploads"  # folder of the server's copies, which are deleted when it ends
