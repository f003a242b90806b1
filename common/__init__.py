"""The shared core: pixels, pseudo-labels and the training step, for any imaging domain."""
