# What GitHub's workflows may do here: without keys, by tokens that GitHub signs for one job each.
#
# build   on the main branch: push an image
# plan    on the main branch: read the state, and nothing of the account (terraform plan -refresh=false -lock=false)
# deploy  in the environment "production", which a person approves: apply
#
# A pull request gets none of them: what it runs was read by nobody yet.
#
# How far `deploy` reaches: a list of the services that this stack is made of, not of single actions. It must make and
# change all of them, so a list of actions would be hundreds long and no narrower where it matters. Four things narrow it:
# the region; what it is refused (the data, ToteSys's password, destroying what holds data); roles only with the boundary
# of iam.tf; and its own roles and the managed policies, the boundary among them, which it can only read: a change to
# these is applied by a person.

locals {
  ci_roles = var.github_repository == null ? {} : {
    build = {
      description = "Pushes images, on the main branch"
      subject     = "repo:${var.github_repository}:ref:refs/heads/main"
      statements  = local.build_statements
    }
    plan = {
      description = "Plans from the state, on the main branch"
      subject     = "repo:${var.github_repository}:ref:refs/heads/main"
      statements  = local.plan_statements
    }
    deploy = {
      description = "Applies, in the environment production"
      subject     = "repo:${var.github_repository}:environment:production"
      statements  = local.deploy_statements
    }
  }

  github_host     = "token.actions.githubusercontent.com"
  github_provider = var.github_oidc_provider_arn != null ? var.github_oidc_provider_arn : one(aws_iam_openid_connect_provider.github[*].arn)

  iam_arn      = "${local.arn}:iam::${local.account}"
  own_roles    = "${local.iam_arn}:role/${var.name}-*"
  ci_role_arns = "${local.iam_arn}:role/${var.name}-ci-*"
  state_arn    = "${local.arn}:s3:::${coalesce(var.state_bucket, "none")}"

  build_statements = jsonencode([
    {
      Sid      = "BuildRegistryLogin"
      Effect   = "Allow"
      Action   = "ecr:GetAuthorizationToken"
      Resource = "*" # any: the action knows no resources; what may be pushed is said below
    },
    {
      Sid    = "PushImages"
      Effect = "Allow"
      Action = [
        "ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer", "ecr:InitiateLayerUpload",
        "ecr:UploadLayerPart", "ecr:CompleteLayerUpload", "ecr:PutImage", "ecr:DescribeImages", "ecr:DescribeImageScanFindings",
      ]
      Resource = aws_ecr_repository.image.arn
    },
  ])

  plan_statements = jsonencode([
    {
      Sid      = "ReadState"
      Effect   = "Allow"
      Action   = ["s3:GetObject", "s3:ListBucket"]
      Resource = [local.state_arn, "${local.state_arn}/*"]
    },
    {
      Sid      = "KeepPlans"
      Effect   = "Allow"
      Action   = "s3:PutObject"
      Resource = "${local.state_arn}/plans/*"
    },
    {
      Sid      = "MakeRandomWords"
      Effect   = "Allow"
      Action   = "secretsmanager:GetRandomPassword"
      Resource = "*" # any: the action knows no resources; a plan makes passwords that it throws away
    },
  ])

  deploy_statements = jsonencode([
    {
      Sid    = "MakeTheStack"
      Effect = "Allow"
      Action = [
        "athena:*", "budgets:*", "cloudwatch:*", "cognito-idp:*", "ec2:*", "ecr:*", "ecs:*", "elasticloadbalancing:*", # any: see the head of this file
        "glue:*", "kms:*", "lambda:*", "logs:*", "rds:*", "route53:*", "s3:*", "scheduler:*", "secretsmanager:*",      # any: the same
        "servicediscovery:*", "sns:*",                                                                                 # any: the same
      ]
      Resource  = "*"                                                                      # any: what is still to be made has no name to be listed by
      Condition = { StringEquals = { "aws:RequestedRegion" = [var.region, "us-east-1"] } } # budgets and Route 53 are there
    },
    {
      Sid      = "LeaveTheData"
      Effect   = "Deny"
      Action   = ["s3:GetObject*", "s3:PutObject*", "s3:DeleteObject*", "s3:BypassGovernanceRetention"] # any: a refusal
      Resource = flatten([for bucket in [module.lake, module.work] : "${bucket.arn}/*"])
    },
    {
      Sid      = "LeaveTheSource"
      Effect   = "Deny"
      Action   = ["secretsmanager:GetSecretValue", "secretsmanager:PutSecretValue", "secretsmanager:UpdateSecret"]
      Resource = aws_secretsmanager_secret.totesys.arn
    },
    {
      Sid    = "DestroyNothing"
      Effect = "Deny"
      Action = [
        "rds:DeleteDBInstance", "rds:DeleteDBSnapshot", "rds:DeleteDBInstanceAutomatedBackup", "s3:DeleteBucket",
        "kms:ScheduleKeyDeletion", "kms:DisableKey", "secretsmanager:DeleteSecret", "cognito-idp:DeleteUserPool",
        "s3:PutBucketObjectLockConfiguration", "logs:DeleteLogGroup",
      ]
      Resource = "*" # any: a refusal
    },
    {
      Sid       = "MakeRolesWithinTheBoundary"
      Effect    = "Allow"
      Action    = ["iam:CreateRole", "iam:PutRolePolicy", "iam:DeleteRolePolicy", "iam:AttachRolePolicy", "iam:DetachRolePolicy", "iam:PutRolePermissionsBoundary"]
      Resource  = local.own_roles
      Condition = { StringEquals = { "iam:PermissionsBoundary" = aws_iam_policy.boundary.arn } }
    },
    {
      Sid      = "KeepRoles"
      Effect   = "Allow"
      Action   = ["iam:UpdateRole", "iam:UpdateRoleDescription", "iam:UpdateAssumeRolePolicy", "iam:TagRole", "iam:UntagRole", "iam:DeleteRole"]
      Resource = local.own_roles
    },
    {
      Sid       = "HandRolesToServices"
      Effect    = "Allow"
      Action    = "iam:PassRole"
      Resource  = local.own_roles
      Condition = { StringEquals = { "iam:PassedToService" = ["ecs-tasks.amazonaws.com", "lambda.amazonaws.com", "monitoring.rds.amazonaws.com", "scheduler.amazonaws.com", "vpc-flow-logs.amazonaws.com"] } }
    },
    {
      Sid    = "ReadIam"
      Effect = "Allow"
      Action = [
        "iam:GetRole", "iam:GetRolePolicy", "iam:ListRolePolicies", "iam:ListAttachedRolePolicies", "iam:ListInstanceProfilesForRole",
        "iam:GetPolicy", "iam:GetPolicyVersion", "iam:ListPolicyVersions", "iam:GetOpenIDConnectProvider",
      ]
      Resource = [local.own_roles, "${local.iam_arn}:policy/${var.name}-*", coalesce(local.github_provider, "${local.iam_arn}:oidc-provider/none")]
    },
    {
      Sid      = "LeaveOwnRoles"
      Effect   = "Deny"
      Action   = ["iam:Create*", "iam:Put*", "iam:Delete*", "iam:Attach*", "iam:Detach*", "iam:Update*", "iam:Tag*", "iam:Untag*", "iam:PassRole", "iam:Set*"] # any: a refusal
      Resource = [local.ci_role_arns, "${local.iam_arn}:policy/${var.name}-*"]
    },
    {
      Sid       = "ServiceLinkedRoles"
      Effect    = "Allow"
      Action    = "iam:CreateServiceLinkedRole"
      Resource  = "${local.iam_arn}:role/aws-service-role/*"
      Condition = { StringEquals = { "iam:AWSServiceName" = ["ecs.amazonaws.com", "elasticloadbalancing.amazonaws.com", "rds.amazonaws.com"] } }
    },
  ])
}

resource "aws_iam_openid_connect_provider" "github" {
  count = var.github_repository != null && var.github_oidc_provider_arn == null ? 1 : 0

  url            = "https://${local.github_host}"
  client_id_list = ["sts.amazonaws.com"]
}

resource "aws_iam_role" "ci" {
  for_each = local.ci_roles

  name                 = "${var.name}-ci-${each.key}"
  description          = each.value.description
  max_session_duration = 3600
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "Workflows"
      Effect    = "Allow"
      Principal = { Federated = local.github_provider }
      Action    = "sts:AssumeRoleWithWebIdentity"
      Condition = { StringEquals = { "${local.github_host}:aud" = "sts.amazonaws.com", "${local.github_host}:sub" = each.value.subject } }
    }]
  })
}

resource "aws_iam_role_policy" "ci" {
  # checkov:skip=CKV_AWS_286:no escalation: roles only within the boundary, and its own roles not at all; see the head of this file
  # checkov:skip=CKV_AWS_287:what it may read of secrets are the passwords of the database roles, which a plan with refresh reads
  # checkov:skip=CKV_AWS_288:the data are refused to it by LeaveTheData
  # checkov:skip=CKV_AWS_289:roles only within the boundary; see the head of this file
  # checkov:skip=CKV_AWS_290:narrowed by region, refusals and boundary; see the head of this file
  # checkov:skip=CKV_AWS_355:what is still to be made has no name to be listed by; see the head of this file
  for_each = local.ci_roles

  name   = each.key
  role   = aws_iam_role.ci[each.key].name
  policy = jsonencode({ Version = "2012-10-17", Statement = jsondecode(each.value.statements) })
}
