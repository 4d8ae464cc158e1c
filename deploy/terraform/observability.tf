# Logs, who hears of alarms, and a dashboard. The alarms themselves are in alarms.tf.

resource "aws_cloudwatch_log_group" "main" {
  name              = local.log_group
  retention_in_days = var.log_retention_days
  kms_key_id        = aws_kms_key.key["operations"].arn
}

# Who hears of it ------------------------------------------------------------------------------------------------------

resource "aws_sns_topic" "alerts" {
  name              = "${var.name}-alerts"
  kms_master_key_id = aws_kms_key.key["operations"].arn
}

locals {
  publishers = ["${local.arn}:iam::${local.account}:role/${var.name}-code-task"] # where sensors are evaluated
}

resource "aws_sns_topic_policy" "alerts" {
  arn = aws_sns_topic.alerts.arn
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "Alarms"
        Effect    = "Allow"
        Principal = { Service = "cloudwatch.amazonaws.com" }
        Action    = "sns:Publish"
        Resource  = aws_sns_topic.alerts.arn
        Condition = {
          StringEquals = { "aws:SourceAccount" = local.account }
          ArnLike      = { "aws:SourceArn" = "${local.arn}:cloudwatch:${var.region}:${local.account}:alarm:${var.name}-*" }
        }
      },
      # EventBridge says neither account nor rule when it publishes; it sends to no topic of another account in its own name.
      {
        Sid       = "Findings"
        Effect    = "Allow"
        Principal = { Service = "events.amazonaws.com" }
        Action    = "sns:Publish"
        Resource  = aws_sns_topic.alerts.arn
      },
      {
        Sid       = "Sensors"
        Effect    = "Allow"
        Principal = { AWS = "${local.arn}:iam::${local.account}:root" }
        Action    = "sns:Publish"
        Resource  = aws_sns_topic.alerts.arn
        Condition = { ArnEquals = { "aws:PrincipalArn" = local.publishers } }
      },
      # Whatever IAM may allow to others of this account.
      {
        Sid       = "NobodyElse"
        Effect    = "Deny"
        Principal = "*" # any: a refusal, and it is meant for all but those of the condition
        Action    = "sns:Publish"
        Resource  = aws_sns_topic.alerts.arn
        Condition = {
          ArnNotEquals = { "aws:PrincipalArn" = local.publishers }
          Bool         = { "aws:PrincipalIsAWSService" = "false" }
        }
      },
      {
        Sid       = "TopicTlsOnly"
        Effect    = "Deny"
        Principal = "*" # any: a refusal, and it is meant for all
        Action    = "sns:Publish"
        Resource  = aws_sns_topic.alerts.arn
        Condition = { Bool = { "aws:SecureTransport" = "false" } }
      },
    ]
  })
}

resource "aws_sns_topic_subscription" "email" {
  for_each = toset(var.alarm_emails)

  topic_arn = aws_sns_topic.alerts.arn
  protocol  = "email"
  endpoint  = each.value
}

# Dashboard ------------------------------------------------------------------------------------------------------------

locals {
  # Title -> metrics, in rows of three.
  graphs = concat([
    { title = "Heartbeats, found up to date", stat = "Sum", metrics = [[local.namespace, "Heartbeat"], [local.namespace, "UpToDate"]] },
    { title = "Refreshes, late ones, runs failed, stale", stat = "Sum", metrics = [for metric in ["Refreshes", "RefreshesLate", "RunsFailed", "Stale"] : [local.namespace, metric]] },
    { title = "Dead letters, audit differences, blocked and missed", stat = "Maximum", metrics = [for metric in ["DeadLetters", "AuditDifferences", "TablesBlocked", "TablesMissed"] : [local.namespace, metric]] },
    { title = "Memory of services (%)", stat = "Maximum", metrics = [for name in keys(local.services) : ["AWS/ECS", "MemoryUtilization", "ClusterName", var.name, "ServiceName", name]] },
    { title = "Processor of services (%)", stat = "Average", metrics = [for name in keys(local.services) : ["AWS/ECS", "CPUUtilization", "ClusterName", var.name, "ServiceName", name]] },
    ], [for graph in [
      { title = "Requests and errors", stat = "Sum", metrics = [for metric in ["RequestCount", "HTTPCode_Target_5XX_Count", "HTTPCode_ELB_5XX_Count"] : ["AWS/ApplicationELB", metric, "LoadBalancer", local.balancer]] }
    ] : graph if local.has_ui], [
    { title = "Database: processor (%)", stat = "Average", metrics = [["AWS/RDS", "CPUUtilization", "DBInstanceIdentifier", var.name]] },
    { title = "Database: free storage (bytes)", stat = "Minimum", metrics = [["AWS/RDS", "FreeStorageSpace", "DBInstanceIdentifier", var.name]] },
    { title = "Database: connections", stat = "Maximum", metrics = [["AWS/RDS", "DatabaseConnections", "DBInstanceIdentifier", var.name]] },
  ])
}

resource "aws_cloudwatch_dashboard" "main" {
  dashboard_name = var.name
  dashboard_body = jsonencode({
    widgets = concat(
      [{
        type = "alarm", x = 0, y = 0, width = 24, height = 3
        properties = {
          title  = "Alarms"
          alarms = concat([for alarm in aws_cloudwatch_metric_alarm.alarm : alarm.arn], [aws_cloudwatch_metric_alarm.late.arn])
        }
      }],
      [for place, graph in local.graphs : {
        type = "metric", x = 8 * (place % 3), y = 3 + 6 * floor(place / 3), width = 8, height = 6
        properties = {
          title = graph.title, stat = graph.stat, period = 300, region = var.region, view = "timeSeries", metrics = graph.metrics
        }
      }],
      [{
        type = "log", x = 0, y = 21, width = 24, height = 6
        properties = {
          title  = "Events other than up_to_date"
          region = var.region
          view   = "table"
          query  = "SOURCE '${local.log_group}' | fields @timestamp, totesys_event, @message | filter ispresent(totesys_event) and totesys_event != 'up_to_date' | sort @timestamp desc | limit 50"
        }
      }],
    )
  })
}

# Costs ----------------------------------------------------------------------------------------------------------------

resource "aws_budgets_budget" "monthly" {
  count = var.monthly_budget_usd == null ? 0 : 1

  name         = var.name
  budget_type  = "COST"
  time_unit    = "MONTHLY"
  limit_unit   = "USD"
  limit_amount = tostring(var.monthly_budget_usd)

  cost_filter {
    name   = "TagKeyValue"
    values = [format("user:Stack$%s", var.name)]
  }

  notification {
    notification_type          = "ACTUAL"
    comparison_operator        = "GREATER_THAN"
    threshold_type             = "PERCENTAGE"
    threshold                  = 80
    subscriber_email_addresses = var.alarm_emails
  }

  notification {
    notification_type          = "FORECASTED"
    comparison_operator        = "GREATER_THAN"
    threshold_type             = "PERCENTAGE"
    threshold                  = 100
    subscriber_email_addresses = var.alarm_emails
  }

  lifecycle {
    precondition {
      condition     = length(var.alarm_emails) > 0
      error_message = "monthly_budget_usd needs somebody in alarm_emails to tell."
    }
  }
}
