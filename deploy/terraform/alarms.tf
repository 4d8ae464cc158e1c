# Alarms, and what is counted in the log for them. What each means and what to do: docs/deploy.md.
#
# Of one cause there is at most one mail an hour. What the platform tells in a message of its own, with the reason and a link
# to the run, rings here without a mail; that a message could not be sent is an alarm with one. And every alarm looks back over
# an hour and the minutes that it takes to ring: it stays on until then, however often its cause comes back.
#
# Minutes, because CloudWatch slides its periods along from minute to minute: longer ones would ring or not by how they
# happen to lie over what happened.

# What is counted ------------------------------------------------------------------------------------------------------

locals {
  namespace = "Totesys/${var.name}"

  # Metric -> the event that makes it, what else must hold of its line, and what the line adds.
  metrics = {
    Heartbeat        = { event = "heartbeat" }
    UpToDate         = { event = "up_to_date" }
    Refreshes        = { event = "refreshed" }
    RefreshesLate    = { event = "refreshed", late = " && $.seconds > ${var.late_seconds}" }
    RunsFailed       = { event = "run_failed" }
    TasksRefused     = { event = "task_refused" }
    Stale            = { event = "stale" }
    JobsOverdue      = { event = "overdue", value = "$.jobs" }
    SwitchedOff      = { event = "switched_off", value = "$.parts" }
    MessagesUnsent   = { event = "unsent" }
    DeadLetters      = { event = "dead_letters", value = "$.open" }
    AuditDifferences = { event = "audit_differs", value = "$.findings" }
    TablesBlocked    = { event = "blocked", value = "$.tables" }
    TablesMissed     = { event = "missed", value = "$.tables" }
    LogLost          = { event = "log_lost" }
    LogKept          = { event = "log_kept", value = "$.percent" }
  }
}

resource "aws_cloudwatch_log_metric_filter" "event" {
  for_each = local.metrics

  name           = "${var.name}-${replace(each.value.event, "_", "-")}${can(each.value.late) ? "-late" : ""}"
  log_group_name = aws_cloudwatch_log_group.main.name
  pattern        = "{ $.totesys_event = \"${each.value.event}\"${try(each.value.late, "")} }"

  metric_transformation {
    namespace     = local.namespace
    name          = each.key
    value         = try(each.value.value, "1")
    default_value = "0" # for a minute with logs and no such event
    unit          = "Count"
  }
}

# Alarms ---------------------------------------------------------------------------------------------------------------

locals {
  database_dimensions = { DBInstanceIdentifier = aws_db_instance.database.identifier }

  # Name -> what is too much or too little, and in how many minutes of the last hour it may be so before it rings. `told`:
  # the platform sends a message of its own. `silence`: a minute without data is a bad one.
  alarms = merge(
    {
      nothing-runs = {
        text    = "For a quarter of an hour the daemon did not look how everything is: it does not run, or the code server or the database does not answer."
        of      = local.namespace, metric = "Heartbeat", by = {}
        stat    = "Sum", sign = "<", than = 1, minutes = 15
        silence = true
      }
      run-failed = {
        text = "A run failed. The UI says why; the next refresh makes up for it, unless the cause is still there."
        of   = local.namespace, metric = "RunsFailed", by = {}
        stat = "Sum", sign = ">=", than = 1, minutes = 1
        told = true
      }
      task-refused = {
        text = "ECS began no task for a run: the account's quota of processors is used up, or AWS has no capacity."
        of   = local.namespace, metric = "TasksRefused", by = {}
        stat = "Sum", sign = ">=", than = 1, minutes = 1
        told = true
      }
      stale = {
        text = "Nothing was up to date for ${var.stale_minutes} minutes: ToteSys cannot be reached, or refreshes fail."
        of   = local.namespace, metric = "Stale", by = {}
        stat = "Sum", sign = ">=", than = 1, minutes = 1
        told = true
      }
      job-overdue = {
        text = "No run of a nightly job ended for more than a day: audit, comparison, compaction or purge."
        of   = local.namespace, metric = "JobsOverdue", by = {}
        stat = "Maximum", sign = ">", than = 0, minutes = 1
        told = true
      }
      switched-off = {
        text = "A sensor or schedule of the platform is switched off in the UI."
        of   = local.namespace, metric = "SwitchedOff", by = {}
        stat = "Maximum", sign = ">", than = 0, minutes = 1
        told = true
      }
      message-unsent = {
        text = "A message of the platform could not be sent. What it would have said: the other alarms that are on, and the log."
        of   = local.namespace, metric = "MessagesUnsent", by = {}
        stat = "Sum", sign = ">=", than = 1, minutes = 1
      }
      tables-blocked = {
        text = "A table of ToteSys cannot be captured: its failed check in the UI says why. The others go on."
        of   = local.namespace, metric = "TablesBlocked", by = {}
        stat = "Maximum", sign = ">", than = 0, minutes = 1
        told = true
      }
      dead-letters = {
        text = "Rows of ToteSys break a type or a rule and wait in the dead letters: totesys dead-letters lists them."
        of   = local.namespace, metric = "DeadLetters", by = {}
        stat = "Maximum", sign = ">", than = 0, minutes = 1
      }
      audit-differences = {
        text = "ToteSys, lake and warehouse differ: the check in the UI says in what, and what mends it."
        of   = local.namespace, metric = "AuditDifferences", by = {}
        stat = "Maximum", sign = ">", than = 0, minutes = 1
        told = true
      }
      versions-missed = {
        text = "A comparison found versions that the log of ToteSys, or a fingerprint, had not told of: the check nothing_missed says which."
        of   = local.namespace, metric = "TablesMissed", by = {}
        stat = "Maximum", sign = ">", than = 0, minutes = 1
        told = true
      }
      log-lost = {
        text = "The log of ToteSys is to be followed and is not: tables are compared. What changed twice between two refreshes is seen once."
        of   = local.namespace, metric = "LogLost", by = {}
        stat = "Sum", sign = ">=", than = 1, minutes = 1
        told = true
      }
      log-kept = {
        text = "ToteSys keeps more than half of the log that it may keep for us. At 80 % it is given up."
        of   = local.namespace, metric = "LogKept", by = {}
        stat = "Maximum", sign = ">", than = 50, minutes = 1
        told = true
      }
      database-storage = {
        text = "The database has less than ${var.database_least_free_gib} GiB of free storage: it has reached what it may grow to."
        of   = "AWS/RDS", metric = "FreeStorageSpace", by = local.database_dimensions
        stat = "Minimum", sign = "<", than = var.database_least_free_gib * 1024 * 1024 * 1024, minutes = 10
      }
      database-cpu = {
        text = "The database's processor was above 90 % for half an hour."
        of   = "AWS/RDS", metric = "CPUUtilization", by = local.database_dimensions
        stat = "Average", sign = ">", than = 90, minutes = 30
      }
      database-connections = {
        text = "The database has more than ${var.database_most_connections} connections."
        of   = "AWS/RDS", metric = "DatabaseConnections", by = local.database_dimensions
        stat = "Maximum", sign = ">", than = var.database_most_connections, minutes = 10
      }
    },
    { for name, alarm in {
      balancer-errors = {
        text = "The load balancer itself answered with errors: no task is well, or the login fails."
        of   = "AWS/ApplicationELB", metric = "HTTPCode_ELB_5XX_Count", by = { LoadBalancer = local.balancer }
        stat = "Sum", sign = ">=", than = 1, minutes = 10
      }
      ui-errors = {
        text = "A service behind the load balancer answered with errors."
        of   = "AWS/ApplicationELB", metric = "HTTPCode_Target_5XX_Count", by = { LoadBalancer = local.balancer }
        stat = "Sum", sign = ">=", than = 1, minutes = 10
      }
    } : name => alarm if local.has_ui },
    { for function in aws_lambda_function.rates : "rates-failed" => {
      text = "Exchange rates were not fetched, or those at rates_url are old. The newest that there are stay in use."
      of   = "AWS/Lambda", metric = "Errors", by = { FunctionName = function.function_name }
      stat = "Sum", sign = ">=", than = 1, minutes = 1
    } },
    { for service in ["code", "daemon", "dashboard"] : "${service}-memory" => {
      text = "The ${service} uses more than 85 % of its memory: give it more in sizes before it is ended."
      of   = "AWS/ECS", metric = "MemoryUtilization", by = { ClusterName = aws_ecs_cluster.main.name, ServiceName = aws_ecs_service.service[service].name }
      stat = "Maximum", sign = ">", than = 85, minutes = 5
    } if contains(keys(local.services), service) },
    # The load balancer counts nothing at all while no task is registered, as in a crash loop.
    { for service, group in aws_lb_target_group.ui : "${service}-unhealthy" => {
      text    = "For ten minutes no ${service} answered its health check, or there was none."
      of      = "AWS/ApplicationELB", metric = "HealthyHostCount", by = { LoadBalancer = local.balancer, TargetGroup = group.arn_suffix }
      stat    = "Maximum", sign = "<", than = 1, minutes = 10
      silence = true
    } },
  )

  comparisons = { ">=" = "GreaterThanOrEqualToThreshold", ">" = "GreaterThanThreshold", "<" = "LessThanThreshold" }

  mails = [aws_sns_topic.alerts.arn]
}

resource "aws_cloudwatch_metric_alarm" "alarm" {
  for_each = local.alarms

  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = each.value.text
  namespace           = each.value.of
  metric_name         = each.value.metric
  dimensions          = each.value.by
  statistic           = each.value.stat
  period              = 60
  datapoints_to_alarm = each.value.minutes
  evaluation_periods  = 59 + each.value.minutes
  comparison_operator = local.comparisons[each.value.sign]
  threshold           = each.value.than
  treat_missing_data  = can(each.value.silence) ? "breaching" : "notBreaching"
  actions_enabled     = can(each.value.silence) ? local.is_deployed : true # before the first image nothing can run
  alarm_actions       = can(each.value.told) ? [] : local.mails
  ok_actions          = can(each.value.told) ? [] : local.mails
}

# The objective: of the refreshes of a day, 95 % bring what they bring within late_seconds of its commit. Of fewer than 20
# refreshes one late one says nothing. Of two days, because CloudWatch looks at such alarms once an hour.
resource "aws_cloudwatch_metric_alarm" "late" {
  alarm_name          = "${var.name}-late"
  alarm_description   = "Of the refreshes of a day more than 5 % ended later than ${var.late_seconds} seconds after what they brought was committed."
  comparison_operator = "GreaterThanThreshold"
  threshold           = 5
  evaluation_periods  = 2
  datapoints_to_alarm = 1
  treat_missing_data  = "notBreaching" # silence is the business of nothing-runs
  actions_enabled     = true
  alarm_actions       = local.mails
  ok_actions          = local.mails

  metric_query {
    id          = "share"
    label       = "late refreshes (%)"
    expression  = "IF(refreshes >= 20, 100 * late / refreshes, 0)"
    return_data = true
  }

  dynamic "metric_query" {
    for_each = { refreshes = "Refreshes", late = "RefreshesLate" }

    content {
      id = metric_query.key

      metric {
        namespace   = local.namespace
        metric_name = metric_query.value
        period      = 86400
        stat        = "Sum"
      }
    }
  }
}
