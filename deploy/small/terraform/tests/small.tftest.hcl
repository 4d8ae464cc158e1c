# The one machine: what is open, what it may do, what it begins with.

mock_provider "aws" {
  source = "../../terraform/tests/mocks"

  mock_data "aws_ssm_parameter" {
    defaults = { insecure_value = "ami-0123456789abcdef0" }
  }

  mock_resource "aws_sns_topic" {
    defaults = { arn = "arn:aws:sns:eu-west-2:123456789012:totesys-small-alarms" }
  }

  mock_resource "aws_ssm_parameter" {
    defaults = { arn = "arn:aws:ssm:eu-west-2:123456789012:parameter/totesys-small/settings" }
  }
}

variables {
  region       = "eu-west-2"
  ui_host      = "totesys.example.com"
  alarm_emails = ["ops@example.com"]
  repository   = "https://github.com/example/totesys-assets"
  release      = "v1.0.0"
}

run "machine" {
  command = apply

  assert {
    condition     = toset([for rule in aws_security_group.machine.ingress : rule.from_port]) == toset([80, 443]) && alltrue([for rule in aws_security_group.machine.ingress : rule.from_port == rule.to_port && rule.protocol == "tcp"])
    error_message = "Nothing is open but 80 and 443."
  }

  assert {
    condition     = aws_instance.machine.metadata_options[0].http_tokens == "required" && aws_instance.machine.root_block_device[0].encrypted && aws_instance.machine.disable_api_termination
    error_message = "Its disk is encrypted, its metadata ask for a token, and nobody ends it by mistake."
  }

  assert {
    condition     = aws_instance.machine.ami == "ami-0123456789abcdef0" && startswith(aws_instance.machine.instance_type, "t4g.")
    error_message = "An ARM64 machine with Ubuntu."
  }

  assert {
    condition = {
      for statement in jsondecode(aws_iam_role_policy.machine.policy).Statement : statement.Sid => statement.Resource
      } == {
      List            = "arn:aws:s3:::a-bucket"
      ReadAndAdd      = [for part in ["lake", "files", "backups"] : "arn:aws:s3:::a-bucket/${part}/*"]
      Tidy            = [for part in ["lake/processed", "lake/ledger", "lake/dead_letter", "lake/schema_registry", "lake/ingestion/*/_delta_log", "files/rates", "backups"] : "arn:aws:s3:::a-bucket/${part}/*"]
      Settings        = "arn:aws:ssm:eu-west-2:123456789012:parameter/totesys-small/settings"
      Tell            = "arn:aws:sns:eu-west-2:123456789012:totesys-small-alarms"
      SayThatItLooked = "*"
    }
    error_message = "Its role reaches the bucket, its settings and its topic alone, and removes nothing that was captured."
  }

  assert {
    condition     = !strcontains(aws_iam_role_policy.machine.policy, "Version\":\"s3") && !strcontains(aws_iam_role_policy.machine.policy, "DeleteObjectVersion")
    error_message = "What it removes stays as a version."
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.silent.treat_missing_data == "breaching" && aws_cloudwatch_metric_alarm.silent.namespace == "totesys-small" && aws_cloudwatch_metric_alarm.silent.alarm_actions == toset([aws_sns_topic.alarms.arn])
    error_message = "The alarm rings when nothing is heard."
  }

  assert {
    condition     = length(aws_route53_record.ui) == 0
    error_message = "Names are made only in a zone that was given."
  }

  assert {
    condition     = strcontains(output.cloud_init, "LAKE_URI=s3://") && strcontains(output.cloud_init, "SETTINGS_PARAMETER=/totesys-small/settings\n")
    error_message = "The machine is told where everything is."
  }
}

run "names" {
  command = apply

  variables {
    route53_zone_id = "Z0123456789EXAMPLE"
  }

  assert {
    condition     = toset([for record in aws_route53_record.ui : record.name]) == toset(["totesys.example.com", "view.totesys.example.com", "sales.totesys.example.com"])
    error_message = "All three names lead to it."
  }
}

run "nobody_to_tell" {
  command = plan

  variables {
    alarm_emails = []
  }

  expect_failures = [var.alarm_emails]
}

run "a_login_in_the_repository" {
  command = plan

  variables {
    repository = "https://user@github.com/example/totesys-assets"
  }

  expect_failures = [var.repository]
}
