"""Writes deploy/terraform/rates.zip, the function as AWS takes it, from rates.py.

    python deploy/lambda/package.py

The file is kept beside the Terraform, so that a plan, an apply and a rollback take the very same one and need no step
before them. It is packed without compression and without a time: the same source gives the same bytes everywhere, and
a test holds both to each other.
"""

import io
import zipfile
from pathlib import Path

SOURCE = Path(__file__).with_name("rates.py")
PACKAGE = Path(__file__).parents[1] / "terraform" / "rates.zip"


def packed() -> bytes:
    """The ZIP of the function."""
    entry = zipfile.ZipInfo(SOURCE.name)  # of 1980
    entry.create_system, entry.external_attr = 3, 0o100644 << 16  # Lambda must be able to read it
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as package:
        package.writestr(entry, SOURCE.read_bytes())
    return packed.getvalue()


if __name__ == "__main__":
    PACKAGE.write_bytes(packed())
