"""Explanations of image classifiers: kernels, feature maps and importance maps, computed and drawn."""
