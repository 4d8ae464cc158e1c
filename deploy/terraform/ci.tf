# What GitHub's workflows may do here: without keys, by tokens that GitHub signs for one job each.
#
# build   on the main branch: push an image
# plan    on the main branch: read the state, and of the account the digest of an image (terraform plan -refresh=false -lock=false)
# deploy  in the environment "production", which a person approves: apply
#
# Only deploy.yml as it is on main gets them: no pull request, no other branch, no other workflow.
#
# A repository that was made after 15 July 2026 is named in tokens with the ids of its owner and its own, so that nobody
# takes its place who takes its name. What says which workflow it is has names alone.
#
# How far `deploy` reaches: ci_deploy.tf. A person applies changes to these roles, for they cannot change themselves.

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

  github_names    = var.github_repository == null ? "" : replace(var.github_repository, "/@[0-9]+/", "")
  github_host     = "token.actions.githubusercontent.com"
  github_provider = var.github_oidc_provider_arn != null ? var.github_oidc_provider_arn : one(aws_iam_openid_connect_provider.github[*].arn)

  iam_arn      = "${local.arn}:iam::${local.account}"
  own_roles    = "${local.iam_arn}:role/${var.name}-*"
  ci_role_arns = "${local.iam_arn}:role/${var.name}-ci-*"

  state_arn     = "${local.arn}:s3:::${coalesce(var.state_bucket, "none")}"
  state_key_arn = "${local.state_arn}/${var.state_key}"

  # Names in the bucket, of its own state and plans alone. Terraform asks for other workspaces at every init.
  find_state = {
    Sid       = "FindState"
    Effect    = "Allow"
    Action    = "s3:ListBucket"
    Resource  = local.state_arn
    Condition = { StringLike = { "s3:prefix" = ["env:/", "${var.state_key}*", "plans/*"] } }
  }

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
        "ecr:UploadLayerPart", "ecr:CompleteLayerUpload", "ecr:PutImage", "ecr:DescribeImages", "ecr:ListImageReferrers",
      ]
      Resource = aws_ecr_repository.image.arn
    },
  ])

  plan_statements = jsonencode([
    {
      Sid      = "ReadState"
      Effect   = "Allow"
      Action   = "s3:GetObject"
      Resource = local.state_key_arn
    },
    local.find_state,
    {
      Sid      = "KeepPlans"
      Effect   = "Allow"
      Action   = "s3:PutObject"
      Resource = "${local.state_arn}/plans/*"
    },
    {
      Sid      = "FindImages"
      Effect   = "Allow"
      Action   = "ecr:DescribeImages"
      Resource = aws_ecr_repository.image.arn
    },
    {
      Sid      = "AskWithoutNames"
      Effect   = "Allow"
      Action   = ["secretsmanager:GetRandomPassword", "servicequotas:GetServiceQuota"]
      Resource = "*" # any: the actions know no resources; a plan makes passwords that it throws away, and holds quotas against sizes
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
      Condition = { StringEquals = {
        "${local.github_host}:aud"              = "sts.amazonaws.com"
        "${local.github_host}:sub"              = each.value.subject
        "${local.github_host}:ref"              = "refs/heads/main" # a subject with an environment names no branch
        "${local.github_host}:job_workflow_ref" = "${local.github_names}/.github/workflows/deploy.yml@refs/heads/main"
      } }
    }]
  })
}

resource "aws_iam_role_policy" "ci" {
  # checkov:skip=CKV_AWS_287:what it may read of secrets are the passwords of the database roles, which a plan with refresh reads
  # checkov:skip=CKV_AWS_289:policies of roles only within the boundary; keys only for AWS's own services
  # checkov:skip=CKV_AWS_290:by name, tag or condition: ci_deploy.tf
  # checkov:skip=CKV_AWS_355:what knows no resources, in this region: ci_deploy.tf
  for_each = local.ci_roles

  name   = each.key
  role   = aws_iam_role.ci[each.key].name
  policy = jsonencode({ Version = "2012-10-17", Statement = jsondecode(each.value.statements) })
}

# Policies of their own, for a role's inline ones take 10,240 characters and no more.
resource "aws_iam_policy" "deploy" {
  # checkov:skip=CKV_AWS_287:what it may read of secrets are the passwords of the database roles, which a plan with refresh reads
  # checkov:skip=CKV_AWS_289:by name: ci_deploy.tf
  # checkov:skip=CKV_AWS_290:by name, tag or condition: ci_deploy.tf, ci_network.tf
  # checkov:skip=CKV_AWS_355:what knows no resources, in this region: ci_deploy.tf
  for_each = var.github_repository == null ? {} : { make = local.make_statements, network = local.network_statements }

  name        = "${var.name}-ci-${each.key}"
  description = "What the workflow that deploys ${var.name} may make and change: ${each.key}"
  policy      = jsonencode({ Version = "2012-10-17", Statement = jsondecode(each.value) })
}

resource "aws_iam_role_policy_attachment" "deploy" {
  for_each = aws_iam_policy.deploy

  role       = aws_iam_role.ci["deploy"].name
  policy_arn = each.value.arn
}
