mock_provider "aws" {
  source = "./tests/mocks"
}

# Never asked: with password_version 0 no password is made.
provider "aws" {
  alias                       = "passwords"
  region                      = "eu-west-2"
  access_key                  = "none"
  secret_key                  = "none"
  skip_credentials_validation = true
  skip_metadata_api_check     = true
  skip_requesting_account_id  = true
}

variables {
  region            = "eu-west-2"
  totesys_cidrs     = ["192.0.2.10/32"]
  ui_host           = "totesys.example.com"
  certificate_arn   = "arn:aws:acm:eu-west-2:123456789012:certificate/00000000-0000-0000-0000-000000000000"
  ui_allowed_cidrs  = ["203.0.113.0/24"]
  alarm_emails      = ["data-team@example.com"]
  image_tag         = "0123abc"
  github_repository = "example/totesys-assets"
  state_bucket      = "example-terraform-state"
  password_version  = 0 # mocks know no ephemeral resources
}

run "all" {
  command = apply
}
