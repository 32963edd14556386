"""Leaderboards as pages: Markdown and CSV a dataset, one static HTML page over all, and a report page a run."""

from gazebench.report.board.site import local, refresh, stale

__all__ = ["local", "refresh", "stale"]
