# The network: two zones, private subnets for all but the load balancer, endpoints instead of the Internet, and the way
# to ToteSys.

locals {
  zones = [for letter in var.zones : "${var.region}${letter}"]
  # Quarters of the VPC: the first is cut in two for public subnets, the second and third are the private ones.
  public_cidrs  = [for index in range(2) : cidrsubnet(var.vpc_cidr, 3, index)]
  private_cidrs = [for index in range(2) : cidrsubnet(var.vpc_cidr, 2, index + 1)]
}

resource "aws_vpc" "main" {
  cidr_block           = var.vpc_cidr
  enable_dns_support   = true
  enable_dns_hostnames = true # private names of the endpoints

  tags = { Name = var.name }
}

# What forgets to name a security group gets this one, through which nothing goes.
resource "aws_default_security_group" "closed" {
  vpc_id = aws_vpc.main.id

  tags = { Name = "${var.name}-closed" }
}

resource "aws_internet_gateway" "main" {
  vpc_id = aws_vpc.main.id

  tags = { Name = var.name }
}

resource "aws_subnet" "public" {
  count = 2

  vpc_id                  = aws_vpc.main.id
  availability_zone       = local.zones[count.index]
  cidr_block              = local.public_cidrs[count.index]
  map_public_ip_on_launch = false

  tags = { Name = "${var.name}-public-${local.zones[count.index]}" }
}

resource "aws_subnet" "private" {
  count = 2

  vpc_id                  = aws_vpc.main.id
  availability_zone       = local.zones[count.index]
  cidr_block              = local.private_cidrs[count.index]
  map_public_ip_on_launch = false

  tags = { Name = "${var.name}-private-${local.zones[count.index]}" }
}

resource "aws_route_table" "public" {
  vpc_id = aws_vpc.main.id

  tags = { Name = "${var.name}-public" }
}

resource "aws_route" "internet" {
  route_table_id         = aws_route_table.public.id
  destination_cidr_block = "0.0.0.0/0"
  gateway_id             = aws_internet_gateway.main.id
}

resource "aws_route_table_association" "public" {
  count = 2

  subnet_id      = aws_subnet.public[count.index].id
  route_table_id = aws_route_table.public.id
}

# No default route: a task reaches what has an endpoint, the database, and ToteSys.
resource "aws_route_table" "private" {
  vpc_id = aws_vpc.main.id

  tags = { Name = "${var.name}-private" }
}

resource "aws_route_table_association" "private" {
  count = 2

  subnet_id      = aws_subnet.private[count.index].id
  route_table_id = aws_route_table.private.id
}

# The way to ToteSys ---------------------------------------------------------------------------------------------------

locals {
  by_nat             = var.totesys_route.by == "nat"
  by_transit_gateway = var.totesys_route.by == "transit_gateway"
  by_peering         = var.totesys_route.by == "peering"
}

# One gateway, in one zone: while that zone is down nothing is captured, and afterwards nothing is missing.
resource "aws_eip" "nat" {
  count = local.by_nat ? 1 : 0

  domain = "vpc"

  tags = { Name = "${var.name}-nat" }
}

resource "aws_nat_gateway" "nat" {
  count = local.by_nat ? 1 : 0

  allocation_id = aws_eip.nat[0].id
  subnet_id     = aws_subnet.public[0].id

  tags       = { Name = var.name }
  depends_on = [aws_internet_gateway.main]
}

resource "aws_ec2_transit_gateway_vpc_attachment" "totesys" {
  count = local.by_transit_gateway ? 1 : 0

  transit_gateway_id = var.totesys_route.id
  vpc_id             = aws_vpc.main.id
  subnet_ids         = aws_subnet.private[*].id

  tags = { Name = var.name }
}

resource "aws_route" "totesys" {
  for_each = var.totesys_route.by == "none" ? [] : toset(var.totesys_cidrs)

  route_table_id            = aws_route_table.private.id
  destination_cidr_block    = each.value
  nat_gateway_id            = local.by_nat ? aws_nat_gateway.nat[0].id : null
  transit_gateway_id        = local.by_transit_gateway ? aws_ec2_transit_gateway_vpc_attachment.totesys[0].transit_gateway_id : null
  vpc_peering_connection_id = local.by_peering ? var.totesys_route.id : null
}

# Who may speak to whom ------------------------------------------------------------------------------------------------

locals {
  of_the_ui = { balancer = "Load balancer", ui = "Webserver and viewer", insights = "Dashboard and API" }
  security_groups = merge({ for name, what in local.of_the_ui : name => what if local.has_ui }, {
    engine    = "Code server, daemon and backfills"
    provision = "Provision task"
    database  = "RDS"
    endpoints = "VPC endpoints"
  })

  # Each is a rule at both ends: out of the first, into the second.
  possible_conversations = merge({
    balancer-ui        = { from = "balancer", to = "ui", port = 3000 }
    ui-engine          = { from = "ui", to = "engine", port = 4000 }
    engine-engine      = { from = "engine", to = "engine", port = 4000 }
    insights-database  = { from = "insights", to = "database", port = 5432 }
    ui-database        = { from = "ui", to = "database", port = 5432 }
    engine-database    = { from = "engine", to = "database", port = 5432 }
    provision-database = { from = "provision", to = "database", port = 5432 }
    insights-endpoints = { from = "insights", to = "endpoints", port = 443 }
    ui-endpoints       = { from = "ui", to = "endpoints", port = 443 }
    engine-endpoints   = { from = "engine", to = "endpoints", port = 443 }
    provision-endpoint = { from = "provision", to = "endpoints", port = 443 }
  }, { for name, service in local.insights : "balancer-${name}" => { from = "balancer", to = "insights", port = service.port } })
  conversations = { for name, each in local.possible_conversations : name => each if contains(keys(local.security_groups), each.from) }

  tasks_groups = concat(local.has_ui ? ["ui", "insights"] : [], ["engine", "provision"])
}

resource "aws_security_group" "group" {
  # checkov:skip=CKV2_AWS_5:attached by name to tasks, database, load balancer and endpoints; checkov does not follow for_each
  for_each = local.security_groups

  name        = "${var.name}-${each.key}"
  description = each.value
  vpc_id      = aws_vpc.main.id

  tags = { Name = "${var.name}-${each.key}" }
}

resource "aws_vpc_security_group_egress_rule" "conversation" {
  for_each = local.conversations

  security_group_id            = aws_security_group.group[each.value.from].id
  referenced_security_group_id = aws_security_group.group[each.value.to].id
  ip_protocol                  = "tcp"
  from_port                    = each.value.port
  to_port                      = each.value.port
  description                  = "${each.value.from} to ${each.value.to}"
}

resource "aws_vpc_security_group_ingress_rule" "conversation" {
  for_each = local.conversations

  security_group_id            = aws_security_group.group[each.value.to].id
  referenced_security_group_id = aws_security_group.group[each.value.from].id
  ip_protocol                  = "tcp"
  from_port                    = each.value.port
  to_port                      = each.value.port
  description                  = "${each.value.from} to ${each.value.to}"
}

resource "aws_vpc_security_group_egress_rule" "s3" {
  for_each = toset(local.tasks_groups)

  security_group_id = aws_security_group.group[each.value].id
  prefix_list_id    = aws_vpc_endpoint.s3.prefix_list_id
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  description       = "S3, through its endpoint"
}

resource "aws_vpc_security_group_egress_rule" "totesys" {
  for_each = toset(var.totesys_cidrs)

  security_group_id = aws_security_group.group["engine"].id
  cidr_ipv4         = each.value
  ip_protocol       = "tcp"
  from_port         = var.totesys_port
  to_port           = var.totesys_port
  description       = "ToteSys"
}

resource "aws_vpc_security_group_egress_rule" "spark" {
  for_each = toset(var.spark == null ? [] : var.spark.cidrs)

  security_group_id = aws_security_group.group["engine"].id
  cidr_ipv4         = each.value
  ip_protocol       = "tcp"
  from_port         = var.spark.port
  to_port           = var.spark.port
  description       = "The Spark Connect server"
}

resource "aws_vpc_security_group_ingress_rule" "readers" {
  for_each = toset(var.reader_cidrs)

  security_group_id = aws_security_group.group["database"].id
  cidr_ipv4         = each.value
  ip_protocol       = "tcp"
  from_port         = 5432
  to_port           = 5432
  description       = "BI tools"
}

resource "aws_vpc_security_group_ingress_rule" "visitors" {
  for_each = { for pair in setproduct(var.ui_allowed_cidrs, [80, 443]) : "${pair[0]}-${pair[1]}" => { cidr = pair[0], port = pair[1] } if local.has_ui }

  security_group_id = aws_security_group.group["balancer"].id
  cidr_ipv4         = each.value.cidr
  ip_protocol       = "tcp"
  from_port         = each.value.port
  to_port           = each.value.port
  description       = each.value.port == 80 ? "Visitors, who are sent to HTTPS" : "Visitors"
}

resource "aws_vpc_security_group_egress_rule" "cognito" {
  count = local.has_ui ? 1 : 0

  security_group_id = aws_security_group.group["balancer"].id
  cidr_ipv4         = "0.0.0.0/0" # Cognito has no fixed addresses, and no endpoint for a load balancer
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  description       = "Cognito, where the load balancer changes codes for tokens"
}

# Endpoints ------------------------------------------------------------------------------------------------------------

# Through it a task reaches this stack's buckets and the one where ECR keeps layers of images, whatever keys it holds.
resource "aws_vpc_endpoint" "s3" {
  vpc_id            = aws_vpc.main.id
  service_name      = "com.amazonaws.${var.region}.s3"
  vpc_endpoint_type = "Gateway"
  route_table_ids   = [aws_route_table.private.id]

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "OwnBuckets"
        Effect    = "Allow"
        Principal = "*" # any: narrowed to this account by the condition; which role may do what is said by IAM
        Action    = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:ListBucket", "s3:GetBucketLocation", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts", "s3:ListBucketVersions", "s3:GetObjectVersion", "s3:GetBucketVersioning", "s3:GetLifecycleConfiguration"]
        Resource  = flatten([for bucket in [module.lake, module.work] : [bucket.arn, "${bucket.arn}/*"]])
        Condition = { StringEquals = { "aws:PrincipalAccount" = local.account } }
      },
      {
        Sid       = "ImageLayers"
        Effect    = "Allow"
        Principal = "*" # any: ECR signs these requests, not a role of this account
        Action    = ["s3:GetObject"]
        Resource  = ["${local.arn}:s3:::prod-${var.region}-starport-layer-bucket/*"]
      },
    ]
  })

  tags = { Name = "${var.name}-s3" }
}

resource "aws_vpc_endpoint" "interface" {
  for_each = toset(["ecr.api", "ecr.dkr", "logs", "secretsmanager", "sns", "ecs"])

  vpc_id              = aws_vpc.main.id
  service_name        = "com.amazonaws.${var.region}.${each.value}"
  vpc_endpoint_type   = "Interface"
  private_dns_enabled = true
  subnet_ids          = slice(aws_subnet.private[*].id, 0, var.endpoint_zones)
  security_group_ids  = [aws_security_group.group["endpoints"].id]

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "OwnAccount"
      Effect    = "Allow"
      Principal = "*" # any: narrowed to this account by the condition
      Action    = "*" # any: an endpoint is a road and no right: what a role may do is said by IAM
      Resource  = "*" # any: the same
      Condition = { StringEquals = { "aws:PrincipalAccount" = local.account } }
    }]
  })

  tags = { Name = "${var.name}-${each.value}" }
}

# Flow logs ------------------------------------------------------------------------------------------------------------

resource "aws_cloudwatch_log_group" "flow" {
  name              = "${local.log_group}/flow"
  retention_in_days = var.log_retention_days
  kms_key_id        = aws_kms_key.key["operations"].arn
}

resource "aws_flow_log" "vpc" {
  vpc_id               = aws_vpc.main.id
  traffic_type         = "ALL"
  log_destination_type = "cloud-watch-logs"
  log_destination      = aws_cloudwatch_log_group.flow.arn
  iam_role_arn         = aws_iam_role.flow.arn

  tags = { Name = var.name }
}
