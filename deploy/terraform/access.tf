# The way in: one load balancer with TLS, and a login by Cognito before anything of Dagster's is reached, for it has none.
#
# No web application firewall: before the login there is nothing but Cognito, and who may come that far is narrowed by
# ui_allowed_cidrs. Who opens the UI to the whole Internet may put AWS WAF in front; it costs by rule and by request.

locals {
  audiences = {
    operators = { host = var.ui_host, service = "webserver" }
    viewers   = { host = local.viewer_host, service = "viewer" }
  }
}

resource "aws_lb" "ui" {
  # checkov:skip=CKV2_AWS_28:no firewall: see the head of this file
  name               = var.name
  load_balancer_type = "application"
  internal           = false
  subnets            = aws_subnet.public[*].id
  security_groups    = [aws_security_group.group["balancer"].id]

  enable_deletion_protection = var.deletion_protection
  drop_invalid_header_fields = true
  desync_mitigation_mode     = "defensive"
  idle_timeout               = 120 # the UI keeps a websocket open

  access_logs {
    enabled = true
    bucket  = module.logs.name
    prefix  = "load-balancer"
  }
}

resource "aws_lb_target_group" "ui" {
  # checkov:skip=CKV_AWS_378:the webserver speaks HTTP; what lies between it and the load balancer is this network alone
  for_each = local.targets

  name                 = "${var.name}-${each.key}"
  vpc_id               = aws_vpc.main.id
  target_type          = "ip"
  protocol             = "HTTP"
  port                 = 3000
  deregistration_delay = 30

  health_check {
    path                = "/server_info"
    matcher             = "200"
    interval            = 30
    timeout             = 10
    healthy_threshold   = 2
    unhealthy_threshold = 3
  }
}

resource "aws_lb_listener" "http" {
  load_balancer_arn = aws_lb.ui.arn
  protocol          = "HTTP"
  port              = 80

  default_action {
    type = "redirect"

    redirect {
      protocol    = "HTTPS"
      port        = "443"
      status_code = "HTTP_301"
    }
  }
}

resource "aws_lb_listener" "https" {
  load_balancer_arn = aws_lb.ui.arn
  protocol          = "HTTPS"
  port              = 443
  ssl_policy        = "ELBSecurityPolicy-TLS13-1-2-2021-06"
  certificate_arn   = var.certificate_arn

  # Who asks for neither host gets nothing.
  default_action {
    type = "fixed-response"

    fixed_response {
      content_type = "text/plain"
      message_body = "Not found"
      status_code  = "404"
    }
  }
}

resource "aws_lb_listener_rule" "host" {
  for_each = local.audiences

  listener_arn = aws_lb_listener.https.arn
  priority     = each.key == "operators" ? 10 : 20

  condition {
    host_header {
      values = [each.value.host]
    }
  }

  action {
    type  = "authenticate-cognito"
    order = 1

    authenticate_cognito {
      user_pool_arn              = aws_cognito_user_pool.pool[each.key].arn
      user_pool_client_id        = aws_cognito_user_pool_client.balancer[each.key].id
      user_pool_domain           = aws_cognito_user_pool_domain.pool[each.key].domain
      scope                      = "openid email"
      session_timeout            = 28800 # a working day
      session_cookie_name        = "totesys-${each.key}"
      on_unauthenticated_request = "authenticate"
    }
  }

  action {
    type             = "forward"
    order            = 2
    target_group_arn = aws_lb_target_group.ui[each.value.service].arn
  }
}

# Who may log in: users are made by hand, in one pool or the other ------------------------------------------------------

resource "aws_cognito_user_pool" "pool" {
  for_each = local.audiences

  name                     = "${var.name}-${each.key}"
  deletion_protection      = var.deletion_protection ? "ACTIVE" : "INACTIVE"
  mfa_configuration        = var.mfa
  username_attributes      = ["email"]
  auto_verified_attributes = ["email"]

  admin_create_user_config {
    allow_admin_create_user_only = true
  }

  software_token_mfa_configuration {
    enabled = true
  }

  password_policy {
    minimum_length                   = 14
    require_lowercase                = true
    require_uppercase                = true
    require_numbers                  = true
    require_symbols                  = true
    temporary_password_validity_days = 3
  }

  account_recovery_setting {
    recovery_mechanism {
      name     = "verified_email"
      priority = 1
    }
  }

  username_configuration {
    case_sensitive = false
  }
}

# The load balancer, as Cognito knows it. AWS makes its secret, and Terraform cannot but note it in the state, and so in a
# saved plan: it opens no session without a user's password, but neither file is for the public.
resource "aws_cognito_user_pool_client" "balancer" {
  for_each = local.audiences

  name                                 = "load-balancer"
  user_pool_id                         = aws_cognito_user_pool.pool[each.key].id
  generate_secret                      = true
  callback_urls                        = ["https://${each.value.host}/oauth2/idpresponse"]
  supported_identity_providers         = ["COGNITO"]
  allowed_oauth_flows_user_pool_client = true
  allowed_oauth_flows                  = ["code"]
  allowed_oauth_scopes                 = ["openid", "email"]
  prevent_user_existence_errors        = "ENABLED"
  enable_token_revocation              = true
}

resource "aws_cognito_user_pool_domain" "pool" {
  for_each = local.audiences

  user_pool_id = aws_cognito_user_pool.pool[each.key].id
  domain       = "${var.name}-${each.key}-${local.account}" # the whole region's names
}

# Names ----------------------------------------------------------------------------------------------------------------

resource "aws_route53_record" "host" {
  for_each = var.route53_zone_id == null ? {} : local.audiences

  zone_id = var.route53_zone_id
  name    = each.value.host
  type    = "A"

  alias {
    name                   = aws_lb.ui.dns_name
    zone_id                = aws_lb.ui.zone_id
    evaluate_target_health = false
  }
}
