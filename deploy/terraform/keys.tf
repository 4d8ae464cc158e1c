# Keys, by who reads what they close: data (lake, database, images), secrets, operations (logs, alarms).

locals {
  # Who may use a key is said by IAM, in the roles' own policies: a key policy must only let IAM decide.
  key_administration = {
    Sid       = "LetIamDecide"
    Effect    = "Allow"
    Principal = { AWS = "${local.arn}:iam::${local.account}:root" }
    Action    = "kms:*" # any: without it, what IAM allows is void, and the key could never be changed again
    Resource  = "*"     # any: in a key policy this is the key itself
  }

  keys = {
    data    = { description = "lake, work bucket, database, images", statements = [] }
    secrets = { description = "secrets", statements = [] }
    operations = {
      description = "logs, alarm topic"
      statements = [
        {
          Sid       = "Logs"
          Effect    = "Allow"
          Principal = { Service = "logs.${var.region}.amazonaws.com" }
          Action    = ["kms:Encrypt", "kms:Decrypt", "kms:ReEncryptFrom", "kms:ReEncryptTo", "kms:GenerateDataKey", "kms:GenerateDataKeyWithoutPlaintext", "kms:DescribeKey"]
          Resource  = "*" # any: in a key policy this is the key itself
          Condition = { ArnLike = { "kms:EncryptionContext:aws:logs:arn" = "${local.arn}:logs:${var.region}:${local.account}:log-group:*" } }
        },
        {
          Sid       = "Findings"
          Effect    = "Allow"
          Principal = { Service = "events.amazonaws.com" }
          Action    = ["kms:Decrypt", "kms:GenerateDataKey"]
          Resource  = "*" # any: in a key policy this is the key itself; EventBridge knows no condition here
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
    }
  }
}

resource "aws_kms_key" "key" {
  for_each = local.keys

  description             = "${var.name}: ${each.value.description}"
  enable_key_rotation     = true
  deletion_window_in_days = var.deletion_protection ? 30 : 7
  policy = jsonencode({
    Version   = "2012-10-17"
    Statement = concat([local.key_administration], each.value.statements)
  })
}

resource "aws_kms_alias" "key" {
  for_each = local.keys

  name          = "alias/${var.name}-${each.key}"
  target_key_id = aws_kms_key.key[each.key].key_id
}
