# The whole stack, made of made-up answers: what is private, encrypted, guarded, wired. Takes seconds, asks nobody.

mock_provider "aws" {
  source = "./tests/mocks"
}

# Never asked: with password_version 0 no password is made.
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

# One of its own, by which the secret of the warehouse's reader can be told from all others.
override_resource {
  target = aws_secretsmanager_secret.role["warehouse-reader"]
  values = {
    id  = "arn:aws:secretsmanager:eu-west-2:123456789012:secret:totesys/warehouse-reader-url-abcdef"
    arn = "arn:aws:secretsmanager:eu-west-2:123456789012:secret:totesys/warehouse-reader-url-abcdef"
  }
}

variables {
  region            = "eu-west-2"
  totesys_cidrs     = ["192.0.2.10/32", "192.0.2.11/32"]
  totesys_port      = 5433
  totesys_route     = { by = "nat" }
  reader_cidrs      = ["198.51.100.0/24"]
  ui_host           = "totesys.example.com"
  certificate_arn   = "arn:aws:acm:eu-west-2:123456789012:certificate/00000000-0000-0000-0000-000000000000"
  ui_allowed_cidrs  = ["203.0.113.0/24"]
  route53_zone_id   = "Z0000000000000000000"
  alarm_emails      = ["data-team@example.com", "owner@example.com"]
  image_tag         = "0123abc"
  github_repository = "example/totesys-assets"
  state_bucket      = "example-terraform-state"
  api_key_hashes    = ["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"]
  password_version  = 0 # stand-ins know no ephemeral resources
}

run "stack" {
  command = apply

  # Network -----------------------------------------------------------------------------------------------------------

  assert {
    condition     = length(distinct([for subnet in aws_subnet.private : subnet.availability_zone])) == 2 && length(distinct([for subnet in aws_subnet.public : subnet.availability_zone])) == 2
    error_message = "The network must lie in two zones."
  }

  assert {
    condition     = !anytrue([for subnet in concat(aws_subnet.private, aws_subnet.public) : subnet.map_public_ip_on_launch])
    error_message = "No subnet may give out public addresses."
  }

  assert {
    condition     = length(distinct([for subnet in concat(aws_subnet.private, aws_subnet.public) : subnet.cidr_block])) == 4
    error_message = "The subnets must not overlap."
  }

  assert {
    condition     = alltrue([for service in aws_ecs_service.service : !service.network_configuration[0].assign_public_ip && toset(service.network_configuration[0].subnets) == toset(aws_subnet.private[*].id)])
    error_message = "Services run in private subnets, without a public address."
  }

  assert {
    condition     = !aws_db_instance.database.publicly_accessible && aws_db_subnet_group.database.subnet_ids == toset(aws_subnet.private[*].id)
    error_message = "The database is private."
  }

  assert {
    condition     = aws_lb.ui[0].subnets == toset(aws_subnet.public[*].id)
    error_message = "Only the load balancer is in the public subnets."
  }

  assert {
    condition     = toset([for route in aws_route.totesys : route.destination_cidr_block]) == toset(var.totesys_cidrs) && alltrue([for route in aws_route.totesys : route.route_table_id == aws_route_table.private.id])
    error_message = "The private subnets have routes to ToteSys and no other: no way to the Internet."
  }

  assert {
    condition     = toset(keys(aws_vpc_endpoint.interface)) == toset(["ecr.api", "ecr.dkr", "logs", "secretsmanager", "sns", "ecs"]) && alltrue([for endpoint in aws_vpc_endpoint.interface : endpoint.private_dns_enabled])
    error_message = "What tasks need of AWS must have an endpoint."
  }

  assert {
    condition     = aws_vpc_endpoint.s3.vpc_endpoint_type == "Gateway" && aws_vpc_endpoint.s3.route_table_ids == toset([aws_route_table.private.id])
    error_message = "S3 goes through a gateway endpoint."
  }

  assert {
    condition     = length(aws_default_security_group.closed.ingress) == 0 && length(aws_default_security_group.closed.egress) == 0
    error_message = "Nothing goes through the default security group."
  }

  assert {
    condition     = alltrue([for rule in aws_vpc_security_group_egress_rule.totesys : rule.from_port == 5433 && rule.to_port == 5433 && contains(var.totesys_cidrs, rule.cidr_ipv4)]) && length(aws_vpc_security_group_egress_rule.totesys) == 2
    error_message = "ToteSys is reached at its addresses and its port, and nothing else there."
  }

  assert {
    condition     = toset([for name, talk in local.conversations : talk.from if talk.to == "database"]) == toset(["ui", "insights", "engine", "provision"]) && alltrue([for rule in aws_vpc_security_group_ingress_rule.readers : rule.from_port == 5432])
    error_message = "The database is reached by tasks and readers only."
  }

  assert {
    condition = (
      toset([for talk in local.conversations : "${talk.to}:${talk.port}" if talk.from == "insights"]) == toset(["database:5432", "endpoints:443"]) &&
      toset([for talk in local.conversations : "${talk.from}:${talk.port}" if talk.to == "insights"]) == toset(["balancer:8501", "balancer:8502"])
    )
    error_message = "Dashboard and API are reached by the load balancer, and reach the database: neither Dagster nor ToteSys."
  }

  assert {
    condition     = toset([for rule in aws_vpc_security_group_ingress_rule.visitors : rule.cidr_ipv4]) == toset(["203.0.113.0/24"])
    error_message = "The load balancer is reached from ui_allowed_cidrs only."
  }

  assert {
    condition     = aws_flow_log.vpc.traffic_type == "ALL" && aws_cloudwatch_log_group.flow.kms_key_id != null
    error_message = "All traffic is in flow logs, encrypted."
  }

  # Keys and data -----------------------------------------------------------------------------------------------------

  assert {
    condition     = alltrue([for key in aws_kms_key.key : key.enable_key_rotation])
    error_message = "Every key is rotated."
  }

  assert {
    condition     = aws_db_instance.database.storage_encrypted && aws_db_instance.database.kms_key_id == aws_kms_key.key["data"].arn && aws_db_instance.database.performance_insights_kms_key_id == aws_kms_key.key["data"].arn
    error_message = "The database is encrypted with our key."
  }

  assert {
    condition     = aws_db_instance.database.manage_master_user_password && aws_db_instance.database.password == null
    error_message = "RDS makes and keeps the master's password."
  }

  assert {
    condition     = aws_db_instance.database.deletion_protection && !aws_db_instance.database.skip_final_snapshot && aws_db_instance.database.backup_retention_period == 14 && !aws_db_instance.database.delete_automated_backups
    error_message = "The database is backed up, and not deleted by mistake."
  }

  assert {
    condition     = contains([for parameter in aws_db_parameter_group.database.parameter : "${parameter.name}=${parameter.value}"], "rds.force_ssl=1") && aws_db_parameter_group.database.family == "postgres18"
    error_message = "The database refuses connections without TLS."
  }

  assert {
    condition     = aws_db_instance.database.max_allocated_storage > aws_db_instance.database.allocated_storage && aws_db_instance.database.multi_az
    error_message = "The database grows by itself, and has a standby."
  }

  assert {
    condition     = aws_ecr_repository.image.image_tag_mutability == "IMMUTABLE" && aws_ecr_repository.image.image_scanning_configuration[0].scan_on_push && aws_ecr_repository.image.encryption_configuration[0].encryption_type == "KMS"
    error_message = "Images are immutable, scanned and encrypted."
  }

  assert {
    condition     = alltrue([for secret in concat(values(aws_secretsmanager_secret.role), [aws_secretsmanager_secret.totesys]) : secret.kms_key_id == aws_kms_key.key["secrets"].arn && secret.recovery_window_in_days == 30])
    error_message = "Secrets are encrypted with our key, and recoverable."
  }

  assert {
    condition     = toset([for secret in concat(values(aws_secretsmanager_secret.role), [aws_secretsmanager_secret.totesys]) : secret.name]) == toset(["totesys/totesys-url", "totesys/warehouse-owner-url", "totesys/warehouse-loader-url", "totesys/warehouse-reader-url", "totesys/dagster-url", "totesys/dagster-viewer-url"])
    error_message = "The secrets have the names that the platform's documents give."
  }

  # Tasks -------------------------------------------------------------------------------------------------------------

  assert {
    condition = alltrue([for task in concat([module.code, module.daemon, module.webserver[0], module.viewer[0], module.run, module.provision], values(module.insights)) :
      task.definition.readonlyRootFilesystem && task.definition.user == "10001:10001" && !task.definition.privileged &&
      task.definition.linuxParameters.capabilities.drop == ["ALL"] && task.definition.stopTimeout == 120
    ])
    error_message = "Containers are not root, drop all capabilities, write only to their volumes, and have two minutes to end."
  }

  assert {
    condition = alltrue([for task in concat([module.code, module.daemon, module.webserver[0], module.viewer[0], module.run, module.provision], values(module.insights)) :
      toset([for mount in task.definition.mountPoints : mount.containerPath]) == toset(["/var/lib/totesys", "/tmp"])
    ])
    error_message = "Containers can write to TOTESYS_HOME and /tmp."
  }

  # The names of the variables are where image, code and Terraform meet: see docs/deploy.md.
  assert {
    condition = alltrue([for task in [module.code, module.daemon, module.webserver[0], module.viewer[0], module.run] :
      toset([for variable in task.definition.environment : variable.name]) == toset([
        "AWS_DEFAULT_REGION", "AWS_REGION", "DAGSTER_CURRENT_IMAGE", "DAGSTER_HOME", "FILES_URI", "LAKE_URI", "TOTESYS_ALERT_TOPIC", "TOTESYS_CODE_SERVER",
        "TOTESYS_ENGINE", "TOTESYS_HOME", "TOTESYS_LOG", "TOTESYS_NEW_COLUMNS", "TOTESYS_RANGE_ROWS", "TOTESYS_RECORD_DAYS", "TOTESYS_RUN_CLUSTER",
        "TOTESYS_RUN_SECURITY_GROUPS", "TOTESYS_RUN_SUBNETS", "TOTESYS_RUN_TASK_DEFINITION", "TOTESYS_SCHEMA", "TOTESYS_STALE_MINUTES", "TOTESYS_UI_URL",
        "TOTESYS_WORK_BUCKET",
      ])
    ])
    error_message = "The platform's containers have the variables that its code reads, no more and no fewer."
  }

  assert {
    condition = alltrue([for task in [module.code, module.daemon, module.run] :
      toset([for secret in task.definition.secrets : secret.name]) == toset(["TOTESYS_URL", "WAREHOUSE_URL", "TOTESYS_DAGSTER_URL"])
    ])
    error_message = "What captures and loads gets the three URLs."
  }

  assert {
    condition = alltrue([for task in [module.webserver[0], module.viewer[0]] :
      [for secret in task.definition.secrets : secret.name] == ["TOTESYS_DAGSTER_URL"]
    ])
    error_message = "What shows the UI gets the URL of Dagster's storage and no other."
  }

  assert {
    condition = toset(keys(module.insights)) == toset(["dashboard", "api"]) && alltrue([for task in module.insights :
      [for secret in task.definition.secrets : "${secret.name} ${secret.valueFrom}"] == ["WAREHOUSE_READER_URL ${aws_secretsmanager_secret.role["warehouse-reader"].arn}"]
    ])
    error_message = "Dashboard and API get the URL of the warehouse's reader and no other."
  }

  assert {
    condition = (
      { for variable in module.insights["dashboard"].definition.environment : variable.name => variable.value } == { TOTESYS_UI_URL = "https://view.totesys.example.com" } &&
      { for variable in module.insights["api"].definition.environment : variable.name => variable.value } == { TOTESYS_API_KEYS = var.api_key_hashes[0] }
    )
    error_message = "The dashboard knows where the UI of its viewers is, the API the hashes of its keys: neither the lake nor Dagster."
  }

  assert {
    condition = (
      module.insights["dashboard"].definition.command == ["totesys", "dashboard", "--host", "0.0.0.0", "--port", "8501"] &&
      module.insights["api"].definition.command == ["totesys", "api", "--host", "0.0.0.0", "--port", "8502"] &&
      alltrue([for name, task in module.insights : task.definition.portMappings[0].containerPort == aws_lb_target_group.ui[name].port])
    )
    error_message = "Dashboard and API listen where the load balancer asks them."
  }

  assert {
    condition     = toset([for secret in module.provision.definition.secrets : secret.name]) == toset(["WAREHOUSE_URL", "TOTESYS_DAGSTER_URL", "TOTESYS_DAGSTER_VIEWER_URL", "WAREHOUSE_OWNER_URL", "WAREHOUSE_READER_URL", "PGUSER", "PGPASSWORD"])
    error_message = "The provision task gets the roles' URLs and the master's login."
  }

  assert {
    condition     = one([for variable in module.provision.definition.environment : variable.value if variable.name == "WAREHOUSE_ADMIN_URL"]) == "postgresql://database.example.com:5432/postgres?sslmode=verify-full&sslrootcert=/etc/ssl/totesys/rds.pem"
    error_message = "The provision task is told where the database is, and checks its certificate."
  }

  assert {
    condition = alltrue(flatten([for task in concat([module.code, module.daemon, module.webserver[0], module.viewer[0], module.run, module.provision], values(module.insights)) : [
      for variable in task.definition.environment : !can(regex("://[^/@]*:[^/@]*@", variable.value)) && !can(regex("(?i)password|secret|token", variable.name))
    ]]))
    error_message = "No password stands in the environment of a task definition."
  }

  assert {
    condition     = alltrue(flatten([for task in concat([module.code, module.daemon, module.webserver[0], module.viewer[0], module.run, module.provision], values(module.insights)) : [for secret in task.definition.secrets : startswith(secret.valueFrom, "arn:aws:secretsmanager:")]]))
    error_message = "Secrets come from Secrets Manager."
  }

  assert {
    condition     = alltrue([for task in concat([module.code, module.daemon, module.webserver[0], module.viewer[0]], values(module.insights)) : try(task.definition.healthCheck.command[0], "") == "CMD"])
    error_message = "Every service has a health check."
  }

  assert {
    condition     = contains(module.viewer[0].definition.command, "--read-only") && !contains(module.webserver[0].definition.command, "--read-only")
    error_message = "Viewers get the read-only webserver."
  }

  assert {
    condition     = alltrue([for task in concat([module.code, module.daemon, module.webserver[0], module.viewer[0], module.run, module.provision], values(module.insights)) : endswith(task.definition.image, ":0123abc")])
    error_message = "All run the image that image_tag names."
  }

  assert {
    condition     = alltrue([for task in concat([module.code, module.daemon, module.webserver[0], module.viewer[0], module.run, module.provision], values(module.insights)) : task.definition.logConfiguration.options["awslogs-group"] == "/totesys/totesys"]) && aws_cloudwatch_log_group.main.name == "/totesys/totesys"
    error_message = "All log to the one group that the metrics are counted in."
  }

  # Services ----------------------------------------------------------------------------------------------------------

  assert {
    condition     = alltrue([for service in aws_ecs_service.service : service.desired_count == 0])
    error_message = "No task is started before the databases are provisioned: a release starts them."
  }

  assert {
    condition     = aws_ecs_service.service["daemon"].deployment_maximum_percent == 100 && aws_ecs_service.service["daemon"].deployment_minimum_healthy_percent == 0 && aws_ecs_service.service["daemon"].availability_zone_rebalancing == "DISABLED"
    error_message = "There are never two daemons: the old one ends before the new one begins."
  }

  assert {
    condition     = alltrue([for name, service in aws_ecs_service.service : service.deployment_minimum_healthy_percent == 100 if name != "daemon"])
    error_message = "The other services go on while they are replaced."
  }

  assert {
    condition     = alltrue([for name, service in aws_ecs_service.service : service.deployment_circuit_breaker[0].enable && service.deployment_circuit_breaker[0].rollback == (name != "daemon") && !service.enable_execute_command])
    error_message = "A deployment that fails is taken back, the daemon's by the release, and nobody gets a shell."
  }

  assert {
    condition     = length(aws_ecs_service.service["code"].service_registries) == 1 && one([for variable in module.daemon.definition.environment : variable.value if variable.name == "TOTESYS_CODE_SERVER"]) == "code.totesys.internal"
    error_message = "The code server is found by its name."
  }

  # Access ------------------------------------------------------------------------------------------------------------

  assert {
    condition     = aws_lb_listener.https[0].ssl_policy == "ELBSecurityPolicy-TLS13-1-2-2021-06" && aws_lb_listener.http[0].default_action[0].type == "redirect" && aws_lb_listener.https[0].default_action[0].type == "fixed-response"
    error_message = "TLS 1.2 or later, HTTP is sent there, and an unknown host gets nothing."
  }

  assert {
    condition = { for name, rule in aws_lb_listener_rule.host : name => join(", ", sort([for action in rule.action : "${action.order} ${action.type}"])) } == {
      webserver = "1 authenticate-cognito, 2 forward"
      viewer    = "1 authenticate-cognito, 2 forward"
      dashboard = "1 authenticate-cognito, 2 forward"
      api       = "2 forward"
    }
    error_message = "Nothing is forwarded before a login but to the API, which has keys."
  }

  assert {
    condition = { for name, rule in aws_lb_listener_rule.host : name => one([for action in rule.action : one(action.authenticate_cognito[*].session_cookie_name) if action.type == "authenticate-cognito"]) } == {
      webserver = "totesys-operators"
      viewer    = "totesys-viewers"
      dashboard = "totesys-viewers"
      api       = null
    }
    error_message = "The dashboard has the login of viewers."
  }

  assert {
    condition = { for name, rule in aws_lb_listener_rule.host : name => one(one(one([for part in rule.condition : part.host_header])).values) } == {
      webserver = "totesys.example.com"
      viewer    = "view.totesys.example.com"
      dashboard = "sales.totesys.example.com"
      api       = "api.totesys.example.com"
    }
    error_message = "Each service has a host of its own."
  }

  assert {
    condition     = length(distinct([for rule in aws_lb_listener_rule.host : rule.priority])) == 4
    error_message = "Every rule has a place of its own."
  }

  assert {
    condition = { for name, group in aws_lb_target_group.ui : name => [group.health_check[0].path, group.stickiness[0].enabled] } == {
      webserver = ["/server_info", false]
      viewer    = ["/server_info", false]
      dashboard = ["/_stcore/health", true]
      api       = ["/openapi.json", false]
    }
    error_message = "Each service is asked whether it is well where it answers, and a page of the dashboard stays with its task."
  }

  assert {
    condition     = alltrue([for pool in aws_cognito_user_pool.pool : pool.admin_create_user_config[0].allow_admin_create_user_only && pool.password_policy[0].minimum_length >= 14 && pool.deletion_protection == "ACTIVE"])
    error_message = "Nobody signs up by themselves."
  }

  assert {
    condition     = aws_cognito_user_pool_client.balancer["viewers"].callback_urls == toset(["https://view.totesys.example.com/oauth2/idpresponse", "https://sales.totesys.example.com/oauth2/idpresponse"]) && aws_cognito_user_pool_client.balancer["operators"].callback_urls == toset(["https://totesys.example.com/oauth2/idpresponse"]) && alltrue([for client in aws_cognito_user_pool_client.balancer : client.generate_secret])
    error_message = "A login leads back to its own hosts only."
  }

  assert {
    condition     = aws_lb.ui[0].enable_deletion_protection && aws_lb.ui[0].drop_invalid_header_fields && aws_lb.ui[0].access_logs[0].enabled
    error_message = "The load balancer is guarded and logged."
  }

  assert {
    condition     = toset([for record in aws_route53_record.host : record.name]) == toset(["totesys.example.com", "view.totesys.example.com", "sales.totesys.example.com", "api.totesys.example.com"])
    error_message = "All names are made in the zone."
  }

  # Alarms (and totesys_assets_tests/deploy/test_alarms.py) -----------------------------------------------------------

  assert {
    condition     = toset([for subscription in aws_sns_topic_subscription.email : subscription.endpoint]) == toset(var.alarm_emails) && aws_sns_topic.alerts.kms_master_key_id != null
    error_message = "Everybody in alarm_emails hears of alarms."
  }

  assert {
    condition     = length(jsondecode(aws_cloudwatch_dashboard.main.dashboard_body).widgets) == 11
    error_message = "The dashboard shows alarms, nine graphs and the last events."
  }

  # Rates -------------------------------------------------------------------------------------------------------------

  assert {
    condition     = length(aws_lambda_function.rates[0].vpc_config) == 0 && aws_lambda_function.rates[0].timeout == 180 && aws_lambda_function_event_invoke_config.rates[0].maximum_retry_attempts == 0
    error_message = "Rates are fetched from outside of the network, and every failure is counted once."
  }

  assert {
    condition = aws_lambda_function.rates[0].environment[0].variables == tomap({
      RATES_URL    = "https://www.ecb.europa.eu/stats/eurofxref/eurofxref-hist.zip"
      RATES_BUCKET = module.lake.name
      RATES_KEY    = "files/rates/eurofxref-hist.zip"
    })
    error_message = "The function drops the European Central Bank's archive where the platform looks for rates."
  }

  assert {
    condition = (
      aws_scheduler_schedule.rates[0].schedule_expression == "cron(20 16,18 ? * MON-FRI *)" && aws_scheduler_schedule.rates[0].schedule_expression_timezone == "Europe/Berlin" &&
      aws_scheduler_schedule.rates[0].target[0].arn == aws_lambda_function.rates[0].arn && aws_scheduler_schedule.rates[0].flexible_time_window[0].mode == "OFF"
    )
    error_message = "Rates are fetched after they are published, and once more."
  }

  assert {
    condition     = aws_cloudwatch_log_group.rates[0].name == "/totesys/totesys/rates" && aws_cloudwatch_log_group.rates[0].kms_key_id != null && aws_lambda_function.rates[0].logging_config[0].log_group == aws_cloudwatch_log_group.rates[0].name
    error_message = "What the function says is kept, encrypted."
  }

  # Lake for Athena ---------------------------------------------------------------------------------------------------

  assert {
    condition     = length(aws_glue_catalog_table.star) == 19 && alltrue([for name, table in aws_glue_catalog_table.star : table.parameters["table_type"] == "delta" && table.parameters["spark.sql.sources.provider"] == "delta" && endswith(table.storage_descriptor[0].location, "/totesys/processed/${name}/")])
    error_message = "Athena finds the star tables as Delta tables."
  }

  assert {
    condition     = aws_athena_workgroup.star.configuration[0].enforce_workgroup_configuration && aws_athena_workgroup.star.configuration[0].bytes_scanned_cutoff_per_query == 10737418240 && aws_athena_workgroup.star.configuration[0].result_configuration[0].encryption_configuration[0].encryption_option == "SSE_KMS"
    error_message = "Queries are bounded, and their results encrypted."
  }

  # GitHub ------------------------------------------------------------------------------------------------------------

  assert {
    condition = { for name, role in aws_iam_role.ci : name => jsondecode(role.assume_role_policy).Statement[0].Condition.StringEquals["token.actions.githubusercontent.com:sub"] } == {
      build  = "repo:example/totesys-assets:ref:refs/heads/main"
      plan   = "repo:example/totesys-assets:ref:refs/heads/main"
      deploy = "repo:example/totesys-assets:environment:production"
    }
    error_message = "Only the environment production deploys, and a pull request gets nothing."
  }

  assert {
    condition     = alltrue([for role in aws_iam_role.ci : jsondecode(role.assume_role_policy).Statement[0].Condition.StringEquals["token.actions.githubusercontent.com:aud"] == "sts.amazonaws.com"])
    error_message = "Tokens must be meant for AWS."
  }
}
