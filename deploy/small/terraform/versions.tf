# What runs this. The state stays on the machine it is run on unless a backend is added: it holds no secret.

terraform {
  required_version = ">= 1.11, < 2.0" # 1.11 has write-only arguments: the settings do not enter the state

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.100.0, < 7.0.0" # which: .terraform.lock.hcl, that of the large stack
    }
  }
}

provider "aws" {
  region = var.region

  default_tags {
    tags = { Project = "totesys-assets", Stack = var.name, ManagedBy = "terraform" }
  }
}
