"""Data that are drawn: scenes for the tasks, and the source set."""
