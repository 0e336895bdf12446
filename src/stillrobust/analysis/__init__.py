"""From measurements to robustness, its intervals, estimates and details."""
