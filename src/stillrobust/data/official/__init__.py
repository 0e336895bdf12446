"""Official sets as they are served, their checks and downloads."""
