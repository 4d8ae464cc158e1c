# Alarms before the first image, and an objective of one's own.

mock_provider "aws" {
  source = "./tests/mocks"
}

# Never asked: with password_version 0 no password is made.
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
  alarm_emails     = ["data-team@example.com"]
  password_version = 0 # stand-ins know no ephemeral resources
}

run "before_the_first_image" {
  command = plan

  assert {
    condition     = toset([for name, alarm in aws_cloudwatch_metric_alarm.alarm : name if !alarm.actions_enabled]) == toset(["nothing-runs", "webserver-unhealthy", "viewer-unhealthy", "dashboard-unhealthy"])
    error_message = "Before there is an image, nobody is told that nothing runs."
  }

  assert {
    condition     = alltrue([for setting in aws_ecs_cluster.main.setting : setting.value == "disabled"])
    error_message = "Nobody pays for measurements that no alarm looks at."
  }
}

run "an_objective_of_ones_own" {
  command = plan

  variables {
    image_tag    = "0123abc"
    late_seconds = 90
  }

  assert {
    condition     = alltrue([for alarm in aws_cloudwatch_metric_alarm.alarm : alarm.actions_enabled])
    error_message = "With an image, every alarm is on."
  }

  assert {
    condition     = aws_cloudwatch_log_metric_filter.event["RefreshesLate"].pattern == "{ $.totesys_event = \"refreshed\" && $.seconds > 90 }"
    error_message = "Late is what late_seconds says."
  }
}
