"""Tools: corrupted folders, conformance of other libraries, protocol differences, doctor."""
