"""Leaderboards, report pages, paper tables and comparisons."""
