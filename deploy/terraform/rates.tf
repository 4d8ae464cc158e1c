# Exchange rates. Tasks have no way to the Internet, whatever totesys_route says; so a function outside of the network
# fetches the European Central Bank's archive and drops it where the platform looks for files.
#
# rates.zip holds deploy/lambda/rates.py, as deploy/lambda/package.py packs it. It is kept here, so that a plan, its apply
# and a rollback take the same bytes and need no step before them; a test compares the two. Terraform's archive provider
# would be a second one to fetch and to trust, for one small file. A task of ECS would need a public address.

resource "aws_lambda_function" "rates" {
  # checkov:skip=CKV_AWS_50:one request to one server: its log says all that a trace could
  # checkov:skip=CKV_AWS_115:a reservation is refused where the account has the smallest quota; it is called twice a day
  # checkov:skip=CKV_AWS_116:nothing of a failed event is worth keeping: the next one does its work
  # checkov:skip=CKV_AWS_117:outside of the network on purpose, for that has no way to the Internet
  # checkov:skip=CKV_AWS_173:nothing in its environment is secret: an address, a bucket, a name
  # checkov:skip=CKV_AWS_272:the code comes from the repository, with the Terraform that a person approved
  count = local.has_rates ? 1 : 0

  function_name    = local.rates_function
  description      = "Fetches the European Central Bank's rates and drops them for ${var.name}"
  role             = aws_iam_role.rates[0].arn
  runtime          = "python3.13"
  architectures    = ["arm64"]
  handler          = "rates.handler"
  filename         = "${path.module}/rates.zip"
  source_code_hash = filebase64sha256("${path.module}/rates.zip")
  memory_size      = 256
  timeout          = 180

  environment {
    variables = {
      RATES_URL    = var.rates_url
      RATES_BUCKET = module.lake.name
      RATES_KEY    = "${local.files_root}/rates/eurofxref-hist.zip"
    }
  }

  logging_config {
    log_format = "JSON"
    log_group  = aws_cloudwatch_log_group.rates[0].name
  }

  depends_on = [aws_iam_role_policy.rates]
}

resource "aws_cloudwatch_log_group" "rates" {
  count = local.has_rates ? 1 : 0

  name              = local.rates_log_group
  retention_in_days = var.log_retention_days
  kms_key_id        = aws_kms_key.key["operations"].arn
}

# It tries three times itself; every failure that is counted is one of all three.
resource "aws_lambda_function_event_invoke_config" "rates" {
  count = local.has_rates ? 1 : 0

  function_name          = aws_lambda_function.rates[0].function_name
  maximum_retry_attempts = 0
}

# The bank publishes about 16:00 on its working days, sometimes later.
resource "aws_scheduler_schedule" "rates" {
  # checkov:skip=CKV_AWS_297:the event is empty: there is nothing to encrypt
  count = local.has_rates ? 1 : 0

  name                         = local.rates_function
  description                  = "After the European Central Bank has published"
  schedule_expression          = "cron(20 16,18 ? * MON-FRI *)"
  schedule_expression_timezone = "Europe/Berlin"

  flexible_time_window {
    mode = "OFF"
  }

  target {
    arn      = aws_lambda_function.rates[0].arn
    role_arn = aws_iam_role.rates_schedule[0].arn

    retry_policy {
      maximum_event_age_in_seconds = 3600
      maximum_retry_attempts       = 5
    }
  }
}

# What they may do -----------------------------------------------------------------------------------------------------

resource "aws_iam_role" "rates" {
  count = local.has_rates ? 1 : 0

  name                 = "${local.rates_function}-function"
  description          = "Drops rates for ${var.name}"
  permissions_boundary = aws_iam_policy.boundary.arn
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "Function"
      Effect    = "Allow"
      Principal = { Service = "lambda.amazonaws.com" }
      Action    = "sts:AssumeRole"
      Condition = { StringEquals = { "aws:SourceAccount" = local.account } }
    }]
  })
}

resource "aws_iam_role_policy" "rates" {
  count = local.has_rates ? 1 : 0

  name = "drop"
  role = aws_iam_role.rates[0].name
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat(local.data_key, [
      {
        Sid      = "DropRates"
        Effect   = "Allow"
        Action   = "s3:PutObject"
        Resource = "${module.lake.arn}/${local.files_root}/rates/*"
      },
      {
        Sid      = "LogRates"
        Effect   = "Allow"
        Action   = ["logs:CreateLogStream", "logs:PutLogEvents"]
        Resource = "${local.log_group_arn}/rates:*"
      },
    ])
  })
}

resource "aws_iam_role" "rates_schedule" {
  count = local.has_rates ? 1 : 0

  name                 = "${local.rates_function}-schedule"
  description          = "Calls the function that fetches rates"
  permissions_boundary = aws_iam_policy.boundary.arn
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "Schedule"
      Effect    = "Allow"
      Principal = { Service = "scheduler.amazonaws.com" }
      Action    = "sts:AssumeRole"
      Condition = { StringEquals = { "aws:SourceAccount" = local.account } }
    }]
  })
}

resource "aws_iam_role_policy" "rates_schedule" {
  count = local.has_rates ? 1 : 0

  name = "call"
  role = aws_iam_role.rates_schedule[0].name
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid      = "CallFunction"
      Effect   = "Allow"
      Action   = "lambda:InvokeFunction"
      Resource = aws_lambda_function.rates[0].arn
    }]
  })
}
