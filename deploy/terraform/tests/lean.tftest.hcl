# The lean profile: the values of lean.tfvars, and what comes of them.

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

variables {
  region           = "eu-west-2"
  totesys_cidrs    = ["192.0.2.10/32"]
  ui_host          = "totesys.example.com"
  certificate_arn  = "arn:aws:acm:eu-west-2:123456789012:certificate/00000000-0000-0000-0000-000000000000"
  ui_allowed_cidrs = ["203.0.113.0/24"]
  alarm_emails     = []
  password_version = 0

  architecture              = "ARM64"
  endpoint_zones            = 1
  database_multi_az         = false
  database_class            = "db.t4g.small"
  viewer                    = false
  database_most_connections = 150
  sizes                     = { daemon = { cpu = 1024, memory = 4096 }, run = { cpu = 2048, memory = 8192 } }
}

run "lean" {
  command = apply

  assert {
    condition     = toset(keys(aws_ecs_service.service)) == toset(["code", "daemon", "webserver", "dashboard"]) && toset(keys(aws_lb_listener_rule.host)) == toset(["webserver", "dashboard"]) && length(module.viewer) == 0
    error_message = "Viewers have the dashboard, and no UI of Dagster."
  }

  assert {
    condition     = one([for each in module.insights["dashboard"].definition.environment : each.value if each.name == "TOTESYS_UI_URL"]) == "" && output.viewer_url == null
    error_message = "The dashboard links to no UI that is not there."
  }

  assert {
    condition     = alltrue([for endpoint in aws_vpc_endpoint.interface : length(endpoint.subnet_ids) == 1])
    error_message = "Endpoints are in one zone."
  }

  assert {
    condition     = !aws_db_instance.database.multi_az && aws_db_instance.database.instance_class == "db.t4g.small"
    error_message = "The database has no standby."
  }

  assert {
    condition     = output.fargate_vcpu.least <= 6
    error_message = "It fits into what a new account may run on Fargate."
  }
}

run "three_zones" {
  command = plan

  variables {
    endpoint_zones = 3
  }

  expect_failures = [var.endpoint_zones]
}
