"""The deployment, as far as it can be checked without a cloud and without Docker."""
