"""Models and data sets to and from a Hub: push, pull, cards, and what may travel."""
