# Secrets: the URLs of ToteSys and of a Spark server, which the user fills in, and those of the database roles, which are made here and never
# seen: neither in the state, nor in a plan.

locals {
  roles = {
    warehouse-owner  = { role = "warehouse_owner", database = "warehouse" }
    warehouse-loader = { role = "warehouse_loader", database = "warehouse" }
    warehouse-reader = { role = "warehouse_reader", database = "warehouse" }
    dagster          = { role = "dagster", database = "dagster" }
    dagster-viewer   = { role = "dagster_viewer", database = "dagster" }
  }

  # verify-full: a server with another name, or a certificate of another authority, gets no password.
  database_tls = "sslmode=verify-full&sslrootcert=/etc/ssl/totesys/rds.pem"
}

resource "aws_secretsmanager_secret" "totesys" {
  # checkov:skip=CKV2_AWS_57:the password is that of someone else's database; it changes when they say so
  name                    = "${var.name}/totesys-url"
  description             = "URL of the ToteSys database, with the login that reads it. Filled in by hand."
  kms_key_id              = aws_kms_key.key["secrets"].arn
  recovery_window_in_days = var.deletion_protection ? 30 : 0
}

# The address may have a token in it.
resource "aws_secretsmanager_secret" "spark" {
  # checkov:skip=CKV2_AWS_57:the token is that of someone else's server; it changes when they say so
  count = var.spark == null ? 0 : 1

  name                    = "${var.name}/spark-remote"
  description             = "SPARK_REMOTE: URL of the Spark Connect server. Filled in by hand."
  kms_key_id              = aws_kms_key.key["secrets"].arn
  recovery_window_in_days = var.deletion_protection ? 30 : 0
}

resource "aws_secretsmanager_secret" "role" {
  # checkov:skip=CKV2_AWS_57:rotated by raising password_version: the provision task sets it in PostgreSQL, the services restart
  for_each = local.roles

  name                    = "${var.name}/${each.key}-url"
  description             = "URL of database ${each.value.database} for role ${each.value.role}."
  kms_key_id              = aws_kms_key.key["secrets"].arn
  recovery_window_in_days = var.deletion_protection ? 30 : 0
}

# A new password at every run of Terraform; it is written, and so begins to count, only when password_version changes.
ephemeral "aws_secretsmanager_random_password" "role" {
  provider = aws.passwords
  for_each = var.password_version > 0 ? local.roles : {}

  password_length     = 40
  exclude_punctuation = true # it stands in a URL
}

resource "aws_secretsmanager_secret_version" "role" {
  for_each = var.password_version > 0 ? local.roles : {}

  secret_id                = aws_secretsmanager_secret.role[each.key].id
  secret_string_wo         = "postgresql://${each.value.role}:${ephemeral.aws_secretsmanager_random_password.role[each.key].random_password}@${aws_db_instance.database.endpoint}/${each.value.database}?${local.database_tls}"
  secret_string_wo_version = var.password_version
}
