# What workflows and people need to go on. Nothing here is secret.

output "image_repository" {
  description = "Where to push the image: <this>:<tag>."
  value       = aws_ecr_repository.image.repository_url
}

output "image_tag" {
  description = "Tag that the services run; empty before the first deployment."
  value       = var.image_tag == null ? "" : var.image_tag
}

output "image_digest" {
  description = "Digest of that image, if the tasks name it; else empty."
  value       = var.image_digest == null ? "" : var.image_digest
}

output "totesys_secret" {
  description = "Name of the secret to fill in with the URL of ToteSys."
  value       = aws_secretsmanager_secret.totesys.name
}

output "cluster" {
  description = "Name of the ECS cluster."
  value       = aws_ecs_cluster.main.name
}

output "services" {
  description = "The ECS services, each with the task definition that a release gives it."
  value       = { for name, service in local.services : name => service.task }
}

output "fargate_vcpu" {
  description = "The vCPU on Fargate that the stack takes: at least for a large run and a release, and at most."
  value       = local.fargate_vcpu
}

output "provision" {
  description = "For aws ecs run-task: the provision task and where it runs."
  value = {
    cluster         = aws_ecs_cluster.main.name
    task_definition = module.provision.arn
    container       = module.provision.container
    network = jsonencode({ awsvpcConfiguration = {
      subnets        = aws_subnet.private[*].id
      securityGroups = [aws_security_group.group["provision"].id]
      assignPublicIp = "DISABLED"
    } })
  }
}

output "command" {
  description = "For deploy/run.sh: where a command runs, and as which other role it can."
  value = {
    cluster   = aws_ecs_cluster.main.name
    container = module.run.container
    log_group = aws_cloudwatch_log_group.main.name
    roles     = { restore = aws_iam_role.restore.arn }
    network = jsonencode({ awsvpcConfiguration = {
      subnets        = aws_subnet.private[*].id
      securityGroups = [aws_security_group.group["engine"].id]
      assignPublicIp = "DISABLED"
    } })
  }
}

output "operator_policy" {
  description = "Policy for who may run commands of the platform with deploy/run.sh."
  value       = aws_iam_policy.operator.arn
}

output "run_task_definition" {
  description = "Family of the task definition of backfills."
  value       = module.run.family
}

output "ui_url" {
  description = "The UI, for operators; null with ui = \"none\", as are the next two."
  value       = local.has_ui ? "https://${local.ui_host}" : null
}

output "viewer_url" {
  description = "The UI, for viewers: read-only."
  value       = local.has_viewer ? "https://${local.viewer_host}" : null
}

output "dashboard_url" {
  description = "The dashboard, for viewers."
  value       = local.has_ui ? "https://${local.dashboard_host}" : null
}

output "api_url" {
  description = "The API, for programs with a key; null without api_key_hashes."
  value       = local.has_api ? "https://${local.api_host}" : null
}

output "load_balancer_host" {
  description = "What all host names must lead to, where route53_zone_id is not set; null with ui = \"none\"."
  value       = one(aws_lb.ui[*].dns_name)
}

output "user_pools" {
  description = "Cognito user pools, in which users are made."
  value       = { for audience, pool in aws_cognito_user_pool.pool : audience => pool.id }
}

output "lake_bucket" {
  description = "Bucket of the lake."
  value       = module.lake.name
}

output "lake_uri" {
  description = "LAKE_URI of the platform."
  value       = local.environment.LAKE_URI
}

output "files" {
  description = "FILES_URI of the platform, and the policy for who may drop files there."
  value = {
    uri            = local.environment.FILES_URI
    dropper_policy = aws_iam_policy.file_dropper.arn
  }
}

output "rates_function" {
  description = "Name of the function that fetches exchange rates; null with an empty rates_url."
  value       = local.has_rates ? local.rates_function : null
}

output "work_bucket" {
  description = "Bucket of compute logs and of Athena's results."
  value       = module.work.name
}

output "logs_bucket" {
  description = "Bucket of access logs."
  value       = module.logs.name
}

output "alert_topic" {
  description = "ARN of the SNS topic of alarms and alerts."
  value       = aws_sns_topic.alerts.arn
}

output "log_group" {
  description = "Log group of all containers; streams begin with the service's name."
  value       = aws_cloudwatch_log_group.main.name
}

output "dashboard" {
  description = "Name of the CloudWatch dashboard."
  value       = aws_cloudwatch_dashboard.main.dashboard_name
}

output "database_endpoint" {
  description = "Host and port of the database, inside the network."
  value       = aws_db_instance.database.endpoint
}

output "athena" {
  description = "Workgroup and database for Athena, and the policy for who may query."
  value = {
    workgroup     = aws_athena_workgroup.star.name
    database      = aws_glue_catalog_database.star.name
    reader_policy = aws_iam_policy.lake_reader.arn
  }
}

output "nat_address" {
  description = "Address from which ToteSys sees the platform; null unless totesys_route.by is nat."
  value       = one(aws_eip.nat[*].public_ip)
}

output "ci_roles" {
  description = "ARNs of the roles for GitHub's workflows."
  value       = { for name, role in aws_iam_role.ci : name => role.arn }
}
