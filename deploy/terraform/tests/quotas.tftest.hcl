# What is said of an account that may not run what the stack needs.

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
  ui_host          = "totesys.example.com"
  certificate_arn  = "arn:aws:acm:eu-west-2:123456789012:certificate/00000000-0000-0000-0000-000000000000"
  ui_allowed_cidrs = ["203.0.113.0/24"]
  alarm_emails     = []
  password_version = 0
}

# A new account's quota suffices for the services alone.
run "too_small_for_a_first_load" {
  command = plan

  override_data {
    target = data.aws_servicequotas_service_quota.fargate
    values = { value = 6 }
  }

  expect_failures = [check.fargate_quota]
}

run "just_enough" {
  command = plan

  override_data {
    target = data.aws_servicequotas_service_quota.fargate
    values = { value = 8.5 } # 4.5 for five services, 4 for a large run
  }

  assert {
    condition     = output.fargate_vcpu == { least = 8.5, most = 27 }
    error_message = "Five services take 4.5 vCPU, of which 2.5 twice in a release; five runs take 20."
  }
}

run "a_small_run_in_a_new_account" {
  command = plan

  variables {
    sizes = {
      run    = { cpu = 1024, memory = 8192 }
      daemon = { cpu = 1024, memory = 8192 }
    }
  }

  override_data {
    target = data.aws_servicequotas_service_quota.fargate
    values = { value = 6 }
  }

  assert {
    condition     = output.fargate_vcpu.least == 6
    error_message = "With a run and a daemon of one vCPU each, a new account needs no more than it has."
  }
}
