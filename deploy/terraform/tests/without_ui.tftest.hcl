# ui = "none": nothing is open, nobody logs in, and neither host name nor certificate is needed.

mock_provider "aws" {
  source = "./tests/mocks"
}

provider "aws" {
  alias                       = "passwords"
  region                      = "eu-west-2"
  access_key                  = "none"
  secret_key                  = "none"
  skip_credentials_validation = true
  skip_metadata_api_check     = true
  skip_requesting_account_id  = true

  endpoints {
    secretsmanager = "http://127.0.0.1:9" # nobody listens there
  }
}

variables {
  region           = "eu-west-2"
  totesys_cidrs    = ["192.0.2.10/32"]
  alarm_emails     = []
  password_version = 0
  ui               = "none"
}

run "nothing_is_open" {
  command = apply

  assert {
    condition     = toset(keys(aws_ecs_service.service)) == toset(["code", "daemon"]) && keys(output.services) == ["code", "daemon"]
    error_message = "Code server and daemon run, and nothing that shows anything."
  }

  assert {
    condition     = length(aws_lb.ui) + length(aws_lb_listener.https) + length(aws_lb_listener.http) + length(aws_lb_target_group.ui) + length(aws_lb_listener_rule.host) + length(aws_cognito_user_pool.pool) + length(module.webserver) + length(module.viewer) + length(module.insights) == 0
    error_message = "There is no load balancer, no login, and no task behind one."
  }

  assert {
    condition     = toset(keys(aws_security_group.group)) == toset(["engine", "provision", "database", "endpoints"]) && length(aws_vpc_security_group_ingress_rule.visitors) + length(aws_vpc_security_group_egress_rule.cognito) == 0
    error_message = "Nobody comes in from outside."
  }

  assert {
    condition     = toset([for rule in aws_vpc_security_group_ingress_rule.conversation : rule.description]) == toset(["engine to engine", "engine to database", "provision to database", "engine to endpoints", "provision to endpoints"])
    error_message = "The others speak to each other as they do with a UI."
  }

  assert {
    condition     = one([for each in module.code.definition.environment : each.value if each.name == "TOTESYS_UI_URL"]) == ""
    error_message = "Messages carry no link that leads nowhere."
  }

  assert {
    condition     = output.ui_url == null && output.viewer_url == null && output.dashboard_url == null && output.api_url == null && output.load_balancer_host == null && length(output.user_pools) == 0
    error_message = "Outputs do not name what is not there."
  }

  assert {
    condition     = length([for name in keys(aws_cloudwatch_metric_alarm.alarm) : name if strcontains(name, "balancer") || strcontains(name, "ui-") || strcontains(name, "viewer") || strcontains(name, "webserver") || strcontains(name, "dashboard")]) == 0
    error_message = "No alarm watches what is not there."
  }
}

run "no_api_without_a_way_in" {
  command = plan

  variables {
    api_key_hashes = ["2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"]
  }

  expect_failures = [var.api_key_hashes]
}

run "another_word" {
  command = plan

  variables {
    ui = "bastion"
  }

  expect_failures = [var.ui]
}

run "a_balancer_needs_a_name_a_certificate_and_visitors" {
  command = plan

  variables {
    ui = "balancer"
  }

  expect_failures = [var.ui_host, var.certificate_arn, var.ui_allowed_cidrs]
}
