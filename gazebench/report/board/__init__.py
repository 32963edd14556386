"""Leaderboards: Markdown and CSV that are committed, and pages for the browser that are built on demand."""

from gazebench.report.board.markdown import refresh, stale
from gazebench.report.board.site import build

__all__ = ["build", "refresh", "stale"]
