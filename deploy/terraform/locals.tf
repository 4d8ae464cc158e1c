# Names that several files share, made from variables alone: known before anything exists, and free of cycles.

data "aws_caller_identity" "current" {}

data "aws_partition" "current" {}

locals {
  account   = data.aws_caller_identity.current.account_id
  partition = data.aws_partition.current.partition
  arn       = "arn:${local.partition}" # how every ARN begins

  has_ui         = var.ui != "none"
  has_viewer     = local.has_ui && var.viewer
  ui_host        = local.has_ui ? var.ui_host : ""
  viewer_host    = "view.${local.ui_host}"
  dashboard_host = "sales.${local.ui_host}"
  api_host       = "api.${local.ui_host}"

  has_api   = length(var.api_key_hashes) > 0
  has_rates = var.rates_url != ""

  lake_root  = "totesys" # LAKE_URI is s3://<lake bucket>/<this>
  files_root = "files"   # FILES_URI is s3://<lake bucket>/<this>

  rates_function  = "${var.name}-rates"
  rates_log_group = "${local.log_group}/rates"

  log_group     = "/totesys/${var.name}"
  log_group_arn = "${local.arn}:logs:${var.region}:${local.account}:log-group:${local.log_group}"

  cluster_arn      = "${local.arn}:ecs:${var.region}:${local.account}:cluster/${var.name}"
  cluster_task_arn = "${local.arn}:ecs:${var.region}:${local.account}:task/${var.name}/*"
  run_family       = "${var.name}-run"

  image_name  = var.image_digest == null ? ":${coalesce(var.image_tag, "none-yet")}" : "@${var.image_digest}"
  image       = "${aws_ecr_repository.image.repository_url}${local.image_name}"
  is_deployed = var.image_tag != null
}
