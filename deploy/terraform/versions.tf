# What runs this, where its state lies, and how it reaches AWS.

terraform {
  required_version = ">= 1.11, < 2.0" # 1.11 has write-only arguments: no password of a role enters the state

  required_providers {
    aws = {
      source = "hashicorp/aws"
      # .terraform.lock.hcl says which, with the hashes for every kind of machine. What is used here is in all of these.
      version = ">= 5.100.0, < 7.0.0"
    }
  }

  # The rest comes from backend.hcl: see backend.hcl.example.
  backend "s3" {
    encrypt      = true
    use_lockfile = true
  }
}

provider "aws" {
  region              = var.region
  allowed_account_ids = var.account_id == null ? null : [var.account_id]

  default_tags {
    tags = merge(var.tags, { Project = "totesys-assets", Stack = var.name, ManagedBy = "terraform" }) # rights go by Stack
  }
}

# For passwords alone: terraform test has no stand-in for ephemeral resources, and must be able to tell them apart.
provider "aws" {
  alias               = "passwords"
  region              = var.region
  allowed_account_ids = var.account_id == null ? null : [var.account_id]
}
