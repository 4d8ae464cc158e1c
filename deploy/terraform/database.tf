# One PostgreSQL for the warehouse and for Dagster's storage: databases "warehouse" and "dagster", made by the provision
# task. ToteSys is someone else's.

locals {
  # A switch until PostgreSQL 17, a list of stages from 18 on, where RDS refuses the switch.
  logs_connections = tonumber(var.database_version) >= 18 ? "authorization" : "1"
}

resource "aws_db_subnet_group" "database" {
  name       = var.name
  subnet_ids = aws_subnet.private[*].id
}

resource "aws_db_parameter_group" "database" {
  # checkov:skip=CKV2_AWS_30:log_statement would write the roles' new passwords into the log; slow statements are logged
  name_prefix = "${var.name}-"
  family      = "postgres${var.database_version}"
  description = "${var.name}: TLS only, slow statements logged"

  parameter {
    name  = "rds.force_ssl"
    value = "1"
  }

  parameter {
    name  = "log_min_duration_statement"
    value = "10000"
  }

  parameter {
    name  = "log_lock_waits"
    value = "1"
  }

  parameter {
    name  = "log_connections"
    value = local.logs_connections
  }

  lifecycle {
    create_before_destroy = true # a new major version takes a new group while the old one is in use
  }
}

# RDS would make these groups itself, without a key and for ever.
resource "aws_cloudwatch_log_group" "database" {
  for_each = toset(["postgresql", "upgrade"])

  name              = "/aws/rds/instance/${var.name}/${each.value}"
  retention_in_days = var.log_retention_days
  kms_key_id        = aws_kms_key.key["operations"].arn
}

resource "aws_db_instance" "database" {
  # checkov:skip=CKV_AWS_161:nobody logs in by IAM: the platform's roles have passwords, and people run commands as tasks
  identifier     = var.name
  engine         = "postgres"
  engine_version = var.database_version
  instance_class = var.database_class
  multi_az       = var.database_multi_az

  # The master's password is made, kept and changed by RDS: it is in no state and in no variable.
  username                      = "totesys_admin"
  manage_master_user_password   = true
  master_user_secret_kms_key_id = aws_kms_key.key["secrets"].arn

  storage_type          = "gp3"
  allocated_storage     = var.database_storage_gib.first
  max_allocated_storage = var.database_storage_gib.most
  storage_encrypted     = true
  kms_key_id            = aws_kms_key.key["data"].arn

  port                   = 5432
  db_subnet_group_name   = aws_db_subnet_group.database.name
  vpc_security_group_ids = [aws_security_group.group["database"].id]
  publicly_accessible    = false
  ca_cert_identifier     = var.database_ca
  parameter_group_name   = aws_db_parameter_group.database.name

  backup_retention_period = var.database_backup_days
  # Clear of the nightly jobs, which begin at 02:00 and may take two hours each.
  backup_window             = "00:45-01:45"
  maintenance_window        = "sun:06:45-sun:07:45"
  copy_tags_to_snapshot     = true
  delete_automated_backups  = false
  deletion_protection       = var.deletion_protection
  skip_final_snapshot       = !var.deletion_protection
  final_snapshot_identifier = "${var.name}-final"

  auto_minor_version_upgrade  = true
  allow_major_version_upgrade = true # happens only when database_version says so
  apply_immediately           = true # else apply says that it is done, and a class or a version waits for Sunday

  performance_insights_enabled          = true
  performance_insights_kms_key_id       = aws_kms_key.key["data"].arn
  performance_insights_retention_period = 7 # days; longer ones are paid
  monitoring_interval                   = 60
  monitoring_role_arn                   = aws_iam_role.database_monitoring.arn
  enabled_cloudwatch_logs_exports       = ["postgresql", "upgrade"]

  depends_on = [aws_cloudwatch_log_group.database, aws_iam_role_policy_attachment.database_monitoring]
}
