# What variables.tf refuses: each of these values would fail only after minutes, in AWS, or not at all.

mock_provider "aws" {
  source = "./tests/mocks"
}

provider "aws" {
  alias                       = "passwords"
  region                      = "eu-west-2"
  access_key                  = "none"
  secret_key                  = "none"
  skip_credentials_validation = true
  skip_metadata_api_check     = true
  skip_requesting_account_id  = true

  endpoints {
    secretsmanager = "http://127.0.0.1:9" # nobody listens there
  }
}

run "refused" {
  command = plan

  variables {
    name                 = "Totesys_aws"
    region               = "eu-west-2"
    zones                = ["a", "a"]
    image_tag            = "latest"
    architecture         = "arm"
    sizes                = { daemon = { cpu = 256, memory = 16384 } }
    run_storage_gib      = 20
    stale_minutes        = 1.5
    totesys_schema       = "pg_totesys"
    first_day            = "2022-02-30"
    new_columns          = "add"
    range_rows           = 0.5
    spark                = { cidrs = ["0.0.0.0/0"], port = 50051 }
    vpc_cidr             = "10.0.0.0/8"
    totesys_cidrs        = ["0.0.0.0/0"]
    totesys_port         = 0
    totesys_route        = { by = "peering" }
    ui_host              = "-totesys.example.com"
    certificate_arn      = "arn:aws:acm:us-east-1:123456789012:certificate/00000000-0000-0000-0000-000000000000"
    ui_allowed_cidrs     = []
    api_key_hashes       = ["totesys_a-key-and-not-its-hash"]
    mfa                  = "OFF"
    lake_lock_days       = -1
    rates_url            = "http://www.ecb.europa.eu/stats/eurofxref/eurofxref-hist.zip"
    database_version     = "14"
    database_storage_gib = { first = 100, most = 109 }
    database_backup_days = 0
    password_version     = 1.5
    log_retention_days   = 100
    alarm_emails         = ["nobody"]
    late_seconds         = 0
    monthly_budget_usd   = 0
    record_days          = 6
    github_repository    = "example@1/totesys-assets"
  }

  expect_failures = [
    var.name, var.zones, var.image_tag, var.architecture, var.sizes, var.run_storage_gib, var.stale_minutes, var.totesys_schema, var.first_day, var.new_columns, var.range_rows, var.spark, var.vpc_cidr, var.totesys_cidrs,
    var.totesys_route, var.ui_host, var.certificate_arn, var.ui_allowed_cidrs, var.api_key_hashes, var.mfa, var.lake_lock_days, var.rates_url, var.database_version,
    var.database_storage_gib, var.database_backup_days, var.password_version, var.log_retention_days, var.alarm_emails,
    var.late_seconds, var.totesys_port, var.monthly_budget_usd, var.record_days, var.github_repository,
  ]
}

run "a_name_that_load_balancers_may_not_have" {
  command = plan

  variables {
    name             = "internal-data"
    region           = "eu-west-2"
    totesys_cidrs    = ["192.0.2.10/32"]
    ui               = "none"
    alarm_emails     = []
    password_version = 0
  }

  plan_options {
    target = [aws_iam_role_policy.ci] # plans only what it looks at
  }

  expect_failures = [var.name]
}

run "workflows_without_a_state" {
  command = plan

  variables {
    region            = "eu-west-2"
    totesys_cidrs     = ["192.0.2.10/32"]
    ui_host           = "totesys.example.com"
    certificate_arn   = "arn:aws:acm:eu-west-2:123456789012:certificate/00000000-0000-0000-0000-000000000000"
    ui_allowed_cidrs  = ["203.0.113.0/24"]
    alarm_emails      = []
    password_version  = 0
    github_repository = "example/totesys-assets"
  }

  plan_options {
    target = [aws_iam_role_policy.ci] # plans only what it looks at
  }

  expect_failures = [var.state_bucket]
}
