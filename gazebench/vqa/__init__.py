"""Gaze as visual question answering: files of questions, whoever answers them, scores and tables (docs/vqa.md)."""
