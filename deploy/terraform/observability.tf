# Logs, what is counted in them, the alarms that this raises, who hears of it, and a dashboard.

resource "aws_cloudwatch_log_group" "main" {
  name              = local.log_group
  retention_in_days = var.log_retention_days
  kms_key_id        = aws_kms_key.key["operations"].arn
}

# Container Insights would make this group itself, without a key and for ever.
resource "aws_cloudwatch_log_group" "insights" {
  # checkov:skip=CKV_AWS_338:measurements, not logs: their metrics are kept by CloudWatch for 15 months
  name              = "/aws/ecs/containerinsights/${var.name}/performance"
  retention_in_days = 7
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

# What is counted ------------------------------------------------------------------------------------------------------

locals {
  namespace = "Totesys/${var.name}"

  # Metric -> the event that makes it, and what it adds.
  metrics = {
    UpToDate         = { event = "up_to_date", value = "1" }
    RunsFailed       = { event = "run_failed", value = "1" }
    Stale            = { event = "stale", value = "1" }
    DeadLetters      = { event = "dead_letters", value = "$.open" }
    AuditDifferences = { event = "audit_differs", value = "$.findings" }
    TablesBlocked    = { event = "blocked", value = "$.tables" }
    TablesMissed     = { event = "missed", value = "$.tables" }
    LogLost          = { event = "log_lost", value = "1" }
    LogKept          = { event = "log_kept", value = "$.percent" }
  }
}

resource "aws_cloudwatch_log_metric_filter" "event" {
  for_each = local.metrics

  name           = "${var.name}-${each.value.event}"
  log_group_name = aws_cloudwatch_log_group.main.name
  pattern        = "{ $.totesys_event = \"${each.value.event}\" }"

  metric_transformation {
    namespace     = local.namespace
    name          = each.key
    value         = each.value.value
    default_value = "0" # for a minute with logs and no such event
    unit          = "Count"
  }
}

# Alarms ---------------------------------------------------------------------------------------------------------------

locals {
  database_dimensions = { DBInstanceIdentifier = aws_db_instance.database.identifier }

  # Name -> what is looked at (per period, that many of them) and when it is too much. What each means and what to do:
  # docs/deploy.md.
  alarms = merge(
    {
      run-failed = {
        text = "A run failed. The UI says why; the next refresh makes up for it, unless the cause is still there."
        of   = local.namespace, metric = "RunsFailed", by = {}
        stat = "Sum", period = 300, periods = 1, sign = ">=", than = 1
      }
      stale = {
        text = "Nothing was up to date for ${var.stale_minutes} minutes: ToteSys cannot be reached, or refreshes fail."
        of   = local.namespace, metric = "Stale", by = {}
        stat = "Sum", period = 300, periods = 1, sign = ">=", than = 1
      }
      tables-blocked = {
        text = "A table of ToteSys cannot be captured: its failed check in the UI says why. The others go on."
        of   = local.namespace, metric = "TablesBlocked", by = {}
        stat = "Maximum", period = 300, periods = 1, sign = ">", than = 0
      }
      dead-letters = {
        text = "Rows of ToteSys break a type or a rule and wait in the dead letters: totesys dead-letters lists them."
        of   = local.namespace, metric = "DeadLetters", by = {}
        stat = "Maximum", period = 900, periods = 1, sign = ">", than = 0
      }
      audit-differences = {
        text = "ToteSys, lake and warehouse differ: the check in the UI says in what, and what mends it."
        of   = local.namespace, metric = "AuditDifferences", by = {}
        stat = "Maximum", period = 300, periods = 1, sign = ">", than = 0
      }
      versions-missed = {
        text = "A comparison found versions that the log of ToteSys, or a fingerprint, had not told of: the check nothing_missed says which."
        of   = local.namespace, metric = "TablesMissed", by = {}
        stat = "Maximum", period = 300, periods = 1, sign = ">", than = 0
      }
      log-lost = {
        text = "The log of ToteSys is to be followed and is not: tables are compared. What changed twice between two refreshes is seen once."
        of   = local.namespace, metric = "LogLost", by = {}
        stat = "Sum", period = 300, periods = 1, sign = ">=", than = 1
      }
      log-kept = {
        text = "ToteSys keeps more than half of the log that it may keep for us. At 80 % it is given up."
        of   = local.namespace, metric = "LogKept", by = {}
        stat = "Maximum", period = 300, periods = 1, sign = ">", than = 50
      }
      database-storage = {
        text = "The database has less than ${var.database_least_free_gib} GiB of free storage: it has reached what it may grow to."
        of   = "AWS/RDS", metric = "FreeStorageSpace", by = local.database_dimensions
        stat = "Minimum", period = 300, periods = 2, sign = "<", than = var.database_least_free_gib * 1024 * 1024 * 1024
      }
      database-cpu = {
        text = "The database's processor was above 90 % for half an hour."
        of   = "AWS/RDS", metric = "CPUUtilization", by = local.database_dimensions
        stat = "Average", period = 300, periods = 6, sign = ">", than = 90
      }
      database-connections = {
        text = "The database has more than ${var.database_most_connections} connections."
        of   = "AWS/RDS", metric = "DatabaseConnections", by = local.database_dimensions
        stat = "Maximum", period = 300, periods = 2, sign = ">", than = var.database_most_connections
      }
      balancer-errors = {
        text = "The load balancer itself answered with errors: no task is well, or the login fails."
        of   = "AWS/ApplicationELB", metric = "HTTPCode_ELB_5XX_Count", by = { LoadBalancer = aws_lb.ui.arn_suffix }
        stat = "Sum", period = 300, periods = 2, sign = ">=", than = 5
      }
      ui-errors = {
        text = "A service behind the load balancer answered with errors."
        of   = "AWS/ApplicationELB", metric = "HTTPCode_Target_5XX_Count", by = { LoadBalancer = aws_lb.ui.arn_suffix }
        stat = "Sum", period = 300, periods = 2, sign = ">=", than = 5
      }
    },
    { for function in aws_lambda_function.rates : "rates-failed" => {
      text = "Exchange rates were not fetched, or those at rates_url are old. The newest that there are stay in use."
      of   = "AWS/Lambda", metric = "Errors", by = { FunctionName = function.function_name }
      stat = "Sum", period = 300, periods = 1, sign = ">=", than = 1
    } },
    { for service in ["code", "daemon", "dashboard"] : "${service}-memory" => {
      text = "The ${service} uses more than 85 % of its memory: give it more in sizes before it is ended."
      of   = "AWS/ECS", metric = "MemoryUtilization", by = { ClusterName = aws_ecs_cluster.main.name, ServiceName = aws_ecs_service.service[service].name }
      stat = "Maximum", period = 60, periods = 5, sign = ">", than = 85
    } },
    { for service, group in aws_lb_target_group.ui : "${service}-unhealthy" => {
      text = "No ${service} answers its health check."
      of   = "AWS/ApplicationELB", metric = "UnHealthyHostCount", by = { LoadBalancer = aws_lb.ui.arn_suffix, TargetGroup = group.arn_suffix }
      stat = "Minimum", period = 60, periods = 10, sign = ">", than = 0
    } },
  )

  comparisons = { ">=" = "GreaterThanOrEqualToThreshold", ">" = "GreaterThanThreshold", "<" = "LessThanThreshold" }

  # 1 outside business hours whatever happens; within them how often the platform was found up to date in five minutes.
  # HOUR and DAY go by UTC and by the time of each period, and have a value for periods without data. If all the data are
  # missing and even FILL finds nothing to fill, the alarm counts what is missing as too little.
  business_days = join(" OR ", [for day in sort(var.business_hours.days) : "DAY(found) == ${day}"])
  up_to_date    = "IF((${local.business_days}) AND HOUR(found) >= ${var.business_hours.from} AND HOUR(found) < ${var.business_hours.to}, FILL(found, 0), 1)"
}

resource "aws_cloudwatch_metric_alarm" "alarm" {
  for_each = local.alarms

  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = each.value.text
  namespace           = each.value.of
  metric_name         = each.value.metric
  dimensions          = each.value.by
  statistic           = each.value.stat
  period              = each.value.period
  evaluation_periods  = each.value.periods
  comparison_operator = local.comparisons[each.value.sign]
  threshold           = each.value.than
  treat_missing_data  = "notBreaching" # silence is the business of not-up-to-date
  actions_enabled     = true
  alarm_actions       = [aws_sns_topic.alerts.arn]
  ok_actions          = [aws_sns_topic.alerts.arn]
}

resource "aws_cloudwatch_metric_alarm" "not_up_to_date" {
  alarm_name          = "${var.name}-not-up-to-date"
  alarm_description   = "In business hours the platform was not found up to date for ${var.business_hours.minutes} minutes. It also rings when nothing runs at all."
  comparison_operator = "LessThanThreshold"
  threshold           = 1
  evaluation_periods  = var.business_hours.minutes / 5
  datapoints_to_alarm = var.business_hours.minutes / 5
  treat_missing_data  = "breaching"
  actions_enabled     = local.is_deployed # before the first image there is nothing to be up to date
  alarm_actions       = [aws_sns_topic.alerts.arn]
  ok_actions          = [aws_sns_topic.alerts.arn]

  metric_query {
    id          = "enough"
    label       = "up to date, or outside business hours"
    expression  = local.up_to_date
    return_data = true
  }

  metric_query {
    id = "found"

    metric {
      namespace   = local.namespace
      metric_name = "UpToDate"
      period      = 300
      stat        = "Sum"
    }
  }
}

# Dashboard ------------------------------------------------------------------------------------------------------------

locals {
  # Title -> metrics, in rows of three.
  graphs = [
    { title = "Found up to date", stat = "Sum", metrics = [[local.namespace, "UpToDate"]] },
    { title = "Runs failed, stale", stat = "Sum", metrics = [[local.namespace, "RunsFailed"], [local.namespace, "Stale"]] },
    { title = "Dead letters, audit differences, blocked and missed", stat = "Maximum", metrics = [for metric in ["DeadLetters", "AuditDifferences", "TablesBlocked", "TablesMissed"] : [local.namespace, metric]] },
    { title = "Memory of services (%)", stat = "Maximum", metrics = [for name in keys(local.services) : ["AWS/ECS", "MemoryUtilization", "ClusterName", var.name, "ServiceName", name]] },
    { title = "Processor of services (%)", stat = "Average", metrics = [for name in keys(local.services) : ["AWS/ECS", "CPUUtilization", "ClusterName", var.name, "ServiceName", name]] },
    { title = "Requests and errors", stat = "Sum", metrics = [for metric in ["RequestCount", "HTTPCode_Target_5XX_Count", "HTTPCode_ELB_5XX_Count"] : ["AWS/ApplicationELB", metric, "LoadBalancer", aws_lb.ui.arn_suffix]] },
    { title = "Database: processor (%)", stat = "Average", metrics = [["AWS/RDS", "CPUUtilization", "DBInstanceIdentifier", var.name]] },
    { title = "Database: free storage (bytes)", stat = "Minimum", metrics = [["AWS/RDS", "FreeStorageSpace", "DBInstanceIdentifier", var.name]] },
    { title = "Database: connections", stat = "Maximum", metrics = [["AWS/RDS", "DatabaseConnections", "DBInstanceIdentifier", var.name]] },
  ]
}

resource "aws_cloudwatch_dashboard" "main" {
  dashboard_name = var.name
  dashboard_body = jsonencode({
    widgets = concat(
      [{
        type = "alarm", x = 0, y = 0, width = 24, height = 3
        properties = {
          title  = "Alarms"
          alarms = concat([aws_cloudwatch_metric_alarm.not_up_to_date.arn], [for alarm in aws_cloudwatch_metric_alarm.alarm : alarm.arn])
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
