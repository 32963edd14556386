"""What the embedded models are pre-trained on: labels of drawn images, none of which depends on a gaze."""
