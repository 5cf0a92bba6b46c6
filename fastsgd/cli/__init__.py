"""Owns the command line: each command builds a request and hands it on, nothing more."""

from . import bench, info, papers, report, runs, sweeps
from .app import app, main

__all__ = ["app", "bench", "info", "main", "papers", "report", "runs", "sweeps"]
