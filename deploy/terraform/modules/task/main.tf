# A Fargate task of one container, with its two roles: one that starts it (image, log, its secrets), one that it acts as.

terraform {
  required_providers {
    aws = {
      source = "hashicorp/aws"
    }
  }
}

locals {
  name = "${var.stack.name}-${var.kind}"

  # The root file system is read-only. What these paths hold is gone with the task; who owns them is said by VOLUME in the
  # Dockerfile, from which Fargate takes it.
  writable = { home = "/var/lib/totesys", tmp = "/tmp" }

  assume_role = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "Tasks"
      Effect    = "Allow"
      Principal = { Service = "ecs-tasks.amazonaws.com" }
      Action    = "sts:AssumeRole"
      Condition = {
        StringEquals = { "aws:SourceAccount" = var.stack.account }
        ArnLike      = { "aws:SourceArn" = "${var.stack.arn}:ecs:${var.stack.region}:${var.stack.account}:*" }
      }
    }]
  })
}

resource "aws_iam_role" "execution" {
  name                 = "${local.name}-execution"
  description          = "Starts ${local.name}: pulls the image, opens the log, reads the secrets it is given"
  assume_role_policy   = local.assume_role
  permissions_boundary = var.stack.boundary_arn
}

resource "aws_iam_role_policy" "execution" {
  name = "start"
  role = aws_iam_role.execution.name
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid      = "RegistryLogin"
        Effect   = "Allow"
        Action   = "ecr:GetAuthorizationToken"
        Resource = "*" # any: the action knows no resources; what may be pulled is said below
      },
      {
        Sid      = "Image"
        Effect   = "Allow"
        Action   = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
        Resource = var.stack.repository_arn
      },
      {
        Sid      = "Log"
        Effect   = "Allow"
        Action   = ["logs:CreateLogStream", "logs:PutLogEvents"]
        Resource = "${var.stack.log_group_arn}:log-stream:${var.kind}/*"
      },
      {
        Sid      = "Secrets"
        Effect   = "Allow"
        Action   = "secretsmanager:GetSecretValue"
        Resource = distinct([for arn in values(var.secrets) : join(":", slice(split(":", arn), 0, 7))]) # without the key in it
      },
      {
        Sid       = "SecretsKey"
        Effect    = "Allow"
        Action    = "kms:Decrypt"
        Resource  = var.stack.secrets_key_arn
        Condition = { StringEquals = { "kms:ViaService" = "secretsmanager.${var.stack.region}.amazonaws.com" } }
      },
    ]
  })
}

resource "aws_iam_role" "task" {
  name                 = "${local.name}-task"
  description          = "What ${local.name} may do in AWS"
  assume_role_policy   = local.assume_role
  permissions_boundary = var.stack.boundary_arn
}

resource "aws_iam_role_policy" "task" {
  count = var.has_permissions ? 1 : 0

  name   = "act"
  role   = aws_iam_role.task.name
  policy = jsonencode({ Version = "2012-10-17", Statement = jsondecode(var.statements) })
}

resource "aws_ecs_task_definition" "task" {
  family                   = local.name
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = var.size.cpu
  memory                   = var.size.memory
  execution_role_arn       = aws_iam_role.execution.arn
  task_role_arn            = aws_iam_role.task.arn
  skip_destroy             = var.keep_revisions

  runtime_platform {
    operating_system_family = "LINUX"
    cpu_architecture        = var.stack.architecture
  }

  dynamic "ephemeral_storage" {
    for_each = var.storage_gib == null ? [] : [var.storage_gib]

    content {
      size_in_gib = ephemeral_storage.value
    }
  }

  dynamic "volume" {
    for_each = local.writable

    content {
      name = volume.key
    }
  }

  container_definitions = jsonencode([merge(
    {
      name                   = var.kind
      image                  = var.image
      essential              = true
      command                = var.command
      user                   = "10001:10001"
      readonlyRootFilesystem = true
      privileged             = false
      environment            = [for name, value in var.environment : { name = name, value = value }]
      secrets                = [for name, arn in var.secrets : { name = name, valueFrom = arn }]
      portMappings           = var.port == null ? [] : [{ containerPort = var.port, hostPort = var.port, protocol = "tcp" }]
      mountPoints            = [for name, path in local.writable : { sourceVolume = name, containerPath = path, readOnly = false }]
      volumesFrom            = []
      systemControls         = []
      stopTimeout            = 120 # the most that Fargate allows: a refresh under way ends in less
      linuxParameters = {
        initProcessEnabled = true # takes away the processes of forked runs
        capabilities       = { add = [], drop = ["ALL"] }
      }
      logConfiguration = {
        logDriver = "awslogs"
        options = {
          awslogs-group         = var.stack.log_group
          awslogs-region        = var.stack.region
          awslogs-stream-prefix = var.kind
          mode                  = "non-blocking" # CloudWatch out of reach must not hold up a refresh
          max-buffer-size       = "25m"
        }
      }
    },
    var.health_check == null ? {} : {
      healthCheck = { command = concat(["CMD"], var.health_check), interval = 60, timeout = 30, retries = 3, startPeriod = 180 }
    },
  )])
}
