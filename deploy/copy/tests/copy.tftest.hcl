# The copy: closed, locked and encrypted as the lake, and no role that could do more than copy.

mock_provider "aws" {
  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }
  mock_data "aws_partition" {
    defaults = { partition = "aws" }
  }
  mock_data "aws_kms_alias" {
    defaults = { target_key_arn = "arn:aws:kms:eu-west-2:123456789012:key/lake" }
  }
  mock_resource "aws_iam_role" {
    defaults = { arn = "arn:aws:iam::123456789012:role/totesys-lake-copy" }
  }
}

mock_provider "aws" {
  alias = "copy"
  mock_resource "aws_s3_bucket" {
    defaults = { arn = "arn:aws:s3:::the-copy" }
  }
  mock_resource "aws_sns_topic" {
    defaults = { arn = "arn:aws:sns:eu-west-1:123456789012:totesys-copy-alarms" }
  }
  mock_resource "aws_kms_key" {
    defaults = { arn = "arn:aws:kms:eu-west-1:123456789012:key/copy" }
  }
}

variables {
  region      = "eu-west-2"
  copy_region = "eu-west-1"

  alarm_emails = ["data-team@example.com"]
}

run "copy" {
  command = apply

  assert {
    condition     = aws_s3_bucket_replication_configuration.copy.bucket == "totesys-lake-123456789012-eu-west-2" && module.copy.name == "totesys-copy-123456789012-eu-west-1"
    error_message = "The lake's bucket is that of the stack, and the copy's lies in the other region."
  }

  assert {
    condition     = one(aws_s3_bucket_replication_configuration.copy.rule[0].source_selection_criteria[0].sse_kms_encrypted_objects[*].status) == "Enabled" && one(aws_s3_bucket_replication_configuration.copy.rule[0].destination[0].encryption_configuration[*].replica_kms_key_id) == "arn:aws:kms:eu-west-1:123456789012:key/copy"
    error_message = "Encrypted objects are copied too, under the key of the other region."
  }

  assert {
    condition     = one(aws_s3_bucket_replication_configuration.copy.rule[0].delete_marker_replication[*].status) == "Enabled"
    error_message = "What is removed from the lake is removed from its copy."
  }

  assert {
    condition = toset(flatten([for statement in jsondecode(aws_iam_role_policy.copy.policy).Statement : statement.Action if length(regexall("the-copy|key/copy", jsonencode(statement.Resource))) > 0])) == toset([
      "s3:ReplicateObject", "s3:ReplicateDelete", "s3:ReplicateTags", "kms:Encrypt", "kms:GenerateDataKey",
    ])
    error_message = "Of the copy, the role writes objects and marks, and destroys no version."
  }

  assert {
    condition     = length([for statement in jsondecode(aws_iam_role_policy.copy.policy).Statement : statement if length(regexall("Put|Delete|Replicate[OD]", jsonencode(statement.Action))) > 0 && length(regexall("totesys-lake", jsonencode(statement.Resource))) > 0]) == 0
    error_message = "Of the lake, the role only reads."
  }

  # S3 publishes how far behind a copy is in the region of the copy, and what failed in that of the original.
  assert {
    condition     = one(aws_cloudwatch_metric_alarm.behind.alarm_actions) == "arn:aws:sns:eu-west-1:123456789012:totesys-copy-alarms" && one(aws_cloudwatch_metric_alarm.failed.alarm_actions) == "arn:aws:sns:eu-west-2:123456789012:totesys-alerts"
    error_message = "Each alarm is told to a topic of its own region."
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.behind.dimensions.RuleId == aws_s3_bucket_replication_configuration.copy.rule[0].id && aws_cloudwatch_metric_alarm.behind.dimensions.SourceBucket == aws_s3_bucket_replication_configuration.copy.bucket
    error_message = "The alarms look at the rule that copies."
  }
}

run "the_same_region_is_no_copy" {
  command = plan

  variables {
    copy_region = "eu-west-2"
  }

  expect_failures = [var.copy_region]
}
