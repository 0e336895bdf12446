"""Robustness from measurements, with intervals, budget estimates and breakdowns."""
