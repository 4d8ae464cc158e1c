# What AWS lets an account run, held against what this stack runs: plan and apply say so, before a task is refused.
#
# A new account may run 6 vCPU on Fargate in a region, or fewer. Beyond that AWS refuses a task, and with it a run or a new
# version of a service. More is asked for under Service Quotas, and costs nothing.

locals {
  # As many runs as there may be at once: max_concurrent_runs in deploy/docker/dagster.yaml.
  most_runs = 5

  vcpu          = { for kind, size in local.sizes : kind => size.cpu / 1024 }
  services_vcpu = sum([for name in keys(local.services) : local.vcpu[name]])
  # A release has a second task of these for a while.
  beside_vcpu = sum([for name, service in local.services : local.vcpu[name] if service.percent.most > 100])

  fargate_vcpu = {
    least = local.services_vcpu + max(local.vcpu.run, local.beside_vcpu)
    most  = local.services_vcpu + local.beside_vcpu + local.most_runs * local.vcpu.run
  }
}

check "fargate_quota" {
  data "aws_servicequotas_service_quota" "fargate" {
    service_code = "fargate"
    quota_code   = "L-3032A538"
  }

  assert {
    condition     = data.aws_servicequotas_service_quota.fargate.value >= local.fargate_vcpu.least
    error_message = <<-EOT
      This account may run ${data.aws_servicequotas_service_quota.fargate.value} vCPU on Fargate in ${var.region}. The services and one large run, such as the
      first load, take ${local.fargate_vcpu.least}, at most ${local.fargate_vcpu.most}. Ask for more before you release:
      aws service-quotas request-service-quota-increase --service-code fargate --quota-code L-3032A538 --desired-value ${ceil(local.fargate_vcpu.most)}
    EOT
  }
}
