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
  command = apply # what a role may do is known once its bucket is there

  plan_options {
    target = [aws_iam_policy.operator, aws_iam_role_policy.restore, aws_vpc_endpoint.s3]
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

  # Anything of a version would go round the object lock's purpose: s3:DeleteObjectVersion destroys what was there.
  assert {
    condition = toset(flatten([for statement in jsondecode(aws_iam_role_policy.restore.policy).Statement : statement.Action])) == toset([
      "kms:Decrypt", "kms:GenerateDataKey", "s3:AbortMultipartUpload", "s3:DeleteObject", "s3:GetBucketVersioning",
      "s3:GetLifecycleConfiguration", "s3:GetObject", "s3:GetObjectVersion", "s3:ListBucket", "s3:ListBucketVersions", "s3:PutObject",
    ])
    error_message = "A restore reads and puts back versions of the lake, and destroys none."
  }

  assert {
    condition     = alltrue([for statement in jsondecode(aws_iam_role_policy.restore.policy).Statement : endswith(statement.Resource, "/totesys/*") if length(setintersection(flatten([statement.Action]), ["s3:PutObject", "s3:DeleteObject"])) > 0])
    error_message = "It writes to the lake and to nothing beside it."
  }

  assert {
    condition = length(setsubtract(
      [for action in flatten([for statement in jsondecode(aws_iam_role_policy.restore.policy).Statement : statement.Action]) : action if startswith(action, "s3:")],
      flatten([for statement in jsondecode(aws_vpc_endpoint.s3.policy).Statement : statement.Action if statement.Sid == "OwnBuckets"]),
      )) == 0 && length(setsubtract(
      flatten([for statement in jsondecode(aws_iam_role_policy.restore.policy).Statement : statement.Action]),
      flatten([for statement in jsondecode(aws_iam_policy.boundary.policy).Statement : statement.Action]),
    )) == 0
    error_message = "Neither the network's endpoint nor the boundary stands in the way of a restore."
  }
}
