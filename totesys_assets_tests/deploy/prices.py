"""List prices of AWS that the documents reckon with: us-east-1, on demand, US dollars, as of November 2026.

Belongs here: prices, and what the tables of docs/deploy.md and the sizes of Terraform say. Does not belong here: sums.
"""

from __future__ import annotations

import re
from pathlib import Path

PROJECT = Path(__file__).parents[2]
REGION, AS_OF = "us-east-1", "November 2026"
HOURS = 730
# Fargate, an hour of a vCPU and of a GB. https://aws.amazon.com/fargate/pricing/
X86, ARM = (0.04048, 0.004445), (0.03238, 0.00356)
# The sizes of a task: GB from and to, by vCPU.
FARGATE_GB = {0.5: (1, 4), 1: (2, 8), 2: (4, 16), 4: (8, 30), 8: (16, 60), 16: (32, 120)}
# RDS for PostgreSQL, one zone: an hour of db.r7g, by vCPU, each with 8 GB. https://aws.amazon.com/rds/postgresql/pricing/
R7G_HOURS = {2: 0.239, 4: 0.478, 8: 0.956, 16: 1.913, 32: 3.826}
GP3_GB = 0.115  # a month
# S3 Standard: a GB a month, a million requests. https://aws.amazon.com/s3/pricing/
S3_GB, S3_GETS, S3_PUTS = 0.023, 0.40, 5.00


def rows(document: str, first: str) -> list[list[str]]:
    """The cells of the table under "What it costs" whose head begins with a word."""
    table = document.partition("## What it costs")[2].partition(f"\n| {first} |")[2].partition("\n\n")[0]
    return [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def sizes(text: str) -> dict[str, tuple[float, float]]:
    """Kind of task -> vCPU and GB, of a file of Terraform."""
    found = re.findall(r"^\s+(\w+)\s+= \{ cpu = (\d+), memory = (\d+) \}", text, re.MULTILINE)
    return {kind: (int(cpu) / 1024, int(memory) / 1024) for kind, cpu, memory in found}


def services() -> str:
    """The file of Terraform that has the sizes of the tasks."""
    return (PROJECT / "deploy" / "terraform" / "services.tf").read_text(encoding="utf-8")
