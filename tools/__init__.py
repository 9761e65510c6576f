"""Checks of what is shipped around the code: the image, the manifests, the packages.  Run by make."""
