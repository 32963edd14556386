"""Gaze as questions and answers: how questions are worded, what is true of them, and how free answers are read."""
