# One bucket: what all of ours have in common.

mock_provider "aws" {
  source = "./tests/mocks"
}

run "bucket" {
  command = apply

  module {
    source = "./modules/bucket"
  }

  variables {
    name            = "a-lake"
    kms_key_arn     = "arn:aws:kms:eu-west-2:123456789012:key/11111111-1111-1111-1111-111111111111"
    noncurrent_days = 90
    lock_days       = 30
    log_bucket      = "some-logs"
    force_destroy   = false
    expire_days     = { "old/" = 5 }
    statements      = jsonencode([{ Sid = "More", Effect = "Allow", Principal = { Service = "logging.s3.amazonaws.com" }, Action = "s3:PutObject", Resource = "arn:aws:s3:::a-lake/*" }])
  }

  assert {
    condition     = aws_s3_bucket_public_access_block.bucket.block_public_acls && aws_s3_bucket_public_access_block.bucket.block_public_policy && aws_s3_bucket_public_access_block.bucket.ignore_public_acls && aws_s3_bucket_public_access_block.bucket.restrict_public_buckets
    error_message = "The public is kept out."
  }

  assert {
    condition     = aws_s3_bucket_versioning.bucket.versioning_configuration[0].status == "Enabled"
    error_message = "What is replaced or deleted stays as a version."
  }

  assert {
    condition     = one(aws_s3_bucket_server_side_encryption_configuration.bucket.rule).apply_server_side_encryption_by_default[0].sse_algorithm == "aws:kms" && one(aws_s3_bucket_server_side_encryption_configuration.bucket.rule).bucket_key_enabled
    error_message = "Objects are encrypted with the key."
  }

  assert {
    condition     = aws_s3_bucket.bucket.object_lock_enabled && aws_s3_bucket_object_lock_configuration.bucket[0].rule[0].default_retention[0].mode == "GOVERNANCE" && aws_s3_bucket_object_lock_configuration.bucket[0].rule[0].default_retention[0].days == 30
    error_message = "Versions are locked for the days asked for."
  }

  assert {
    condition     = [for statement in output.policy.Statement : "${statement.Effect} ${statement.Sid}"] == ["Deny TlsOnly", "Deny Tls12OrLater", "Allow More"]
    error_message = "The bucket refuses what is not TLS 1.2 or later."
  }

  assert {
    condition     = [for rule in aws_s3_bucket_lifecycle_configuration.bucket.rule : rule.id] == ["old-versions", "expire-old"]
    error_message = "Old versions and what has a date of expiry go."
  }

  assert {
    condition     = aws_s3_bucket_logging.bucket[0].target_bucket == "some-logs"
    error_message = "Access is logged."
  }
}

run "without_retention" {
  command = plan

  module {
    source = "./modules/bucket"
  }

  variables {
    name            = "a-lake"
    noncurrent_days = 7
    lock_days       = 0
    force_destroy   = true
  }

  assert {
    condition     = aws_s3_bucket.bucket.object_lock_enabled && length(aws_s3_bucket_object_lock_configuration.bucket) == 0
    error_message = "0 days: locks are possible, and none is set by itself."
  }

  assert {
    condition     = one(aws_s3_bucket_server_side_encryption_configuration.bucket.rule).apply_server_side_encryption_by_default[0].sse_algorithm == "AES256" && length(aws_s3_bucket_logging.bucket) == 0
    error_message = "Without a key S3 encrypts with its own, and without a log bucket nothing is logged."
  }
}
