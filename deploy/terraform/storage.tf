# Buckets: lake (all zones under one URI, so one key and one policy; IAM tells prefixes apart; dropped files beside them), work, logs.

locals {
  bucket_suffix = "${local.account}-${var.region}" # names of buckets are the whole world's
}

module "logs" {
  source = "./modules/bucket"

  name            = "${var.name}-logs-${local.bucket_suffix}"
  noncurrent_days = 7
  expire_days     = { "" = var.log_retention_days }
  force_destroy   = !var.deletion_protection

  statements = jsonencode(concat([
    {
      Sid       = "LoadBalancerLogs"
      Effect    = "Allow"
      Principal = { Service = "logdelivery.elasticloadbalancing.amazonaws.com" }
      Action    = "s3:PutObject"
      Resource  = "${local.arn}:s3:::${var.name}-logs-${local.bucket_suffix}/load-balancer/AWSLogs/${local.account}/*"
      Condition = { ArnLike = { "aws:SourceArn" = "${local.arn}:elasticloadbalancing:${var.region}:${local.account}:loadbalancer/*" } }
    },
    ], [for part in ["lake", "work"] : {
      Sid       = "LogsOf${title(part)}"
      Effect    = "Allow"
      Principal = { Service = "logging.s3.amazonaws.com" }
      Action    = "s3:PutObject"
      Resource  = "${local.arn}:s3:::${var.name}-logs-${local.bucket_suffix}/s3/${var.name}-${part}-${local.bucket_suffix}/*"
      Condition = {
        StringEquals = { "aws:SourceAccount" = local.account }
        ArnEquals    = { "aws:SourceArn" = "${local.arn}:s3:::${var.name}-${part}-${local.bucket_suffix}" }
      }
  }]))
}

module "lake" {
  source = "./modules/bucket"

  name            = "${var.name}-lake-${local.bucket_suffix}"
  kms_key_arn     = aws_kms_key.key["data"].arn
  noncurrent_days = var.lake_noncurrent_days
  lock_days       = var.lake_lock_days
  log_bucket      = module.logs.name
  force_destroy   = !var.deletion_protection
}

module "work" {
  source = "./modules/bucket"

  name            = "${var.name}-work-${local.bucket_suffix}"
  kms_key_arn     = aws_kms_key.key["data"].arn
  noncurrent_days = 7
  expire_days     = { "compute-logs/" = 90, "athena-results/" = 30 }
  log_bucket      = module.logs.name
  force_destroy   = !var.deletion_protection
}
