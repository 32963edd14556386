"""What the embedded models are pre-trained on: labels of drawn pictures, none of which depends on a gaze."""
