# How far the role reaches that applies an approved plan: to what this stack is made of, by its name or its tag `Stack`, and
# there to what is changed from one release to the next.
#
# What opens doors it only reads; a person changes it, with rights of their own: roles and who may take them, policies, keys,
# buckets, user pools, the name that services find each other by. A role that could edit one trust policy, one key policy or
# one bucket policy could give itself, or another account, all that is refused here.
#
# Two doors it does change, because releases do: the load balancer's rules, with the login in them, and who may reach whom in
# the network. Whoever approves a plan looks for them there.
#
# What cannot be refused: who may deploy code may read what the code reads. It registers task definitions and hands them the
# stack's roles; what image is in one, IAM cannot ask.
#
# Names reach as far as they begin alike: `totesys` also matches what a stack `totesys-two` makes. One account, one stack.

locals {
  state_lock_arn = "${local.state_key_arn}.tflock"

  # What may be made and changed, each by its name. An action reaches only resources of its own service.
  named_actions = [
    "athena:CreateWorkGroup", "athena:GetWorkGroup", "athena:UpdateWorkGroup", "athena:ListTagsForResource", "athena:TagResource",
    "budgets:ModifyBudget", "budgets:ViewBudget", "budgets:ListTagsForResource", "budgets:TagResource",
    "cloudwatch:DeleteAlarms", "cloudwatch:DeleteDashboards", "cloudwatch:GetDashboard", "cloudwatch:ListTagsForResource",
    "cloudwatch:PutCompositeAlarm", "cloudwatch:PutDashboard", "cloudwatch:PutMetricAlarm", "cloudwatch:TagResource",
    "ecr:BatchGetImage", "ecr:CreateRepository", "ecr:DescribeImages", "ecr:DescribeRepositories", "ecr:GetDownloadUrlForLayer",
    "ecr:GetLifecyclePolicy", "ecr:ListImageReferrers", "ecr:ListTagsForResource", "ecr:PutImageScanningConfiguration", "ecr:PutLifecyclePolicy", "ecr:TagResource",
    "ecs:CreateCluster", "ecs:CreateService", "ecs:DeleteService", "ecs:DescribeClusters", "ecs:DescribeServices", "ecs:DescribeTasks",
    "ecs:ListTagsForResource", "ecs:PutClusterCapacityProviders", "ecs:TagResource", "ecs:UpdateCluster", "ecs:UpdateService",
    "elasticloadbalancing:*", # any: what a release makes of one, its rules change whole; which of them is said by name
    "events:DeleteRule", "events:DescribeRule", "events:ListTagsForResource", "events:ListTargetsByRule", "events:PutRule",
    "events:PutTargets", "events:RemoveTargets", "events:TagResource",
    "glue:CreateDatabase", "glue:CreateTable", "glue:DeleteTable", "glue:GetDatabase", "glue:GetPartitionIndexes", "glue:GetTable",
    "glue:GetTags", "glue:TagResource", "glue:UpdateDatabase", "glue:UpdateTable",
    "lambda:CreateFunction", "lambda:DeleteFunction", "lambda:GetFunction", "lambda:GetFunctionCodeSigningConfig",
    "lambda:GetFunctionConfiguration", "lambda:GetFunctionEventInvokeConfig", "lambda:ListTags", "lambda:ListVersionsByFunction",
    "lambda:PutFunctionEventInvokeConfig", "lambda:TagResource", "lambda:UpdateFunctionCode", "lambda:UpdateFunctionConfiguration",
    "logs:AssociateKmsKey", "logs:CreateLogGroup", "logs:DeleteMetricFilter", "logs:DescribeMetricFilters",
    "logs:ListTagsForResource", "logs:PutMetricFilter", "logs:PutRetentionPolicy", "logs:TagResource",
    "rds:AddTagsToResource", "rds:CreateDBInstance", "rds:CreateDBParameterGroup", "rds:CreateDBSubnetGroup",
    "rds:DeleteDBParameterGroup", "rds:ListTagsForResource", "rds:ModifyDBInstance", "rds:ModifyDBParameterGroup", "rds:ModifyDBSubnetGroup",
    "scheduler:CreateSchedule", "scheduler:DeleteSchedule", "scheduler:GetSchedule", "scheduler:UpdateSchedule",
    "secretsmanager:CreateSecret", "secretsmanager:DescribeSecret", "secretsmanager:GetResourcePolicy",
    "secretsmanager:GetSecretValue", "secretsmanager:PutSecretValue", "secretsmanager:TagResource", "secretsmanager:UpdateSecret",
    "sns:CreateTopic", "sns:GetTopicAttributes", "sns:ListTagsForResource", "sns:SetTopicAttributes", "sns:Subscribe", "sns:TagResource",
  ]

  # Service -> the stack's resources there, in this region and account.
  names_of = {
    athena               = ["workgroup/${var.name}"]
    cloudwatch           = ["alarm:${var.name}-*"]
    ecr                  = ["repository/${var.name}"]
    ecs                  = ["cluster/${var.name}", "service/${var.name}/*", "task/${var.name}/*", "task-definition/${var.name}-*"]
    elasticloadbalancing = concat(["targetgroup/${var.name}-*"], [for kind in ["loadbalancer", "listener", "listener-rule"] : "${kind}/app/${var.name}/*"])
    events               = ["rule/${var.name}-*"]
    glue                 = ["catalog", "database/${local.glue_name}", "table/${local.glue_name}/*"]
    lambda               = ["function:${var.name}-*"]
    logs                 = [for group in [local.log_group, "${local.log_group}/*", "/aws/rds/instance/${var.name}/*", "/aws/ecs/containerinsights/${var.name}/*"] : "log-group:${group}:*"]
    rds                  = ["db:${var.name}", "subgrp:${var.name}", "pg:${var.name}-*", "og:default:*"]
    scheduler            = ["schedule/default/${var.name}-*"]
    secretsmanager       = ["secret:${var.name}/*"]
    sns                  = ["${var.name}-*"]
  }

  named_resources = concat(
    flatten([for service, names in local.names_of : [for name in names : "${local.arn}:${service}:${var.region}:${local.account}:${name}"]]),
    # These two are the whole account's, in no region.
    ["${local.arn}:budgets::${local.account}:budget/${var.name}", "${local.arn}:cloudwatch::${local.account}:dashboard/${var.name}"],
  )

  data_buckets = flatten([for bucket in [module.lake, module.work] : [bucket.arn, "${bucket.arn}/*"]])

  make_statements = jsonencode([
    {
      Sid      = "MakeByName"
      Effect   = "Allow"
      Action   = local.named_actions # any: one service whole, whose reason stands there
      Resource = local.named_resources
    },
    {
      Sid       = "ProvisionOnly"
      Effect    = "Allow"
      Action    = "ecs:RunTask"
      Resource  = "${local.arn}:ecs:${var.region}:${local.account}:task-definition/${var.name}-provision:*"
      Condition = { ArnEquals = { "ecs:cluster" = local.cluster_arn } }
    },
    {
      Sid       = "FindTasks"
      Effect    = "Allow"
      Action    = "ecs:ListTasks"
      Resource  = "*" # any: its resources are machines, of which Fargate has none; the condition names the cluster
      Condition = { ArnEquals = { "ecs:cluster" = local.cluster_arn } }
    },
    {
      Sid    = "WithoutNames"
      Effect = "Allow"
      Action = [
        "ecr:GetAuthorizationToken", "ecs:DescribeTaskDefinition", "ecs:RegisterTaskDefinition", "kms:ListAliases", "logs:DescribeLogGroups",
        "cloudwatch:DescribeAlarms", "cognito-idp:DescribeUserPoolDomain", "secretsmanager:GetRandomPassword", "sns:GetSubscriptionAttributes",
        "servicediscovery:ListTagsForResource", "servicequotas:GetServiceQuota", "sns:Unsubscribe", "ec2:Describe*", "elasticloadbalancing:Describe*", "rds:Describe*", # any: they only look
      ]
      Resource  = "*" # any: these actions know no resources, or are asked without one
      Condition = { StringEquals = { "aws:RequestedRegion" = var.region } }
    },
  ])

  deploy_statements = jsonencode([
    # Keys: what AWS's services do with them for us ------------------------------------------------------------------
    {
      Sid       = "LendKeysToServices"
      Effect    = "Allow"
      Action    = "kms:CreateGrant"
      Resource  = [for key in aws_kms_key.key : key.arn]
      Condition = { Bool = { "kms:GrantIsForAWSResource" = "true" } }
    },
    {
      Sid       = "CloseSecrets"
      Effect    = "Allow"
      Action    = ["kms:Decrypt", "kms:GenerateDataKey"]
      Resource  = [for key in aws_kms_key.key : key.arn]
      Condition = { StringEquals = { "kms:ViaService" = [for service in ["secretsmanager", "rds"] : "${service}.${var.region}.amazonaws.com"] } }
    },
    {
      Sid      = "MasterPassword" # which RDS keeps for us, under a name of its own
      Effect   = "Allow"
      Action   = ["secretsmanager:CreateSecret", "secretsmanager:RotateSecret", "secretsmanager:TagResource"]
      Resource = "${local.arn}:secretsmanager:${var.region}:${local.account}:secret:rds!db-*"
    },
    # Roles: what they may do, within the boundary; neither who may take them, nor new ones ----------------------------
    {
      Sid       = "ChangeRolesWithinTheBoundary"
      Effect    = "Allow"
      Action    = ["iam:PutRolePolicy", "iam:DeleteRolePolicy"]
      Resource  = local.own_roles
      Condition = { StringEquals = { "iam:PermissionsBoundary" = aws_iam_policy.boundary.arn } }
    },
    {
      Sid       = "HandRolesToServices"
      Effect    = "Allow"
      Action    = "iam:PassRole"
      Resource  = local.own_roles
      Condition = { StringEquals = { "iam:PassedToService" = ["ecs-tasks.amazonaws.com", "lambda.amazonaws.com", "monitoring.rds.amazonaws.com", "scheduler.amazonaws.com", "vpc-flow-logs.amazonaws.com"] } }
    },
    # What a person changes ------------------------------------------------------------------------------------------
    {
      Sid    = "ReadWhatPeopleMake"
      Effect = "Allow"
      Action = [
        "cognito-idp:DescribeUserPool", "cognito-idp:DescribeUserPoolClient", "cognito-idp:GetUserPoolMfaConfig", "cognito-idp:ListTagsForResource",
        "iam:GetRole", "iam:GetRolePolicy", "iam:ListRolePolicies", "iam:ListAttachedRolePolicies", "iam:ListInstanceProfilesForRole",
        "iam:GetPolicy", "iam:GetPolicyVersion", "iam:ListPolicyVersions", "iam:GetOpenIDConnectProvider",
        "kms:DescribeKey", "kms:GetKeyPolicy", "kms:GetKeyRotationStatus", "kms:ListResourceTags",
        "s3:GetAccelerateConfiguration", "s3:GetBucket*", "s3:GetEncryptionConfiguration", "s3:GetLifecycleConfiguration", # any: they only look
        "s3:GetReplicationConfiguration", "s3:ListBucket",
        "servicediscovery:GetNamespace", "servicediscovery:GetService",
      ]
      Resource = concat(
        [for pool in aws_cognito_user_pool.pool : pool.arn],
        [local.own_roles, "${local.iam_arn}:policy/${var.name}-*", coalesce(local.github_provider, "${local.iam_arn}:oidc-provider/none")],
        [for key in aws_kms_key.key : key.arn],
        [for bucket in [module.lake, module.work, module.logs] : bucket.arn],
        [aws_service_discovery_private_dns_namespace.main.arn, aws_service_discovery_service.code.arn],
      )
    },
    # Whatever else this role may be given one day -------------------------------------------------------------------
    {
      Sid      = "LeaveTheData"
      Effect   = "Deny"
      Action   = ["s3:GetObject*", "s3:Put*", "s3:Delete*", "s3:Create*", "s3:Bypass*", "s3:Replicate*", "s3:Restore*"] # any: a refusal
      Resource = local.data_buckets
    },
    {
      Sid      = "LeaveTheSource"
      Effect   = "Deny"
      Action   = ["secretsmanager:Get*Value", "secretsmanager:Put*", "secretsmanager:Update*", "secretsmanager:Replicate*", "secretsmanager:Delete*"] # any: a refusal
      Resource = aws_secretsmanager_secret.totesys.arn
    },
    {
      Sid      = "LeaveTheKeys"
      Effect   = "Deny"
      Action   = ["kms:Put*", "kms:Schedule*", "kms:Disable*", "kms:Delete*"] # any: a refusal
      Resource = "*"                                                          # any: a refusal
    },
    {
      Sid    = "LeaveTheDoors"
      Effect = "Deny"
      Action = [
        "iam:Create*", "iam:Delete*Role", "iam:Delete*Policy*Version", "iam:Attach*", "iam:Detach*", "iam:Update*", "iam:Set*", # any: a refusal
        "sts:AssumeRole*", "rds:Delete*Instance*", "rds:Delete*Snapshot", "logs:DeleteLogGroup", "cognito-idp:Admin*",          # any: a refusal
      ]
      Resource = "*" # any: a refusal
    },
    {
      Sid      = "LeaveOwnRoles"
      Effect   = "Deny"
      Action   = ["iam:Put*", "iam:Delete*", "iam:Tag*", "iam:Untag*", "iam:PassRole"] # any: a refusal
      Resource = [local.ci_role_arns, "${local.iam_arn}:policy/${var.name}-*"]
    },
    # The state and the plan -----------------------------------------------------------------------------------------
    {
      Sid      = "WriteState"
      Effect   = "Allow"
      Action   = ["s3:GetObject", "s3:PutObject"]
      Resource = [local.state_key_arn, local.state_lock_arn, "${local.state_arn}/plans/*"]
    },
    {
      Sid      = "EndLockAndPlan"
      Effect   = "Allow"
      Action   = "s3:DeleteObject"
      Resource = [local.state_lock_arn, "${local.state_arn}/plans/*"]
    },
    local.find_state,
  ])
}
