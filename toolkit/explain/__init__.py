"""What counts in an image or a text for a model, and what its layers do with it, computed and drawn."""
