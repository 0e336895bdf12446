"""Readers, checks and downloads of published datasets in their official layouts."""
