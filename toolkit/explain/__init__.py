"""The importance of parts of an image or a text for a prediction, and what the layers do with it, as pictures."""
