"""The shelf of reports: tables and figures that read results and compute nothing new."""
