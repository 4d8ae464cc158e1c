# The processed zone as tables of Athena: the eleven star tables, as the catalogue of the package describes them.
#
# glue_tables.json is written by `python -m totesys_assets.catalogue.glue`; a test fails when it is not what the catalogue
# says. Encryption of the Glue catalogue itself is a setting of the whole account, and not this stack's to change.

locals {
  glue_name   = replace(var.name, "-", "_")
  star_tables = jsondecode(file("${path.module}/glue_tables.json"))
}

resource "aws_glue_catalog_database" "star" {
  name        = local.glue_name
  description = "ToteSys: the star tables in the lake"
}

# As Athena (engine version 3) itself notes a Delta table that it is told of with table_type = DELTA: it finds the table by
# the two markers and the location, and reads columns, files and partitions from the table's own log. The columns here are
# for people and for Lake Formation. Formats and serde are what Athena writes too; nothing is read with them. No partition
# keys: Glue would then expect a list of partitions, which Delta keeps itself.
resource "aws_glue_catalog_table" "star" {
  for_each = local.star_tables

  database_name = aws_glue_catalog_database.star.name
  name          = each.key
  description   = each.value.description
  table_type    = "EXTERNAL_TABLE"

  parameters = {
    EXTERNAL                      = "TRUE"
    "table_type"                  = "delta"
    "spark.sql.sources.provider"  = "delta"
    "spark.sql.partitionProvider" = "catalog"
  }

  storage_descriptor {
    location      = "s3://${module.lake.name}/${local.lake_root}/processed/${each.key}/"
    input_format  = "org.apache.hadoop.mapred.SequenceFileInputFormat"
    output_format = "org.apache.hadoop.hive.ql.io.HiveSequenceFileOutputFormat"

    ser_de_info {
      serialization_library = "org.apache.hadoop.hive.serde2.lazy.LazySimpleSerDe"
      parameters = {
        "serialization.format" = "1"
        "path"                 = "s3://${module.lake.name}/${local.lake_root}/processed/${each.key}/"
      }
    }

    dynamic "columns" {
      for_each = each.value.columns

      content {
        name    = columns.value.name
        type    = columns.value.type
        comment = columns.value.comment
      }
    }
  }
}

resource "aws_athena_workgroup" "star" {
  name          = var.name
  description   = "ToteSys: queries in the lake"
  force_destroy = !var.deletion_protection

  configuration {
    enforce_workgroup_configuration    = true
    publish_cloudwatch_metrics_enabled = true
    bytes_scanned_cutoff_per_query     = var.athena_scan_limit_gib * 1024 * 1024 * 1024

    engine_version {
      selected_engine_version = "Athena engine version 3"
    }

    result_configuration {
      output_location       = "s3://${module.work.name}/athena-results/"
      expected_bucket_owner = local.account

      encryption_configuration {
        encryption_option = "SSE_KMS"
        kms_key_arn       = aws_kms_key.key["data"].arn
      }
    }
  }
}

# For people: whoever is given this policy may query the star tables, and nothing else of the lake.
resource "aws_iam_policy" "lake_reader" {
  name        = "${var.name}-lake-reader"
  description = "Query the star tables of ${var.name} with Athena"
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid    = "Query"
        Effect = "Allow"
        Action = [
          "athena:GetWorkGroup", "athena:StartQueryExecution", "athena:StopQueryExecution", "athena:GetQueryExecution",
          "athena:BatchGetQueryExecution", "athena:ListQueryExecutions", "athena:GetQueryResults",
        ]
        Resource = aws_athena_workgroup.star.arn
      },
      {
        Sid    = "ReadCatalogue"
        Effect = "Allow"
        Action = ["glue:GetDatabase", "glue:GetTable", "glue:GetTables", "glue:GetPartitions"]
        Resource = [
          "${local.arn}:glue:${var.region}:${local.account}:catalog",
          "${local.arn}:glue:${var.region}:${local.account}:database/${aws_glue_catalog_database.star.name}",
          "${local.arn}:glue:${var.region}:${local.account}:table/${aws_glue_catalog_database.star.name}/*",
        ]
      },
      {
        Sid       = "ListStar"
        Effect    = "Allow"
        Action    = ["s3:ListBucket"]
        Resource  = module.lake.arn
        Condition = { StringLike = { "s3:prefix" = ["${local.lake_root}/processed", "${local.lake_root}/processed/*"] } }
      },
      {
        Sid      = "ReadStar"
        Effect   = "Allow"
        Action   = "s3:GetObject"
        Resource = "${module.lake.arn}/${local.lake_root}/processed/*"
      },
      {
        Sid      = "FindBuckets"
        Effect   = "Allow"
        Action   = "s3:GetBucketLocation"
        Resource = [module.lake.arn, module.work.arn]
      },
      {
        Sid       = "ListResults"
        Effect    = "Allow"
        Action    = "s3:ListBucket"
        Resource  = module.work.arn
        Condition = { StringLike = { "s3:prefix" = ["athena-results", "athena-results/*"] } }
      },
      {
        Sid      = "WriteResults"
        Effect   = "Allow"
        Action   = ["s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"]
        Resource = "${module.work.arn}/athena-results/*"
      },
      {
        Sid       = "ReadersKey"
        Effect    = "Allow"
        Action    = ["kms:Decrypt", "kms:GenerateDataKey"]
        Resource  = aws_kms_key.key["data"].arn
        Condition = { StringEquals = { "kms:ViaService" = "s3.${var.region}.amazonaws.com" } }
      },
    ]
  })
}
