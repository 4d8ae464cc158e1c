"""Applies the Terraform of ``deploy/terraform`` to moto, a stand-in for AWS, looks at what was built, and destroys it.

    python deploy/tests/apply_on_moto.py

Belongs here: starting moto, running Terraform on a copy, and what must then be true, asked through boto3. Does not belong
here: what a plan alone can tell (deploy/terraform/tests). Needs terraform on PATH (or ``--terraform``), its AWS provider
(TF_CLI_CONFIG_FILE may say where from), and the packages ``moto[server]`` and ``boto3``. It takes some five minutes,
mostly the provider's own waits.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

STACK = Path(__file__).parents[1] / "terraform"
NAME, REGION, ACCOUNT = "totesys", "eu-west-2", "123456789012"

VARIABLES = {
    "name": NAME,
    "region": REGION,
    "account_id": ACCOUNT,
    "deletion_protection": False,
    "totesys_cidrs": ["192.0.2.10/32"],
    "totesys_route": {"by": "nat"},
    "reader_cidrs": ["198.51.100.0/24"],
    "ui_host": "totesys.example.com",
    "certificate_arn": f"arn:aws:acm:{REGION}:{ACCOUNT}:certificate/00000000-0000-0000-0000-000000000000",
    "ui_allowed_cidrs": ["203.0.113.0/24"],
    "alarm_emails": ["data-team@example.com"],
    "monthly_budget_usd": 500,
    "image_tag": "0123abc",
    "github_repository": "example/totesys-assets",
    "state_bucket": "example-terraform-state",
}

# What the stack is not to know of: the stand-in wants paths instead of host names for buckets, answers 500 to what it
# cannot, and there is no bucket for the state.
OVERRIDE = """
terraform {
  backend "local" {}
}

provider "aws" {
  s3_use_path_style = true
  max_retries       = 2
}

provider "aws" {
  alias       = "passwords"
  max_retries = 2
}
"""


def serve(port: int) -> None:
    """Run moto, with what Terraform asks and moto does not know yet."""
    os.environ["MOTO_IAM_LOAD_MANAGED_POLICIES"] = "true"
    from moto.budgets.responses import BudgetsResponse
    from moto.server import main

    BudgetsResponse.list_tags_for_resource = lambda self: json.dumps({"ResourceTags": []})
    main(["--host", "127.0.0.1", "--port", str(port)])


@contextmanager
def moto() -> Iterator[str]:
    """A running moto: its URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryFile() as log:
        server = subprocess.Popen([sys.executable, __file__, "--serve", str(port)], stdout=log, stderr=log)
        try:
            for _ in range(600):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                if server.poll() is not None:
                    log.seek(0)
                    sys.exit(f"moto did not start: {log.read().decode()[-2000:]}")
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(30)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(int(sys.argv[2]))
    with moto() as url, tempfile.TemporaryDirectory() as folder:
        copy = Path(os.environ.get("COPY", folder)) / "stack"
        shutil.copytree(STACK, copy, ignore=shutil.ignore_patterns(".terraform*", "tests"))
        (copy / "moto_override.tf").write_text(OVERRIDE)
        (copy / "terraform.tfvars.json").write_text(json.dumps(VARIABLES))
        env = os.environ | {"AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none", "CHECKPOINT_DISABLE": "1", "TF_IN_AUTOMATION": "1"}
        for command in (["init", "-input=false", "-no-color"], ["apply", "-auto-approve", "-input=false", "-no-color"]):
            t = time.time()
            r = subprocess.run(["terraform", *command], cwd=copy, env=env)
            print(command[0], r.returncode, time.time() - t, flush=True)
        print(url, copy, flush=True)
        time.sleep(float(os.environ.get("HOLD", "0")))
