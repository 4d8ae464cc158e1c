# What the workflows' roles may do where the stack is made in other ways than stack.tftest.hcl has it.

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
  region            = "eu-west-2"
  totesys_cidrs     = ["192.0.2.10/32"]
  alarm_emails      = []
  password_version  = 0
  github_repository = "example/totesys-assets"
  state_bucket      = "example-terraform-state"
}

run "without_ui_by_transit_gateway" {
  command = apply

  variables {
    ui            = "none"
    totesys_route = { by = "transit_gateway", id = "tgw-0123" }
    state_key     = "another/state"
    image_tag     = "0123abc"
    image_digest  = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
  }

  assert {
    condition     = alltrue([for task in [module.code, module.daemon, module.run, module.provision] : task.definition.image == "123456789012.dkr.ecr.eu-west-2.amazonaws.com/totesys@${var.image_digest}"])
    error_message = "Tasks run the very image that was verified."
  }

  assert {
    condition     = one([for statement in jsondecode(aws_iam_policy.deploy["network"].policy).Statement : statement.Resource if statement.Sid == "JoinTransitGateway"]) == "arn:aws:ec2:eu-west-2:123456789012:transit-gateway/tgw-0123"
    error_message = "The attachment may join the gateway that was named, and no other."
  }

  assert {
    condition     = !anytrue([for statement in jsondecode(aws_iam_policy.deploy["network"].policy).Statement : strcontains(jsonencode(statement), "route53")])
    error_message = "Without a zone there is no right to one."
  }

  assert {
    condition     = !anytrue([for policy in concat(values(aws_iam_policy.deploy)[*].policy, values(aws_iam_role_policy.ci)[*].policy) : strcontains(policy, "null")])
    error_message = "What is not there is not named."
  }

  assert {
    condition     = one([for statement in jsondecode(aws_iam_role_policy.ci["plan"].policy).Statement : statement.Resource if statement.Sid == "ReadState"]) == "arn:aws:s3:::example-terraform-state/another/state"
    error_message = "The state is where state_key says."
  }
}

run "a_repository_that_is_named_with_its_ids" {
  command = apply

  variables {
    ui                = "none"
    github_repository = "example@123456/totesys-assets@456789"
  }

  assert {
    condition = { for name, role in aws_iam_role.ci : name => jsondecode(role.assume_role_policy).Statement[0].Condition.StringEquals["token.actions.githubusercontent.com:sub"] } == {
      build  = "repo:example@123456/totesys-assets@456789:ref:refs/heads/main"
      plan   = "repo:example@123456/totesys-assets@456789:ref:refs/heads/main"
      deploy = "repo:example@123456/totesys-assets@456789:environment:production"
    }
    error_message = "The subject of a token carries both ids."
  }

  assert {
    condition     = alltrue([for role in aws_iam_role.ci : strcontains(role.assume_role_policy, "\"example/totesys-assets/.github/workflows/deploy.yml@refs/heads/main\"")])
    error_message = "A workflow is named without ids."
  }
}
