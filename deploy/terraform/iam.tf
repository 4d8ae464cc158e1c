# What each kind of task may do in AWS, and the most that any role of this stack ever can.
#
# A `*` stands beside its reason, in a comment that begins with "any:"; a test sees to it.

locals {
  run_roles = [for end in ["execution", "task"] : "${local.arn}:iam::${local.account}:role/${local.run_family}-${end}"]

  # The lake ----------------------------------------------------------------------------------------------------------
  read_lake = [
    {
      Sid       = "ListLake"
      Effect    = "Allow"
      Action    = "s3:ListBucket"
      Resource  = module.lake.arn
      Condition = { StringLike = { "s3:prefix" = [local.lake_root, "${local.lake_root}/*"] } }
    },
    {
      Sid      = "ReadLake"
      Effect   = "Allow"
      Action   = "s3:GetObject"
      Resource = "${module.lake.arn}/${local.lake_root}/*"
    },
    {
      Sid       = "DataKey"
      Effect    = "Allow"
      Action    = ["kms:Decrypt", "kms:GenerateDataKey"]
      Resource  = aws_kms_key.key["data"].arn
      Condition = { StringEquals = { "kms:ViaService" = "s3.${var.region}.amazonaws.com" } }
    },
  ]

  write_lake = [
    {
      Sid      = "WriteLake"
      Effect   = "Allow"
      Action   = ["s3:PutObject", "s3:AbortMultipartUpload"]
      Resource = "${module.lake.arn}/${local.lake_root}/*"
    },
    # Vacuum, and Delta's own tidying of its log. The data of the ingestion zone are left out: nothing removes them.
    {
      Sid      = "TidyLake"
      Effect   = "Allow"
      Action   = "s3:DeleteObject" # leaves the version behind
      Resource = [for part in ["processed", "ledger", "dead_letter", "schema_registry", "ingestion/*/_delta_log"] : "${module.lake.arn}/${local.lake_root}/${part}/*"]
    },
  ]

  # Dropped files -----------------------------------------------------------------------------------------------------
  read_files = [
    {
      Sid       = "ListFiles"
      Effect    = "Allow"
      Action    = "s3:ListBucket"
      Resource  = module.lake.arn
      Condition = { StringLike = { "s3:prefix" = ["${local.files_root}/*"] } }
    },
    {
      Sid      = "ReadFiles"
      Effect   = "Allow"
      Action   = "s3:GetObject"
      Resource = "${module.lake.arn}/${local.files_root}/*"
    },
  ]

  # Archives that the platform fetches, where somebody gives it a way to the Internet and TOTESYS_RATES_URL; earlier ones go.
  write_rates = [
    {
      Sid      = "WriteRates"
      Effect   = "Allow"
      Action   = ["s3:PutObject", "s3:AbortMultipartUpload", "s3:DeleteObject"]
      Resource = "${module.lake.arn}/${local.files_root}/rates/*"
    },
  ]

  # Logs of runs ------------------------------------------------------------------------------------------------------
  read_compute_logs = [
    {
      Sid       = "ListComputeLogs"
      Effect    = "Allow"
      Action    = "s3:ListBucket"
      Resource  = module.work.arn
      Condition = { StringLike = { "s3:prefix" = ["compute-logs", "compute-logs/*"] } }
    },
    {
      Sid      = "ReadComputeLogs"
      Effect   = "Allow"
      Action   = "s3:GetObject"
      Resource = "${module.work.arn}/compute-logs/*"
    },
  ]

  write_compute_logs = [
    {
      Sid      = "WriteComputeLogs"
      Effect   = "Allow"
      Action   = ["s3:PutObject", "s3:AbortMultipartUpload"]
      Resource = "${module.work.arn}/compute-logs/*"
    },
  ]

  data_key = [for statement in local.read_lake : statement if statement.Sid == "DataKey"]

  # Alerts ------------------------------------------------------------------------------------------------------------
  alert = [
    {
      Sid      = "Alert"
      Effect   = "Allow"
      Action   = "sns:Publish"
      Resource = aws_sns_topic.alerts.arn
    },
    {
      Sid       = "OperationsKey"
      Effect    = "Allow"
      Action    = ["kms:Decrypt", "kms:GenerateDataKey"]
      Resource  = aws_kms_key.key["operations"].arn
      Condition = { StringEquals = { "kms:ViaService" = "sns.${var.region}.amazonaws.com" } }
    },
  ]

  # Large runs --------------------------------------------------------------------------------------------------------
  describe_run = [
    {
      Sid      = "DescribeRun"
      Effect   = "Allow"
      Action   = "ecs:DescribeTaskDefinition"
      Resource = "*" # any: the action knows no resources; a task definition holds no secret
    },
  ]

  start_runs = [
    {
      Sid       = "StartRuns"
      Effect    = "Allow"
      Action    = "ecs:RunTask"
      Resource  = "${local.arn}:ecs:${var.region}:${local.account}:task-definition/${local.run_family}:*"
      Condition = { ArnEquals = { "ecs:cluster" = local.cluster_arn } }
    },
    {
      Sid       = "TagRuns"
      Effect    = "Allow"
      Action    = "ecs:TagResource"
      Resource  = local.cluster_task_arn
      Condition = { StringEquals = { "ecs:CreateAction" = "RunTask" } }
    },
    {
      Sid       = "HandRunsTheirRoles"
      Effect    = "Allow"
      Action    = "iam:PassRole"
      Resource  = local.run_roles
      Condition = { StringEquals = { "iam:PassedToService" = "ecs-tasks.amazonaws.com" } }
    },
    {
      Sid      = "ReadWhyRunsFailed"
      Effect   = "Allow"
      Action   = "logs:GetLogEvents"
      Resource = "${local.log_group_arn}:log-stream:run/*"
    },
  ]

  # Dagster puts the run's id on the task of a large run, and on no other: services are not stopped by this.
  stop_runs = [
    {
      Sid       = "LookAtRuns"
      Effect    = "Allow"
      Action    = "ecs:DescribeTasks"
      Resource  = local.cluster_task_arn
      Condition = { ArnEquals = { "ecs:cluster" = local.cluster_arn } }
    },
    {
      Sid      = "StopRuns"
      Effect   = "Allow"
      Action   = "ecs:StopTask"
      Resource = local.cluster_task_arn
      Condition = {
        ArnEquals = { "ecs:cluster" = local.cluster_arn }
        Null      = { "aws:ResourceTag/dagster/run_id" = "false" }
      }
    },
  ]

  # Who may do what ---------------------------------------------------------------------------------------------------
  # The code server evaluates sensors: it looks whether the lake is stale, tells of failures, and keeps the logs of ticks.
  code_statements      = concat(local.read_lake, local.read_files, local.read_compute_logs, local.write_compute_logs, local.alert)
  daemon_statements    = concat(local.read_lake, local.write_lake, local.read_files, local.write_rates, local.read_compute_logs, local.write_compute_logs, local.describe_run, local.start_runs, local.stop_runs)
  run_statements       = concat(local.read_lake, local.write_lake, local.read_files, local.write_rates, local.read_compute_logs, local.write_compute_logs)
  webserver_statements = concat(local.read_compute_logs, local.data_key, local.describe_run, local.stop_runs)
  viewer_statements    = concat(local.read_compute_logs, local.data_key)
}

# For people and programs: whoever is given this policy may drop files for the platform, and touch nothing else.
resource "aws_iam_policy" "file_dropper" {
  name        = "${var.name}-file-dropper"
  description = "Drop files for ${var.name}, and take them back"
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat(local.read_files, local.data_key, [
      {
        Sid      = "DropFiles"
        Effect   = "Allow"
        Action   = ["s3:PutObject", "s3:AbortMultipartUpload", "s3:DeleteObject"]
        Resource = "${module.lake.arn}/${local.files_root}/*"
      },
    ])
  })
}

# The most that a role of this stack can do, whatever its own policy says. What deploys the stack from GitHub may make
# roles only with this boundary, and may not touch the boundary: so it cannot make one that can do more (ci.tf).
resource "aws_iam_policy" "boundary" {
  name        = "${var.name}-boundary"
  description = "The most that any role of ${var.name} can do"
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid      = "Objects"
        Effect   = "Allow"
        Action   = ["s3:ListBucket", "s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"]
        Resource = flatten([for bucket in [module.lake, module.work] : [bucket.arn, "${bucket.arn}/*"]])
      },
      {
        Sid      = "OldVersions"
        Effect   = "Allow"
        Action   = ["s3:ListBucketVersions", "s3:GetObjectVersion", "s3:GetBucketVersioning", "s3:GetLifecycleConfiguration"]
        Resource = [module.lake.arn, "${module.lake.arn}/*"]
      },
      {
        Sid      = "Keys"
        Effect   = "Allow"
        Action   = ["kms:Decrypt", "kms:GenerateDataKey"]
        Resource = [for key in aws_kms_key.key : key.arn]
      },
      {
        Sid      = "Secrets"
        Effect   = "Allow"
        Action   = "secretsmanager:GetSecretValue"
        Resource = "${local.arn}:secretsmanager:${var.region}:${local.account}:secret:${var.name}/*"
      },
      {
        Sid       = "MasterSecret" # which RDS names; nobody but the provision task is started with it
        Effect    = "Allow"
        Action    = "secretsmanager:GetSecretValue"
        Resource  = "${local.arn}:secretsmanager:${var.region}:${local.account}:secret:rds!db-*"
        Condition = { ArnEquals = { "aws:PrincipalArn" = "${local.arn}:iam::${local.account}:role/${var.name}-provision-execution" } }
      },
      {
        Sid      = "Publish"
        Effect   = "Allow"
        Action   = "sns:Publish"
        Resource = aws_sns_topic.alerts.arn
      },
      {
        Sid      = "Tasks"
        Effect   = "Allow"
        Action   = ["ecs:RunTask", "ecs:DescribeTasks", "ecs:StopTask", "ecs:TagResource"]
        Resource = [local.cluster_task_arn, "${local.arn}:ecs:${var.region}:${local.account}:task-definition/${var.name}-*"]
      },
      {
        Sid      = "HandOverRoles"
        Effect   = "Allow"
        Action   = "iam:PassRole"
        Resource = local.run_roles
      },
      {
        Sid      = "Images"
        Effect   = "Allow"
        Action   = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
        Resource = aws_ecr_repository.image.arn
      },
      {
        Sid      = "Rates"
        Effect   = "Allow"
        Action   = "lambda:InvokeFunction"
        Resource = "${local.arn}:lambda:${var.region}:${local.account}:function:${local.rates_function}"
      },
      {
        Sid      = "LogStreams"
        Effect   = "Allow"
        Action   = ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents", "logs:GetLogEvents", "logs:DescribeLogStreams", "logs:PutRetentionPolicy"]
        Resource = ["${local.log_group_arn}:*", "${local.log_group_arn}/*", "${local.arn}:logs:${var.region}:${local.account}:log-group:RDSOSMetrics*"]
      },
      {
        Sid      = "WithoutResources"
        Effect   = "Allow"
        Action   = ["ecr:GetAuthorizationToken", "ecs:DescribeTaskDefinition", "logs:DescribeLogGroups"]
        Resource = "*" # any: these actions know no resources
      },
    ]
  })
}

# Roles of AWS's own services ------------------------------------------------------------------------------------------

resource "aws_iam_role" "flow" {
  name                 = "${var.name}-flow-logs"
  description          = "Writes the network's flow logs"
  permissions_boundary = aws_iam_policy.boundary.arn
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "FlowLogs"
      Effect    = "Allow"
      Principal = { Service = "vpc-flow-logs.amazonaws.com" }
      Action    = "sts:AssumeRole"
      Condition = { StringEquals = { "aws:SourceAccount" = local.account } }
    }]
  })
}

resource "aws_iam_role_policy" "flow" {
  name = "write"
  role = aws_iam_role.flow.name
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid      = "WriteFlowLogs"
      Effect   = "Allow"
      Action   = ["logs:CreateLogStream", "logs:PutLogEvents", "logs:DescribeLogStreams"]
      Resource = ["${local.log_group_arn}/flow", "${local.log_group_arn}/flow:*"]
    }]
  })
}

resource "aws_iam_role" "database_monitoring" {
  name                 = "${var.name}-database-monitoring"
  description          = "Writes the database's enhanced metrics"
  permissions_boundary = aws_iam_policy.boundary.arn
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "Monitoring"
      Effect    = "Allow"
      Principal = { Service = "monitoring.rds.amazonaws.com" }
      Action    = "sts:AssumeRole"
      Condition = { StringEquals = { "aws:SourceAccount" = local.account } }
    }]
  })
}

resource "aws_iam_role_policy_attachment" "database_monitoring" {
  role       = aws_iam_role.database_monitoring.name
  policy_arn = "${local.arn}:iam::aws:policy/service-role/AmazonRDSEnhancedMonitoringRole"
}
