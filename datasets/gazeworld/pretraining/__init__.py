"""Data and training loop of the embedded models: labels of drawn images, none of which depends on a gaze."""
