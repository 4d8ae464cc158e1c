# One machine with a fixed address, in a network of its own. Only 80 and 443 are open; people come in by Session Manager.

data "aws_ssm_parameter" "ubuntu" {
  name = "/aws/service/canonical/ubuntu/server/24.04/stable/current/arm64/hvm/ebs-gp3/ami-id"
}

locals {
  cloud_init = templatefile("${path.module}/cloud-init.yaml", {
    region     = var.region
    ui_host    = var.ui_host
    bucket     = module.bucket.name
    topic      = aws_sns_topic.alarms.arn
    namespace  = var.name
    parameter  = aws_ssm_parameter.settings.name
    repository = var.repository
    release    = var.release
  })
}

resource "aws_vpc" "vpc" {
  # checkov:skip=CKV2_AWS_11:one machine, whose open ports ask for a login: a log of flows would cost and tell little
  # checkov:skip=CKV2_AWS_12:nothing is in the default group
  cidr_block           = "10.87.0.0/24"
  enable_dns_hostnames = true
  tags                 = { Name = var.name }
}

resource "aws_internet_gateway" "out" {
  vpc_id = aws_vpc.vpc.id
}

resource "aws_subnet" "public" {
  vpc_id     = aws_vpc.vpc.id
  cidr_block = aws_vpc.vpc.cidr_block
  tags       = { Name = var.name }
}

resource "aws_route_table" "public" {
  vpc_id = aws_vpc.vpc.id

  route {
    cidr_block = "0.0.0.0/0"
    gateway_id = aws_internet_gateway.out.id
  }
}

resource "aws_route_table_association" "public" {
  subnet_id      = aws_subnet.public.id
  route_table_id = aws_route_table.public.id
}

# Without a charge, and the lake's way goes by no other.
resource "aws_vpc_endpoint" "s3" {
  vpc_id          = aws_vpc.vpc.id
  service_name    = "com.amazonaws.${var.region}.s3"
  route_table_ids = [aws_route_table.public.id]
}

resource "aws_security_group" "machine" {
  # checkov:skip=CKV_AWS_260:port 80 leads to 443, and shows who signs certificates that the name is ours
  # checkov:skip=CKV_AWS_382:to ToteSys, wherever it is, to the registries, to AWS
  name        = var.name
  description = "HTTPS, and the way to it"
  vpc_id      = aws_vpc.vpc.id

  ingress {
    description = "HTTPS, with a login"
    from_port   = 443
    to_port     = 443
    protocol    = "tcp"
    cidr_blocks = var.allowed_cidrs
  }

  ingress {
    description = "To HTTPS, and certificates"
    from_port   = 80
    to_port     = 80
    protocol    = "tcp"
    cidr_blocks = ["0.0.0.0/0"]
  }

  egress {
    description = "ToteSys, registries, AWS"
    from_port   = 0
    to_port     = 0
    protocol    = "-1"
    cidr_blocks = ["0.0.0.0/0"]
  }
}

resource "aws_instance" "machine" {
  # checkov:skip=CKV_AWS_126:looks every minute cost more than they tell: the machine reports by itself
  # checkov:skip=CKV_AWS_88:it has the one public address that there is
  ami                     = data.aws_ssm_parameter.ubuntu.insecure_value
  instance_type           = var.instance_type
  subnet_id               = aws_subnet.public.id
  vpc_security_group_ids  = [aws_security_group.machine.id]
  iam_instance_profile    = aws_iam_instance_profile.machine.name
  ebs_optimized           = true
  disable_api_termination = var.deletion_protection
  tags                    = { Name = var.name }
  volume_tags             = { Name = var.name }

  # Two steps, for containers: code server and daemon work in the bucket as the machine's role. No other container gets
  # there: networks without a way out keep the UIs away, a rule of the firewall keeps Caddy.
  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 2
  }

  root_block_device {
    volume_type = "gp3"
    volume_size = var.volume_gib
    encrypted   = true
  }

  credit_specification {
    cpu_credits = "standard" # slower when they are used up, rather than dearer
  }

  user_data = local.cloud_init

  lifecycle {
    ignore_changes = [ami, user_data] # what a new machine begins with; this one is kept up to date by itself
  }
}

resource "aws_eip" "machine" {
  domain   = "vpc"
  instance = aws_instance.machine.id
  tags     = { Name = var.name }
}

resource "aws_route53_record" "ui" {
  for_each = var.route53_zone_id == null ? toset([]) : toset(["", "view.", "sales."])

  zone_id = var.route53_zone_id
  name    = "${each.key}${var.ui_host}"
  type    = "A"
  ttl     = 300
  records = [aws_eip.machine.public_ip]
}
