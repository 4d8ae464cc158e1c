# The way in: one load balancer with TLS, and a login by Cognito before Dagster and the dashboard, for they have none. The API
# asks programs for its own keys. With ui = "none" there is nothing of all this.
#
# No web application firewall: before the login there is nothing but Cognito, and who may come that far is narrowed by
# ui_allowed_cidrs. Who opens it to the whole Internet may put AWS WAF in front; it costs by rule and by request.

locals {
  # Service -> its host, who logs in there (null: nobody, for it asks for keys), and where it answers.
  possible_sites = merge(
    {
      webserver = { host = local.ui_host, audience = "operators", priority = 10, port = 3000, health_path = "/server_info" }
      viewer    = { host = local.viewer_host, audience = "viewers", priority = 20, port = 3000, health_path = "/server_info" }
      dashboard = { host = local.dashboard_host, audience = "viewers", priority = 30, port = local.possible_insights.dashboard.port, health_path = local.possible_insights.dashboard.health_path }
    },
    { for name, api in local.possible_insights : name => { host = local.api_host, audience = null, priority = 40, port = api.port, health_path = api.health_path } if name == "api" },
  )
  sites = { for name, site in local.possible_sites : name => site if local.has_ui && (name != "viewer" || local.has_viewer) }

  audiences = { for name in ["operators", "viewers"] : name => sort([for site in local.sites : site.host if site.audience == name]) if local.has_ui }

  # As CloudWatch knows it; null without one.
  balancer = one(aws_lb.ui[*].arn_suffix)
}

resource "aws_lb" "ui" {
  # checkov:skip=CKV2_AWS_28:no firewall: see the head of this file
  count = local.has_ui ? 1 : 0

  name               = var.name
  load_balancer_type = "application"
  internal           = false
  subnets            = aws_subnet.public[*].id
  security_groups    = [aws_security_group.group["balancer"].id]

  enable_deletion_protection = var.deletion_protection
  drop_invalid_header_fields = true
  desync_mitigation_mode     = "defensive"
  idle_timeout               = 120 # UI and dashboard keep websockets open

  access_logs {
    enabled = true
    bucket  = module.logs.name
    prefix  = "load-balancer"
  }
}

resource "aws_lb_target_group" "ui" {
  # checkov:skip=CKV_AWS_378:the services speak HTTP; what lies between them and the load balancer is this network alone
  for_each = local.sites

  name                 = "${var.name}-${each.key}"
  vpc_id               = aws_vpc.main.id
  target_type          = "ip"
  protocol             = "HTTP"
  port                 = each.value.port
  deregistration_delay = 30

  # A page of the dashboard lives in one task: its websocket, and what it offers for download. There are two tasks while a
  # release replaces one by the other.
  stickiness {
    type            = "lb_cookie"
    enabled         = each.key == "dashboard"
    cookie_duration = 86400
  }

  health_check {
    path                = each.value.health_path
    matcher             = "200"
    interval            = 30
    timeout             = 10
    healthy_threshold   = 2
    unhealthy_threshold = 3
  }
}

resource "aws_lb_listener" "http" {
  count = local.has_ui ? 1 : 0

  load_balancer_arn = aws_lb.ui[0].arn
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
  count = local.has_ui ? 1 : 0

  load_balancer_arn = aws_lb.ui[0].arn
  protocol          = "HTTPS"
  port              = 443
  ssl_policy        = "ELBSecurityPolicy-TLS13-1-2-2021-06"
  certificate_arn   = var.certificate_arn

  # Browsers come by HTTPS from the first answer on, for a year.
  routing_http_response_strict_transport_security_header_value = "max-age=31536000"

  # Who asks for another host gets nothing.
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
  for_each = local.sites

  listener_arn = aws_lb_listener.https[0].arn
  priority     = each.value.priority

  condition {
    host_header {
      values = [each.value.host]
    }
  }

  dynamic "action" {
    for_each = each.value.audience == null ? [] : [each.value.audience]
    iterator = audience

    content {
      type  = "authenticate-cognito"
      order = 1

      authenticate_cognito {
        user_pool_arn              = aws_cognito_user_pool.pool[audience.value].arn
        user_pool_client_id        = aws_cognito_user_pool_client.balancer[audience.value].id
        user_pool_domain           = aws_cognito_user_pool_domain.pool[audience.value].domain
        scope                      = "openid email"
        session_timeout            = 28800 # a working day
        session_cookie_name        = "totesys-${audience.value}"
        on_unauthenticated_request = "authenticate"
      }
    }
  }

  action {
    type             = "forward"
    order            = 2
    target_group_arn = aws_lb_target_group.ui[each.key].arn
  }
}

# Rules and names were once called after who logs in.
moved {
  from = aws_lb_listener_rule.host["operators"]
  to   = aws_lb_listener_rule.host["webserver"]
}

moved {
  from = aws_lb_listener_rule.host["viewers"]
  to   = aws_lb_listener_rule.host["viewer"]
}

moved {
  from = aws_route53_record.host["operators"]
  to   = aws_route53_record.host["webserver"]
}

moved {
  from = aws_route53_record.host["viewers"]
  to   = aws_route53_record.host["viewer"]
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

# The load balancer, as Cognito knows it. A viewer logs in once for both hosts. AWS makes its secret, and Terraform cannot but note it in the state, and so in a
# saved plan: it opens no session without a user's password, but neither file is for the public.
resource "aws_cognito_user_pool_client" "balancer" {
  for_each = local.audiences

  name                                 = "load-balancer"
  user_pool_id                         = aws_cognito_user_pool.pool[each.key].id
  generate_secret                      = true
  callback_urls                        = [for host in each.value : "https://${host}/oauth2/idpresponse"]
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
  for_each = { for name, site in local.sites : name => site.host if var.route53_zone_id != null }

  zone_id = var.route53_zone_id
  name    = each.value
  type    = "A"

  alias {
    name                   = aws_lb.ui[0].dns_name
    zone_id                = aws_lb.ui[0].zone_id
    evaluate_target_health = false
  }
}
