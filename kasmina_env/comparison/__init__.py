"""Arms played on the same episodes, their statistics, pages and pictures; calibration."""
