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
    ])
  })
}
