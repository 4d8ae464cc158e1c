# What people need who run the platform.

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
}

variables {
  region           = "eu-west-2"
  totesys_cidrs    = ["192.0.2.10/32"]
  ui_host          = "totesys.example.com"
  certificate_arn  = "arn:aws:acm:eu-west-2:123456789012:certificate/00000000-0000-0000-0000-000000000000"
  ui_allowed_cidrs = ["203.0.113.0/24"]
  alarm_emails     = []
  password_version = 0
}

run "operators" {
  command = plan

  plan_options {
    target = [aws_iam_policy.operator]
  }

  assert {
    condition = toset(flatten([for statement in jsondecode(aws_iam_policy.operator.policy).Statement : statement.Action])) == toset([
      "ecs:DescribeServices", "ecs:DescribeTaskDefinition", "ecs:DescribeTasks", "ecs:RunTask", "ecs:StopTask", "ecs:TagResource",
      "iam:PassRole", "logs:GetLogEvents",
    ])
    error_message = "Operators start, follow and end commands, and do nothing else."
  }

  assert {
    condition     = one([for statement in jsondecode(aws_iam_policy.operator.policy).Statement : statement.Resource if statement.Sid == "StartRuns"]) == "arn:aws:ecs:eu-west-2:123456789012:task-definition/totesys-run:*"
    error_message = "They start the task of large runs and no other."
  }

  assert {
    condition     = one([for statement in jsondecode(aws_iam_policy.operator.policy).Statement : statement.Resource if statement.Sid == "HandRunsTheirRoles"]) == ["arn:aws:iam::123456789012:role/totesys-run-execution", "arn:aws:iam::123456789012:role/totesys-run-task"]
    error_message = "They hand over its two roles and no other."
  }
}
