"""What stands alone beside training and evaluation: folders of photos, conformance, differences,
the doctor.
"""
