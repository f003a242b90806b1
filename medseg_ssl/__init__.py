"""Volumes: NIfTI in, NIfTI out, in millimetres, on MONAI."""
