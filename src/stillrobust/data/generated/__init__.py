"""Generated images: scenes for the three tasks, and a source set for upstream training."""
