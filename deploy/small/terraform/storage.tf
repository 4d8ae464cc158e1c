# The bucket with lake, dropped files and backups; the settings; what the machine may do with them.

data "aws_caller_identity" "current" {}

module "bucket" {
  source = "../../terraform/modules/bucket"

  name            = "${var.name}-${data.aws_caller_identity.current.account_id}-${var.region}"
  noncurrent_days = var.old_versions_days
  force_destroy   = !var.deletion_protection
}

# The text of settings.env. What is put there by hand stays: Terraform never reads it, and writes this once.
resource "aws_ssm_parameter" "settings" {
  # checkov:skip=CKV_AWS_337:the account's own key for parameters has no charge, and only this machine's role reads it
  name             = "/${var.name}/settings"
  description      = "settings.env of deploy/small"
  type             = "SecureString"
  value_wo         = "# put yours here: docs/small.md"
  value_wo_version = 1
}

locals {
  # What Delta tidies of the lake, and nights that are no longer kept. Of all of it, versions stay.
  removable = concat(
    [for part in ["processed", "ledger", "dead_letter", "schema_registry", "ingestion/*/_delta_log"] : "lake/${part}"],
    ["files/rates", "backups"],
  )
}

resource "aws_iam_role" "machine" {
  name = "${var.name}-machine"
  assume_role_policy = jsonencode({
    Version   = "2012-10-17"
    Statement = [{ Effect = "Allow", Principal = { Service = "ec2.amazonaws.com" }, Action = "sts:AssumeRole" }]
  })
}

resource "aws_iam_role_policy" "machine" {
  name = "machine"
  role = aws_iam_role.machine.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      { Sid = "List", Effect = "Allow", Action = "s3:ListBucket", Resource = module.bucket.arn },
      {
        Sid      = "ReadAndAdd"
        Effect   = "Allow"
        Action   = ["s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload"]
        Resource = [for part in ["lake", "files", "backups"] : "${module.bucket.arn}/${part}/*"]
      },
      {
        Sid      = "Tidy"
        Effect   = "Allow"
        Action   = "s3:DeleteObject"
        Resource = [for part in local.removable : "${module.bucket.arn}/${part}/*"]
      },
      { Sid = "Settings", Effect = "Allow", Action = "ssm:GetParameter", Resource = aws_ssm_parameter.settings.arn },
      { Sid = "Tell", Effect = "Allow", Action = "sns:Publish", Resource = aws_sns_topic.alarms.arn },
      {
        Sid       = "SayThatItLooked"
        Effect    = "Allow"
        Action    = "cloudwatch:PutMetricData"
        Resource  = "*" # any: the action knows no resources; the namespace is the condition
        Condition = { StringEquals = { "cloudwatch:namespace" = var.name } }
      },
    ]
  })
}

resource "aws_iam_role_policy_attachment" "sessions" {
  role       = aws_iam_role.machine.name
  policy_arn = "arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore"
}

resource "aws_iam_instance_profile" "machine" {
  name = aws_iam_role.machine.name
  role = aws_iam_role.machine.name
}
