# The stack as other choices make it.

mock_provider "aws" {
  source = "./tests/mocks"
}

provider "aws" {
  alias                       = "passwords"
  region                      = "eu-west-2"
  access_key                  = "none"
  secret_key                  = "none"
  skip_credentials_validation = true
  skip_metadata_api_check     = true
  skip_requesting_account_id  = true

  endpoints {
    secretsmanager = "http://127.0.0.1:9" # nobody listens there
  }
}

variables {
  region           = "eu-west-2"
  totesys_cidrs    = ["192.0.2.10/32"]
  ui_host          = "totesys.example.com"
  certificate_arn  = "arn:aws:acm:eu-west-2:123456789012:certificate/00000000-0000-0000-0000-000000000000"
  ui_allowed_cidrs = ["203.0.113.0/24"]
  alarm_emails     = []
  password_version = 0
}

run "before_the_first_image" {
  command = plan

  # As RDS says of postgres18: allowed values are receipt, authentication, authorization, setup_durations, all.
  assert {
    condition     = one([for parameter in aws_db_parameter_group.database.parameter : parameter.value if parameter.name == "log_connections"]) == "authorization" && aws_db_parameter_group.database.family == "postgres18"
    error_message = "PostgreSQL 18, which is what comes without a choice, takes a list of stages."
  }

  assert {
    condition     = alltrue([for pool in aws_cognito_user_pool.pool : pool.mfa_configuration == "ON"])
    error_message = "Nobody logs in with a password alone, unless somebody has decided so."
  }

  assert {
    condition     = length(aws_route.totesys) == 0 && length(aws_nat_gateway.nat) == 0 && length(aws_ec2_transit_gateway_vpc_attachment.totesys) == 0
    error_message = "By default no route is made."
  }

  assert {
    condition     = length(aws_iam_role.ci) == 0 && length(aws_iam_openid_connect_provider.github) == 0 && length(aws_budgets_budget.monthly) == 0 && length(aws_route53_record.host) == 0
    error_message = "What is not asked for is not made."
  }

  assert {
    condition     = toset(keys(aws_ecs_service.service)) == toset(["code", "daemon", "webserver", "viewer", "dashboard"]) && toset(keys(aws_lb_listener_rule.host)) == toset(["webserver", "viewer", "dashboard"]) && !contains(keys(local.conversations), "balancer-api")
    error_message = "Without keys there is no API, and no way to one."
  }

  assert {
    condition     = length(aws_lambda_function.rates) == 1 && length(aws_scheduler_schedule.rates) == 1
    error_message = "Rates are fetched unless that is switched off."
  }

  assert {
    condition     = local.environment.TOTESYS_RANGE_ROWS == "100000000" && local.environment.TOTESYS_ENGINE == "duckdb" && local.environment.TOTESYS_SCHEMA == "public" && local.environment.TOTESYS_NEW_COLUMNS == "ignore" && !contains(keys(local.environment), "TOTESYS_FIRST_DAY")
    error_message = "What nobody has decided is as the platform has it by itself."
  }

  assert {
    condition     = length(aws_secretsmanager_secret.spark) == 0 && length(aws_vpc_security_group_egress_rule.spark) == 0 && !contains(keys(local.engine_secrets), "SPARK_REMOTE")
    error_message = "Without a Spark server there is neither a secret nor a way to one."
  }
}

# The rest plans only what it looks at, and makes several choices at once that have nothing to do with each other: each
# plan takes seconds.

run "by_transit_gateway_without_rates_unprotected_with_a_budget" {
  command = plan

  variables {
    totesys_route       = { by = "transit_gateway", id = "tgw-0123" }
    rates_url           = ""
    deletion_protection = false
    monthly_budget_usd  = 500
    alarm_emails        = ["data-team@example.com"]
  }

  plan_options {
    target = [
      aws_route.totesys,
      aws_lambda_function.rates, aws_lambda_function_event_invoke_config.rates, aws_scheduler_schedule.rates, aws_cloudwatch_log_group.rates, aws_iam_role_policy.rates, aws_iam_role_policy.rates_schedule, aws_cloudwatch_metric_alarm.alarm,
      aws_db_instance.database, aws_cognito_user_pool.pool, aws_budgets_budget.monthly,
    ]
  }

  assert {
    condition     = aws_ec2_transit_gateway_vpc_attachment.totesys[0].transit_gateway_id == "tgw-0123" && aws_route.totesys["192.0.2.10/32"].transit_gateway_id == "tgw-0123" && length(aws_nat_gateway.nat) == 0
    error_message = "ToteSys is reached through the transit gateway."
  }

  assert {
    condition = (
      length(aws_lambda_function.rates) + length(aws_lambda_function_event_invoke_config.rates) + length(aws_scheduler_schedule.rates) + length(aws_cloudwatch_log_group.rates) == 0 &&
      length(aws_iam_role.rates) + length(aws_iam_role_policy.rates) + length(aws_iam_role.rates_schedule) + length(aws_iam_role_policy.rates_schedule) == 0 &&
      !contains(keys(aws_cloudwatch_metric_alarm.alarm), "rates-failed")
    )
    error_message = "Without an address nothing is there that could fetch rates."
  }

  assert {
    condition     = !aws_db_instance.database.deletion_protection && aws_db_instance.database.skip_final_snapshot && alltrue([for pool in aws_cognito_user_pool.pool : pool.deletion_protection == "INACTIVE"])
    error_message = "Without protection all of it can be destroyed."
  }

  assert {
    condition     = one([for filter in aws_budgets_budget.monthly[0].cost_filter : filter.values]) == tolist(["user:Stack$totesys"])
    error_message = "The budget is that of this stack."
  }
}

run "by_peering_with_postgresql_17_settings_and_a_spark_server" {
  command = plan

  variables {
    totesys_route    = { by = "peering", id = "pcx-0123" }
    database_version = "17"
    totesys_schema   = "trade"
    first_day        = "2020-02-29"
    new_columns      = "stop"
    range_rows       = 0
    spark            = { cidrs = ["10.40.1.0/24"], port = 443 }
  }

  plan_options {
    target = [
      aws_route.totesys, aws_db_parameter_group.database,
      aws_secretsmanager_secret.spark, aws_vpc_security_group_egress_rule.spark, module.run.aws_ecs_task_definition.task, module.code.aws_ecs_task_definition.task,
    ]
  }

  assert {
    condition     = aws_route.totesys["192.0.2.10/32"].vpc_peering_connection_id == "pcx-0123" && length(aws_ec2_transit_gateway_vpc_attachment.totesys) == 0
    error_message = "ToteSys is reached through the peering connection."
  }

  assert {
    condition     = one([for parameter in aws_db_parameter_group.database.parameter : parameter.value if parameter.name == "log_connections"]) == "1" && aws_db_parameter_group.database.family == "postgres17"
    error_message = "PostgreSQL 17 takes a switch."
  }

  assert {
    condition     = local.environment.TOTESYS_RANGE_ROWS == "0" && local.environment.TOTESYS_ENGINE == "spark" && local.environment.TOTESYS_SCHEMA == "trade" && local.environment.TOTESYS_NEW_COLUMNS == "stop" && local.environment.TOTESYS_FIRST_DAY == "2020-02-29" && local.service_environment.TOTESYS_ENGINE == "spark"
    error_message = "What a user has decided is said to the tasks, also to those of large runs."
  }

  assert {
    condition     = aws_secretsmanager_secret.spark[0].name == "totesys/spark-remote" && contains(keys(local.engine_secrets), "SPARK_REMOTE") && !contains(keys(local.dagster_secrets), "SPARK_REMOTE")
    error_message = "The address, which may have a token in it, is a secret of those that build."
  }

  assert {
    condition     = aws_vpc_security_group_egress_rule.spark["10.40.1.0/24"].from_port == 443 && aws_vpc_security_group_egress_rule.spark["10.40.1.0/24"].to_port == 443
    error_message = "Those that build reach the server."
  }
}
