# A copy of the lake in another region, kept by S3: every new object, and every removal, within minutes.
#
# It is a configuration of its own, with a state of its own, for it is needed when the stack's region is not there. The
# stack knows nothing of it. Only the lake is copied: all that the database holds is made from it (the warehouse) or can
# be done without (Dagster's records). docs/deploy.md says what it costs, and how to come back from it.

terraform {
  required_version = ">= 1.11, < 2.0"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.100.0, < 7.0.0"
    }
  }

  # Best a bucket in the copy's region: terraform init -backend-config=backend.hcl
  backend "s3" {
    encrypt      = true
    use_lockfile = true
  }
}

variable "name" {
  description = "Name of the stack, as in its terraform.tfvars."
  type        = string
  default     = "totesys"
}

variable "region" {
  description = "AWS region of the stack."
  type        = string
}

variable "copy_region" {
  description = "AWS region of the copy, for example eu-west-1."
  type        = string

  validation {
    condition     = var.copy_region != var.region
    error_message = "copy_region is another region than that of the stack."
  }
}

variable "account_id" {
  description = "The AWS account that this may be applied to. Null: whichever the credentials lead to."
  type        = string
  default     = null
}

variable "lock_days" {
  description = "Days for which no version in the copy can be removed (object lock, governance mode)."
  type        = number
  default     = 30
}

variable "noncurrent_days" {
  description = "Days for which replaced and removed objects are kept as old versions."
  type        = number
  default     = 90
}

variable "alarm_emails" {
  description = "Who is told when the copy is behind. AWS asks each of them to confirm."
  type        = list(string)
}

variable "force_destroy" {
  description = "Destroy the copy with what is in it."
  type        = bool
  default     = false
}

locals {
  tags = { Project = "totesys-assets", Stack = var.name, ManagedBy = "terraform" }
}

provider "aws" {
  region              = var.region
  allowed_account_ids = var.account_id == null ? null : [var.account_id]

  default_tags {
    tags = local.tags
  }
}

provider "aws" {
  alias               = "copy"
  region              = var.copy_region
  allowed_account_ids = var.account_id == null ? null : [var.account_id]

  default_tags {
    tags = local.tags
  }
}

data "aws_caller_identity" "current" {}

data "aws_partition" "current" {}

locals {
  account = data.aws_caller_identity.current.account_id
  arn     = "arn:${data.aws_partition.current.partition}"
  lake    = "${var.name}-lake-${local.account}-${var.region}" # as storage.tf of the stack calls it
}

data "aws_kms_alias" "lake" {
  name = "alias/${var.name}-data"
}

# The copy -------------------------------------------------------------------------------------------------------------

resource "aws_kms_key" "copy" {
  provider = aws.copy

  description             = "${var.name}: copy of the lake"
  enable_key_rotation     = true
  deletion_window_in_days = var.force_destroy ? 7 : 30
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "LetIamDecide"
        Effect    = "Allow"
        Principal = { AWS = "${local.arn}:iam::${local.account}:root" }
        Action    = "kms:*" # any: without it, what IAM allows is void, and the key could never be changed again
        Resource  = "*"     # any: in a key policy this is the key itself
      },
      {
        Sid       = "Alarms"
        Effect    = "Allow"
        Principal = { Service = "cloudwatch.amazonaws.com" }
        Action    = ["kms:Decrypt", "kms:GenerateDataKey"]
        Resource  = "*" # any: in a key policy this is the key itself
        Condition = { StringEquals = { "aws:SourceAccount" = local.account } }
      },
    ]
  })
}

module "copy" {
  source    = "../terraform/modules/bucket"
  providers = { aws = aws.copy }

  name            = "${var.name}-copy-${local.account}-${var.copy_region}"
  kms_key_arn     = aws_kms_key.copy.arn
  noncurrent_days = var.noncurrent_days
  lock_days       = var.lock_days
  force_destroy   = var.force_destroy
}

# How it is kept -------------------------------------------------------------------------------------------------------

resource "aws_iam_role" "copy" {
  name        = "${var.name}-lake-copy"
  description = "Copies the lake of ${var.name} to ${var.copy_region}"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "Replication"
      Effect    = "Allow"
      Principal = { Service = "s3.amazonaws.com" }
      Action    = "sts:AssumeRole"
      Condition = { StringEquals = { "aws:SourceAccount" = local.account }, ArnEquals = { "aws:SourceArn" = "${local.arn}:s3:::${local.lake}" } }
    }]
  })
}

resource "aws_iam_role_policy" "copy" {
  name = "copy"
  role = aws_iam_role.copy.name
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid      = "WhatToCopy"
        Effect   = "Allow"
        Action   = ["s3:GetReplicationConfiguration", "s3:ListBucket"]
        Resource = "${local.arn}:s3:::${local.lake}"
      },
      {
        Sid      = "ReadVersions"
        Effect   = "Allow"
        Action   = ["s3:GetObjectVersionForReplication", "s3:GetObjectVersionAcl", "s3:GetObjectVersionTagging", "s3:GetObjectRetention", "s3:GetObjectLegalHold"]
        Resource = "${local.arn}:s3:::${local.lake}/*"
      },
      {
        Sid      = "WriteCopies"
        Effect   = "Allow"
        Action   = ["s3:ReplicateObject", "s3:ReplicateDelete", "s3:ReplicateTags"]
        Resource = "${module.copy.arn}/*"
      },
      {
        Sid       = "KeyOfTheLake"
        Effect    = "Allow"
        Action    = "kms:Decrypt"
        Resource  = data.aws_kms_alias.lake.target_key_arn
        Condition = { StringEquals = { "kms:ViaService" = "s3.${var.region}.amazonaws.com" } }
      },
      {
        Sid       = "KeyOfTheCopy"
        Effect    = "Allow"
        Action    = ["kms:Encrypt", "kms:GenerateDataKey"]
        Resource  = aws_kms_key.copy.arn
        Condition = { StringEquals = { "kms:ViaService" = "s3.${var.copy_region}.amazonaws.com" } }
      },
    ]
  })
}

resource "aws_s3_bucket_replication_configuration" "copy" {
  bucket = local.lake
  role   = aws_iam_role.copy.arn

  rule {
    id     = "lake-copy"
    status = "Enabled"

    filter {} # all of it: lake and dropped files

    # What was removed is removed there too, by a mark: no version goes.
    delete_marker_replication {
      status = "Enabled"
    }

    source_selection_criteria {
      sse_kms_encrypted_objects {
        status = "Enabled" # without it S3 passes over everything, silently
      }
    }

    destination {
      bucket = module.copy.arn # in the class of the original: cheaper ones charge each of many small files as a large one

      encryption_configuration {
        replica_kms_key_id = aws_kms_key.copy.arn
      }

      # How far behind the copy is; that it is never more than 15 minutes, S3 then promises.
      metrics {
        status = "Enabled"

        event_threshold {
          minutes = 15
        }
      }

      replication_time {
        status = "Enabled"

        time {
          minutes = 15
        }
      }
    }
  }

  depends_on = [aws_iam_role_policy.copy]
}

# When it is not kept ---------------------------------------------------------------------------------------------------

# How far behind the copy is, S3 says in the copy's region, and an alarm can only be told to a topic of its own region.
resource "aws_sns_topic" "alarms" {
  provider = aws.copy

  name              = "${var.name}-copy-alarms"
  kms_master_key_id = aws_kms_key.copy.arn
}

resource "aws_sns_topic_subscription" "email" {
  provider = aws.copy
  for_each = toset(var.alarm_emails)

  topic_arn = aws_sns_topic.alarms.arn
  protocol  = "email"
  endpoint  = each.value
}

locals {
  rule = { SourceBucket = local.lake, DestinationBucket = module.copy.name, RuleId = "lake-copy" }
}

resource "aws_cloudwatch_metric_alarm" "behind" {
  provider = aws.copy

  alarm_name          = "${var.name}-copy-behind"
  alarm_description   = "The copy of the lake in ${var.copy_region} has been more than an hour behind."
  namespace           = "AWS/S3"
  metric_name         = "ReplicationLatency" # seconds
  dimensions          = local.rule
  statistic           = "Maximum"
  period              = 300
  evaluation_periods  = 3
  threshold           = 3600
  comparison_operator = "GreaterThanThreshold"
  treat_missing_data  = "notBreaching" # nothing is to be copied
  alarm_actions       = [aws_sns_topic.alarms.arn]
  ok_actions          = [aws_sns_topic.alarms.arn]
}

# What S3 gave up, it counts in the lake's region: the topic is the stack's.
resource "aws_cloudwatch_metric_alarm" "failed" {
  alarm_name          = "${var.name}-copy-failed"
  alarm_description   = "S3 gave up copying objects of the lake to ${var.copy_region}."
  namespace           = "AWS/S3"
  metric_name         = "OperationsFailedReplication"
  dimensions          = local.rule
  statistic           = "Sum"
  period              = 3600
  evaluation_periods  = 1
  threshold           = 0
  comparison_operator = "GreaterThanThreshold"
  treat_missing_data  = "notBreaching" # nothing failed
  alarm_actions       = ["${local.arn}:sns:${var.region}:${local.account}:${var.name}-alerts"]
}

output "copy" {
  description = "Bucket of the copy."
  value       = module.copy.name
}
