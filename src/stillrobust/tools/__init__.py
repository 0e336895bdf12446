"""Tools beside training and evaluation: folders, conformance, protocol differences, doctor."""
