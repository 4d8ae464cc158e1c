# What people need who run the platform: commands in tasks of the stack, by deploy/run.sh.
#
# A command does what the task of a large run may do, and is given its secrets: who may run one can read and write what
# the platform can. It needs no way into the network: no bastion, no session in a container, no login by IAM.

resource "aws_iam_policy" "operator" {
  name        = "${var.name}-operator"
  description = "Run commands of ${var.name} in tasks of their own"
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat(local.start_runs, local.stop_runs, local.describe_run, [
      {
        Sid      = "FindTheRelease" # the revision that the daemon starts large runs with
        Effect   = "Allow"
        Action   = "ecs:DescribeServices"
        Resource = "${local.arn}:ecs:${var.region}:${local.account}:service/${var.name}/daemon"
      },
      {
        Sid      = "StopCommands" # run.sh puts the tag on the tasks that it begins
        Effect   = "Allow"
        Action   = "ecs:StopTask"
        Resource = local.cluster_task_arn
        Condition = {
          ArnEquals = { "ecs:cluster" = local.cluster_arn }
          Null      = { "aws:ResourceTag/totesys/command" = "false" }
        }
      },
    ])
  })
}

# What a command may do that makes the lake what it was (docs/deploy.md): no task has this role by itself. Who may hand it
# over, and so may restore, is whoever applies this stack; the operators' policy does not let them.
resource "aws_iam_role" "restore" {
  name                 = "${var.name}-restore"
  description          = "Makes the lake of ${var.name} what it was, from the versions of its objects"
  permissions_boundary = aws_iam_policy.boundary.arn
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "Tasks"
      Effect    = "Allow"
      Principal = { Service = "ecs-tasks.amazonaws.com" }
      Action    = "sts:AssumeRole"
      Condition = {
        StringEquals = { "aws:SourceAccount" = local.account }
        ArnLike      = { "aws:SourceArn" = "${local.arn}:ecs:${var.region}:${local.account}:*" }
      }
    }]
  })
}

resource "aws_iam_role_policy" "restore" {
  name = "restore"
  role = aws_iam_role.restore.name
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat(local.read_lake, [
      {
        Sid       = "ListVersions"
        Effect    = "Allow"
        Action    = "s3:ListBucketVersions"
        Resource  = module.lake.arn
        Condition = { StringLike = { "s3:prefix" = ["${local.lake_root}/*"] } }
      },
      {
        Sid      = "HowLongTheyAreKept"
        Effect   = "Allow"
        Action   = ["s3:GetBucketVersioning", "s3:GetLifecycleConfiguration"]
        Resource = module.lake.arn
      },
      {
        Sid      = "PutBack"
        Effect   = "Allow"
        Action   = ["s3:GetObjectVersion", "s3:PutObject", "s3:AbortMultipartUpload", "s3:DeleteObject"] # no version is deleted
        Resource = "${module.lake.arn}/${local.lake_root}/*"
      },
    ])
  })
}
