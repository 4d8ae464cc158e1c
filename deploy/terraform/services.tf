# What runs: the platform's four services, one or two that read the warehouse for people and programs, and two kinds of task
# that others start (large runs by the daemon, provision by a release).
#
# Terraform registers task definitions; it neither starts services nor moves them. deploy/release.sh does, once the provision task
# has run, for a daemon must not meet databases that are not migrated.

resource "aws_ecs_cluster" "main" {
  # checkov:skip=CKV_AWS_65:alarms and dashboard go by the metrics of AWS/ECS, which are free; Container Insights are not
  name = var.name

  setting {
    name  = "containerInsights"
    value = "disabled" # whatever the account's default is
  }
}

resource "aws_ecs_cluster_capacity_providers" "main" {
  cluster_name       = aws_ecs_cluster.main.name
  capacity_providers = ["FARGATE"]
}

# The code server's name, by which the others find it: code.<name>.internal.
resource "aws_service_discovery_private_dns_namespace" "main" {
  name        = "${var.name}.internal"
  description = "${var.name}: services that find each other"
  vpc         = aws_vpc.main.id
}

resource "aws_service_discovery_service" "code" {
  name = "code"

  dns_config {
    namespace_id   = aws_service_discovery_private_dns_namespace.main.id
    routing_policy = "MULTIVALUE"

    dns_records {
      type = "A"
      ttl  = 10
    }
  }

  health_check_custom_config {
    failure_threshold = 1
  }
}

locals {
  stack = {
    name            = var.name
    account         = local.account
    region          = var.region
    arn             = local.arn
    architecture    = var.architecture
    log_group       = local.log_group
    log_group_arn   = local.log_group_arn
    repository_arn  = aws_ecr_repository.image.arn
    secrets_key_arn = aws_kms_key.key["secrets"].arn
    boundary_arn    = aws_iam_policy.boundary.arn
  }

  sizes = merge({
    code      = { cpu = 1024, memory = 2048 }
    daemon    = { cpu = 2048, memory = 8192 } # refreshes are forked here: 280 MB for what they share, and their data
    webserver = { cpu = 512, memory = 1024 }
    viewer    = { cpu = 512, memory = 1024 }
    dashboard = { cpu = 512, memory = 1024 } # 250 MB with ten viewers
    api       = { cpu = 512, memory = 1024 }
    run       = { cpu = 4096, memory = 16384 }
    provision = { cpu = 512, memory = 1024 }
  }, var.sizes)

  environment = merge({
    AWS_REGION                  = var.region
    AWS_DEFAULT_REGION          = var.region # boto3 reads no other
    DAGSTER_HOME                = "/opt/totesys/dagster"
    TOTESYS_HOME                = "/var/lib/totesys"
    LAKE_URI                    = "s3://${module.lake.name}/${local.lake_root}"
    FILES_URI                   = "s3://${module.lake.name}/${local.files_root}"
    TOTESYS_WORK_BUCKET         = module.work.name
    TOTESYS_ALERT_TOPIC         = aws_sns_topic.alerts.arn
    TOTESYS_UI_URL              = local.has_ui ? "https://${local.ui_host}" : ""
    TOTESYS_STALE_MINUTES       = tostring(var.stale_minutes)
    TOTESYS_RECORD_DAYS         = tostring(var.record_days)
    TOTESYS_LOG                 = var.totesys_log
    TOTESYS_SCHEMA              = var.totesys_schema
    TOTESYS_NEW_COLUMNS         = var.new_columns
    TOTESYS_RANGE_ROWS          = format("%d", var.range_rows)
    TOTESYS_ENGINE              = var.spark == null ? "duckdb" : "spark"
    TOTESYS_CODE_SERVER         = "${aws_service_discovery_service.code.name}.${aws_service_discovery_private_dns_namespace.main.name}"
    TOTESYS_RUN_CLUSTER         = aws_ecs_cluster.main.name
    TOTESYS_RUN_TASK_DEFINITION = local.run_family
    TOTESYS_RUN_SUBNETS         = join(",", aws_subnet.private[*].id)
    TOTESYS_RUN_SECURITY_GROUPS = aws_security_group.group["engine"].id
    DAGSTER_CURRENT_IMAGE       = local.image
  }, var.first_day == null ? {} : { TOTESYS_FIRST_DAY = var.first_day })

  # The revision instead of the family: a daemon starts large runs with its own version, and knows when they change.
  service_environment = merge(local.environment, { TOTESYS_RUN_TASK_DEFINITION = module.run.arn })

  dagster_secrets = { TOTESYS_DAGSTER_URL = aws_secretsmanager_secret.role["dagster"].arn }
  engine_secrets = merge(local.dagster_secrets, {
    TOTESYS_URL   = aws_secretsmanager_secret.totesys.arn
    WAREHOUSE_URL = aws_secretsmanager_secret.role["warehouse-loader"].arn
  }, { for secret in aws_secretsmanager_secret.spark : "SPARK_REMOTE" => secret.arn })

  webserver_command = ["python", "-m", "totesys_assets.webserver", "-h", "0.0.0.0", "-p", "3000", "-w", "/opt/totesys/workspace.yaml"]
  webserver_health  = ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:3000/server_info', timeout=10)"]
}

module "code" {
  source = "./modules/task"

  stack          = local.stack
  kind           = "code"
  image          = local.image
  command        = ["dagster", "api", "grpc", "-h", "0.0.0.0", "-p", "4000", "-m", "totesys_assets.definitions"]
  size           = local.sizes.code
  environment    = local.service_environment
  secrets        = local.engine_secrets
  statements     = jsonencode(local.code_statements)
  port           = 4000
  health_check   = ["dagster", "api", "grpc-health-check", "-p", "4000"]
  keep_revisions = var.deletion_protection
}

module "daemon" {
  source = "./modules/task"

  stack          = local.stack
  kind           = "daemon"
  image          = local.image
  command        = ["dagster-daemon", "run"]
  size           = local.sizes.daemon
  environment    = local.service_environment
  secrets        = local.engine_secrets
  statements     = jsonencode(local.daemon_statements)
  health_check   = ["dagster-daemon", "liveness-check"]
  keep_revisions = var.deletion_protection
}

module "webserver" {
  source = "./modules/task"
  count  = local.has_ui ? 1 : 0

  stack          = local.stack
  kind           = "webserver"
  image          = local.image
  command        = local.webserver_command
  size           = local.sizes.webserver
  environment    = local.service_environment
  secrets        = local.dagster_secrets # it reads neither ToteSys nor the warehouse
  statements     = jsonencode(local.webserver_statements)
  port           = 3000
  health_check   = local.webserver_health
  keep_revisions = var.deletion_protection
}

module "viewer" {
  source = "./modules/task"
  count  = local.has_viewer ? 1 : 0

  stack          = local.stack
  kind           = "viewer"
  image          = local.image
  command        = concat(local.webserver_command, ["--read-only"])
  size           = local.sizes.viewer
  environment    = merge(local.service_environment, { TOTESYS_UI_URL = "https://${local.viewer_host}" })
  secrets        = { TOTESYS_DAGSTER_URL = aws_secretsmanager_secret.role["dagster-viewer"].arn }
  statements     = jsonencode(local.viewer_statements)
  port           = 3000
  health_check   = local.webserver_health
  keep_revisions = var.deletion_protection
}

# What the warehouse says, to people and to programs. Both know the reader's login and nothing else: no way to ToteSys, to
# the lake or to Dagster. They may do nothing in AWS.
locals {
  possible_insights = merge(
    {
      # Streamlit's own guard fits: it takes a websocket only from a page of the host that was asked for, which the load
      # balancer passes on as it came.
      dashboard = {
        port        = 8501
        health_path = "/_stcore/health"
        environment = { TOTESYS_UI_URL = local.has_viewer ? "https://${local.viewer_host}" : "" }
      }
    },
    { for name in local.has_api ? ["api"] : [] : name => {
      port = 8502
      # Not /healthz: a warehouse that is away comes back no sooner for another task.
      health_path = "/openapi.json"
      # No secret: they are hashes of long random keys.
      environment = { TOTESYS_API_KEYS = join(",", var.api_key_hashes) }
    } },
  )
  insights = { for name, each in local.possible_insights : name => each if local.has_ui }
}

module "insights" {
  source   = "./modules/task"
  for_each = local.insights

  stack           = local.stack
  kind            = each.key
  image           = local.image
  command         = ["totesys", each.key, "--host", "0.0.0.0", "--port", tostring(each.value.port)]
  size            = local.sizes[each.key]
  environment     = each.value.environment
  secrets         = { WAREHOUSE_READER_URL = aws_secretsmanager_secret.role["warehouse-reader"].arn }
  has_permissions = false
  port            = each.value.port
  health_check    = ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:${each.value.port}${each.value.health_path}', timeout=10)"]
  keep_revisions  = var.deletion_protection
}

# A large run. The daemon starts it, and says in the container's command which run it is.
module "run" {
  source = "./modules/task"

  stack          = local.stack
  kind           = "run"
  image          = local.image
  command        = ["dagster", "--version"]
  size           = local.sizes.run
  storage_gib    = var.run_storage_gib
  environment    = local.environment
  secrets        = local.engine_secrets
  statements     = jsonencode(local.run_statements)
  keep_revisions = var.deletion_protection
}

# Databases, roles, passwords, migrations: run once before each new daemon. It may do nothing in AWS, and knows nothing of
# ToteSys.
module "provision" {
  source = "./modules/task"

  stack   = local.stack
  kind    = "provision"
  image   = local.image
  command = ["totesys", "provision"]
  size    = local.sizes.provision
  environment = merge(local.environment, {
    WAREHOUSE_ADMIN_URL = "postgresql://${aws_db_instance.database.endpoint}/postgres?${local.database_tls}"
  })
  secrets = merge(local.dagster_secrets, {
    WAREHOUSE_URL              = local.engine_secrets.WAREHOUSE_URL
    WAREHOUSE_OWNER_URL        = aws_secretsmanager_secret.role["warehouse-owner"].arn
    WAREHOUSE_READER_URL       = aws_secretsmanager_secret.role["warehouse-reader"].arn
    TOTESYS_DAGSTER_VIEWER_URL = aws_secretsmanager_secret.role["dagster-viewer"].arn
    PGUSER                     = "${aws_db_instance.database.master_user_secret[0].secret_arn}:username::"
    PGPASSWORD                 = "${aws_db_instance.database.master_user_secret[0].secret_arn}:password::"
  })
  has_permissions = false
  keep_revisions  = var.deletion_protection
}

# There were none without.
moved {
  from = module.webserver
  to   = module.webserver[0]
}

moved {
  from = module.viewer
  to   = module.viewer[0]
}

# Services -------------------------------------------------------------------------------------------------------------

locals {
  # A new task beside the old one, which goes when the new one is well.
  beside = { least = 100, most = 200 }

  services = merge(
    {
      code = { task = module.code.arn, group = "engine", percent = local.beside }
      # Never two daemons: each would start every refresh. ECS begins the new one once the old one was told to end; that
      # it has ended, the release waits for.
      daemon = { task = module.daemon.arn, group = "engine", percent = { least = 0, most = 100 } }
    },
    { for task in module.webserver : "webserver" => { task = task.arn, group = "ui", percent = local.beside } },
    { for task in module.viewer : "viewer" => { task = task.arn, group = "ui", percent = local.beside } },
    { for name, task in module.insights : name => { task = task.arn, group = "insights", percent = local.beside } },
  )
}

resource "aws_ecs_service" "service" {
  for_each = local.services

  name                   = each.key
  cluster                = aws_ecs_cluster.main.id
  task_definition        = each.value.task
  desired_count          = 0 # at rest until the first release
  launch_type            = "FARGATE"
  platform_version       = "LATEST"
  enable_execute_command = false
  propagate_tags         = "SERVICE"

  deployment_minimum_healthy_percent = each.value.percent.least
  deployment_maximum_percent         = each.value.percent.most
  availability_zone_rebalancing      = "DISABLED" # it would want a second task for a while
  health_check_grace_period_seconds  = contains(keys(local.sites), each.key) ? 180 : null

  # ECS would begin the old daemon while the new one still ends; the release waits, and takes it back itself.
  deployment_circuit_breaker {
    enable   = true
    rollback = each.key != "daemon"
  }

  network_configuration {
    subnets          = aws_subnet.private[*].id
    security_groups  = [aws_security_group.group[each.value.group].id]
    assign_public_ip = false
  }

  dynamic "load_balancer" {
    for_each = contains(keys(local.sites), each.key) ? [aws_lb_target_group.ui[each.key]] : []

    content {
      target_group_arn = load_balancer.value.arn
      container_name   = each.key
      container_port   = load_balancer.value.port
    }
  }

  dynamic "service_registries" {
    for_each = each.key == "code" ? [aws_service_discovery_service.code.arn] : []

    content {
      registry_arn = service_registries.value
    }
  }

  lifecycle {
    ignore_changes = [desired_count, task_definition] # moved by a release: see the head of this file
  }

  # A task that starts before it can reach the registry, its log or its secrets would count as a failed deployment.
  depends_on = [
    aws_lb_listener_rule.host,
    aws_vpc_endpoint.interface,
    aws_vpc_endpoint.s3,
    aws_cloudwatch_log_group.main,
    aws_vpc_security_group_egress_rule.conversation,
    aws_vpc_security_group_ingress_rule.conversation,
    aws_vpc_security_group_egress_rule.s3,
  ]
}
